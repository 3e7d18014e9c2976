import { addon, type ExtentColumns, SEGMENT_PAGES } from '../kernel/addon.js';
import type { ByteReader, ByteWriter } from './bytes.js';
import { damaged } from './damage.js';
import { concat, type Runs, toRuns } from './runs.js';

/** An extent, and which pages its slots hold. */
export interface StoredExtent {
  record: number;
  /** Slots it has. */
  count: number;
  /** The slots that count, ascending. What a precopy stored and a later write superseded does not. */
  slots: Uint8Array;
  /** The page in each slot that counts, ascending, and its CRC32C. */
  pages: Uint32Array;
  crcs: Uint32Array;
}

/** A list of extents, field by field: of a large checkpoint it has thousands, and whoever loads its page table needs no object for any of them. */
export class StoredExtents implements Iterable<StoredExtent> {
  readonly records: Float64Array;
  readonly counts: Uint16Array;
  readonly ends: Uint32Array;
  readonly pages: Uint32Array;
  readonly slots: Uint8Array;
  readonly crcs: Uint32Array;

  constructor({ records, counts, ends, pages, slots, crcs }: ExtentColumns) {
    this.records = records;
    this.counts = counts;
    this.ends = ends;
    this.pages = pages;
    this.slots = slots;
    this.crcs = crcs;
  }

  static of(extents: readonly StoredExtent[]): StoredExtents {
    let end = 0;
    const ends = Uint32Array.from(extents, ({ pages }) => (end += pages.length));
    const slots = new Uint8Array(end);
    for (const [k, extent] of extents.entries()) slots.set(extent.slots, ends[k]! - extent.slots.length);
    return new StoredExtents({
      records: Float64Array.from(extents, ({ record }) => record),
      counts: Uint16Array.from(extents, ({ count }) => count),
      ends,
      pages: concat(extents.map(({ pages }) => pages)),
      slots,
      crcs: concat(extents.map(({ crcs }) => crcs)),
    });
  }

  get length(): number {
    return this.ends.length;
  }

  /** The page behind the last one that is in any of them. */
  get endPage(): number {
    let end = 0;
    for (const to of this.ends) end = Math.max(end, this.pages[to - 1]! + 1);
    return end;
  }

  *[Symbol.iterator](): Generator<StoredExtent> {
    let from = 0;
    for (let k = 0; k < this.length; k++) {
      const to = this.ends[k]!;
      yield {
        record: this.records[k]!,
        count: this.counts[k]!,
        slots: this.slots.subarray(from, to),
        pages: this.pages.subarray(from, to),
        crcs: this.crcs.subarray(from, to),
      };
      from = to;
    }
  }
}

const NO_RUNS: Runs = new Uint32Array(0);

/** How a manifest lists extents: records, slots that do not count, pages; then the CRC32Cs of all pages. */
export function writeExtents(out: ByteWriter, extents: StoredExtents): void {
  out.varint(extents.length);
  let record = 0;
  let end = 0;
  for (const extent of extents) {
    // Numbers are given when an extent arrives, and codec threads overtake each other.
    out.signed(extent.record - record);
    out.varint(extent.count);
    writeRuns(out, deadSlots(extent.slots, extent.count));
    const runs = toRuns(extent.pages);
    out.signed(runs[0]! - end);
    writeRuns(out, runs, runs[0]!);
    record = extent.record;
    end = runs.at(-2)! + runs.at(-1)!;
  }
  out.u32s(extents.crcs);
}

/** @throws `TIDEMARK_DAMAGED` */
export function readExtents(read: ByteReader, pageCount: number): StoredExtents {
  return new StoredExtents(read.native((bytes, at) => addon().decodeExtents(bytes, at, pageCount)));
}

const ALL_SLOTS = Uint8Array.from({ length: SEGMENT_PAGES }, (_, slot) => slot);

/** The slots of an extent, all of which count. */
export function allSlots(count: number): Uint8Array {
  return ALL_SLOTS.subarray(0, count);
}

function deadSlots(live: Uint8Array, count: number): Runs {
  if (live.length === count) return NO_RUNS;
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
