import { SEGMENT_PAGES } from '../kernel/addon.js';
import type { ByteReader, ByteWriter } from './bytes.js';
import { damaged } from './damage.js';
import { countPages, type Runs, toPages, toRuns, writePages } from './runs.js';

/** An extent, and which pages its slots hold. */
export interface StoredExtent {
  record: number;
  /** Slots it has. */
  count: number;
  /** The slots that count, ascending; undefined: all. What a precopy stored and a later write superseded does not count. */
  slots?: Uint8Array;
  /** The page in each slot that counts, ascending, and its CRC32C. */
  pages: Uint32Array;
  crcs: Uint32Array;
}

const NO_RUNS: Runs = new Uint32Array(0);

/** How a manifest lists extents: records, slots that do not count, pages; then the CRC32Cs of all pages. */
export function writeExtents(out: ByteWriter, extents: readonly StoredExtent[]): void {
  out.varint(extents.length);
  let record = 0;
  let end = 0;
  for (const extent of extents) {
    // Numbers are given when an extent arrives, and codec threads overtake each other.
    out.signed(extent.record - record);
    out.varint(extent.count);
    writeRuns(out, extent.slots === undefined ? NO_RUNS : deadSlots(extent.slots, extent.count));
    const runs = toRuns(extent.pages);
    out.signed(runs[0]! - end);
    writeRuns(out, runs, runs[0]!);
    record = extent.record;
    end = runs.at(-2)! + runs.at(-1)!;
  }
  for (const { crcs } of extents) out.u32s(crcs);
}

export function readExtents(read: ByteReader, pageCount: number, what: string): StoredExtent[] {
  const count = read.varint();
  if (count > read.remaining) throw damaged(`${what} claims ${count} extents`);
  const extents: StoredExtent[] = [];
  let record = 0;
  let end = 0;
  let claimed = 0;
  const runsOf: Runs[] = [];
  for (let k = 0; k < count; k++) {
    record += read.signed();
    const slots = read.varint();
    if (record < 1 || slots < 1 || slots > SEGMENT_PAGES) throw damaged(`${what} names an extent of ${slots} pages`);
    const dead = readRuns(read, slots, what);
    const first = end + read.signed();
    if (first < 0) throw damaged(`${what} names page ${first}`);
    const runs = readRuns(read, pageCount, what, first);
    const live = slots - countPages(dead);
    // Before anything is made of that size: a checksum has to follow for each.
    if (countPages(runs) !== live || live === 0) throw damaged(`${what}: ${countPages(runs)} pages in ${live} slots`);
    claimed += live;
    if (claimed * 4 > read.remaining) throw damaged(`${what} claims ${claimed} pages`);
    const extent: StoredExtent = { record, count: slots, pages: NO_RUNS, crcs: NO_RUNS };
    if (dead.length > 0) extent.slots = liveSlots(dead, slots);
    extents.push(extent);
    runsOf.push(runs);
    end = runs.at(-2)! + runs.at(-1)!;
  }
  // One buffer for all: a thousand extents are no thousand allocations.
  const pages = new Uint32Array(claimed);
  const crcs = read.u32s(claimed);
  let from = 0;
  for (const [k, extent] of extents.entries()) {
    const to = writePages(runsOf[k]!, pages, from);
    extent.pages = pages.subarray(from, to);
    extent.crcs = crcs.subarray(from, to);
    from = to;
  }
  return extents;
}

/** The slot of the k-th page of an extent. */
export function slotOf(extent: StoredExtent, k: number): number {
  return extent.slots === undefined ? k : extent.slots[k]!;
}

/** The slots of its pages. */
export function slotsOf(extent: StoredExtent): Uint8Array {
  return extent.slots ?? allSlots(extent.count);
}

function allSlots(count: number): Uint8Array {
  return Uint8Array.from({ length: count }, (_, slot) => slot);
}

function liveSlots(dead: Runs, count: number): Uint8Array {
  const gone = new Set(toPages(dead));
  return allSlots(count).filter((slot) => !gone.has(slot));
}

function deadSlots(live: Uint8Array, count: number): Runs {
  const there = new Set(live);
  return toRuns(Uint32Array.from(allSlots(count)).filter((slot) => !there.has(slot)));
}

/** @param from what the first run is told relative to */
export function writeRuns(out: ByteWriter, runs: Runs, from = 0): void {
  out.varint(runs.length / 2);
  let end = from;
  for (let k = 0; k < runs.length; k += 2) {
    out.varint(runs[k]! - end);
    out.varint(runs[k + 1]!);
    end = runs[k]! + runs[k + 1]!;
  }
}

export function readRuns(read: ByteReader, pageCount: number, what: string, from = 0): Runs {
  const count = read.varint();
  if (count > read.remaining) throw damaged(`${what} claims ${count} runs of pages`);
  const runs = new Uint32Array(count * 2);
  let end = from;
  for (let k = 0; k < count; k++) {
    const first = end + read.varint();
    const length = read.varint();
    end = first + length;
    if (length === 0 || end > pageCount) throw damaged(`${what} names page ${end} of ${pageCount}`);
    runs[2 * k] = first;
    runs[2 * k + 1] = length;
  }
  return runs;
}
