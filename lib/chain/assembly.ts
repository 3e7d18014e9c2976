import { addon, PAGE_SIZE, SEGMENT_HEADROOM, SEGMENT_PAGES, SEGMENT_STRIDE } from '../kernel/addon.js';
import { broken, damaged, foundIn } from './damage.js';
import { EXTENT_ROOM, ExtentReader, FRAME_PAGES } from './extent.js';
import type { Log } from './log.js';
import { type RegionTable, type Stored, Version } from './page-table.js';
import { Kind } from './record.js';
import { pageRanges, toRuns } from './runs.js';

/** Versions of one extent that are needed: their slots, and the place of the page that each is a part of. */
export interface Part {
  record: number;
  kind: Stored;
  slots: Uint8Array;
  places: Uint32Array;
}

export interface PageVersion {
  kind: Stored;
  record: number;
  slot: number;
}

/** Collects versions by extent: two numbers for each, no objects. */
export class Parts {
  readonly #extents = new Map<number, { kind: Stored; slots: number[]; places: number[] }>();

  add(kind: Stored, record: number, slot: number, place: number): void {
    let extent = this.#extents.get(record);
    if (extent === undefined) {
      extent = { kind, slots: [], places: [] };
      this.#extents.set(record, extent);
    }
    extent.slots.push(slot);
    extent.places.push(place);
  }

  /** In the order of the records. @throws `TIDEMARK_DAMAGED` */
  list(): Part[] {
    const parts = [...this.#extents].map(([record, { kind, slots, places }]) => {
      checkExtentUse(record, slots.length);
      return { record, kind, slots: Uint8Array.from(slots), places: Uint32Array.from(places) };
    });
    return parts.sort((a, b) => a.record - b.record);
  }
}

/** No two pages are in one slot: whatever is made for the pages of an extent has room for so many. @throws `TIDEMARK_DAMAGED` */
export function checkExtentUse(record: number, slots: number): void {
  if (slots > SEGMENT_PAGES) throw damaged(`extent ${record} is said to hold ${slots} pages, of ${SEGMENT_PAGES} at most`);
}

/**
 * The deltas that turn what one checkpoint holds of a page into what another holds: those between the two versions, or between each and one that both
 * build on. Undefined where they have no version in common.
 */
export function deltasBetween(has: RegionTable, wanted: RegionTable, page: number): PageVersion[] | undefined {
  const [theirs, ours] = [versionsOf(has, page), versionsOf(wanted, page)];
  for (const [k, version] of theirs.entries()) {
    const same = ours.findIndex(({ record, slot }) => record === version.record && slot === version.slot);
    if (same >= 0) return [...theirs.slice(0, k), ...ours.slice(0, same)];
  }
  return undefined;
}

function versionsOf(region: RegionTable, page: number): PageVersion[] {
  const versions: PageVersion[] = [];
  if (region.isStored(page)) region.versions(page, (kind, record, slot) => versions.push({ kind, record, slot }));
  return versions;
}

/** `ExtentReader.collect` for a part. @throws `TIDEMARK_DAMAGED` */
export function collectPart(
  reader: ExtentReader,
  { record, kind, slots }: Pick<Part, 'record' | 'kind' | 'slots'>,
  target: Uint8Array,
): Uint8Array {
  if (reader.kind !== kind - Version.full) throw broken(`extent ${record} does not hold what the page tables say`);
  return reader.collect(slots, target);
}

/** Pages of a region as of a checkpoint, in segments as staging has them; those that were never stored are zero. All of them are compared with their CRC32C. */
export async function readPages(log: Log, region: RegionTable, pages: Uint32Array): Promise<PageReader> {
  const assembly = new Assembly(region, pages);
  for (const part of assembly.parts) {
    try {
      assembly.add(part, await log.payload(part.record, Kind.extent));
    } catch (error) {
      throw assembly.foundIn(part, error);
    }
  }
  return assembly.finish();
}

/** The same, without waiting for anything but the disk: packed. Few pages. @param payload of an extent */
export function readPagesNow(payload: (record: number) => Uint8Array, region: RegionTable, pages: Uint32Array): Uint8Array {
  if (pages.length > SEGMENT_PAGES) throw new RangeError(`${pages.length} pages at once`);
  const assembly = new Assembly(region, pages);
  for (const part of assembly.parts) {
    try {
      assembly.add(part, payload(part.record));
    } catch (error) {
      throw assembly.foundIn(part, error);
    }
  }
  assembly.finish();
  return assembly.memory.subarray(placeOffset(0), placeOffset(0) + pages.length * PAGE_SIZE);
}

/** Puts pages together of the extents that hold their versions. */
class Assembly {
  /** What is needed, in the order of the records. */
  readonly parts: Part[];
  readonly memory: Uint8Array;
  readonly #region: RegionTable;
  readonly #pages: Uint32Array;
  readonly #segments: Int32Array;
  readonly #scratch: Uint8Array;
  /** For a few pages memory for all frames costs more than a frame that is decompressed twice. */
  readonly #room: Uint8Array | undefined;

  constructor(region: RegionTable, pages: Uint32Array) {
    this.#region = region;
    this.#pages = pages;
    this.#segments = Int32Array.from({ length: Math.ceil(pages.length / SEGMENT_PAGES) }, (_, k) => k);
    this.memory = new Uint8Array(placeOffset(pages.length - 1) + PAGE_SIZE);
    const parts = new Parts();
    for (const [place, page] of pages.entries()) {
      if (region.isStored(page)) region.versions(page, (kind, record, slot) => parts.add(kind, record, slot, place));
    }
    this.parts = parts.list();
    this.#scratch = new Uint8Array(this.parts.reduce((most, { slots }) => Math.max(most, slots.length), 0) * PAGE_SIZE);
    this.#room = pages.length > FRAME_PAGES ? new Uint8Array(EXTENT_ROOM) : undefined;
  }

  add(part: Part, payload: Uint8Array): void {
    const bytes = collectPart(new ExtentReader(payload, part.record, this.#room), part, this.#scratch);
    addon().assemblePages(bytes, true, part.places, this.memory, this.#segments);
  }

  foundIn(part: Part, error: unknown): unknown {
    return foundIn(
      pageList(
        this.#region.name,
        part.places.map((place) => this.#pages[place]!),
      ),
      error,
    );
  }

  /** @throws `TIDEMARK_DAMAGED` */
  finish(): PageReader {
    const page = (place: number): Uint8Array => {
      const at = placeOffset(place);
      return this.memory.subarray(at, at + PAGE_SIZE);
    };
    const { crc } = this.#region;
    const wrong = this.#pages.filter(
      (number, place) => this.#region.isStored(number) && addon().crc32c(page(place)) !== crc[number],
    );
    if (wrong.length > 0) throw notWhatWasStored(this.#region.name, wrong);
    return page;
  }
}

/** Where a place is in segments that lie one behind the other. */
function placeOffset(place: number): number {
  return Math.floor(place / SEGMENT_PAGES) * SEGMENT_STRIDE + SEGMENT_HEADROOM + (place % SEGMENT_PAGES) * PAGE_SIZE;
}

/** The page in a place; valid as long as the memory it was read into. */
export type PageReader = (place: number) => Uint8Array;

/** What was put together is not what was captured. */
export function notWhatWasStored(region: string, pages: Uint32Array): Error {
  return damaged(`${pageList(region, pages)}: not what was stored`);
}

const MOST_RUNS = 16;

/** Pages of a region, for an error. */
export function pageList(region: string, pages: Uint32Array): string {
  const runs = toRuns(pages.slice().sort());
  const shown = pageRanges(runs.subarray(0, 2 * MOST_RUNS));
  return `region ${region}, pages ${shown}${runs.length > 2 * MOST_RUNS ? ', ...' : ''}`;
}
