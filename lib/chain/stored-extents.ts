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

/** A list of extents, in runs: of a large checkpoint it has thousands of extents and millions of pages, and whoever loads its page table needs nothing for either. */
export class StoredExtents implements Iterable<StoredExtent> {
  readonly runs: ExtentColumns;
  /** The CRC32Cs of all pages, 4 bytes each. */
  readonly crcs: Uint8Array;

  constructor(runs: ExtentColumns, crcs: Uint8Array) {
    this.runs = runs;
    this.crcs = crcs;
  }

  static of(extents: readonly StoredExtent[]): StoredExtents {
    const rows: { record: number; first: number; length: number; slot: number }[] = [];
    const ends: number[] = [];
    for (const { record, pages, slots } of extents) {
      for (let from = 0, to = 0; from < pages.length; from = to) {
        while (to < pages.length && pages[to]! - pages[from]! === to - from && slots[to]! - slots[from]! === to - from) to++;
        rows.push({ record, first: pages[from]!, length: to - from, slot: slots[from]! });
      }
      ends.push(rows.length);
    }
    const crcs = concat(extents.map(({ crcs }) => crcs));
    const runs: ExtentColumns = {
      records: Float64Array.from(rows, ({ record }) => record),
      firsts: Uint32Array.from(rows, ({ first }) => first),
      lengths: Uint32Array.from(rows, ({ length }) => length),
      slots: Uint8Array.from(rows, ({ slot }) => slot),
      counts: Uint16Array.from(extents, ({ count }) => count),
      ends: Uint32Array.from(ends),
      pageCount: crcs.length,
    };
    return new StoredExtents(runs, new Uint8Array(crcs.buffer));
  }

  get length(): number {
    return this.runs.ends.length;
  }

  /** Pages of all of them. */
  get pageCount(): number {
    return this.runs.pageCount;
  }

  /** The numbers of their records. */
  get records(): number[] {
    const { records, ends } = this.runs;
    return Array.from(ends, (end) => records[end - 1]!);
  }

  *[Symbol.iterator](): Generator<StoredExtent> {
    const { records, firsts, lengths, slots: slotOfRun, counts, ends } = this.runs;
    let run = 0;
    let at = 0;
    for (const [k, end] of ends.entries()) {
      const pages: number[] = [];
      const slots: number[] = [];
      for (; run < end; run++) {
        for (let j = 0; j < lengths[run]!; j++) {
          pages.push(firsts[run]! + j);
          slots.push(slotOfRun[run]! + j);
        }
      }
      // Copied, for they need not be aligned.
      const crcs = new Uint32Array(pages.length);
      new Uint8Array(crcs.buffer).set(this.crcs.subarray(at * 4, (at + pages.length) * 4));
      at += pages.length;
      yield { record: records[end - 1]!, count: counts[k]!, slots: Uint8Array.from(slots), pages: Uint32Array.from(pages), crcs };
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
  out.raw(extents.crcs);
}

/** @throws `TIDEMARK_DAMAGED` */
export function readExtents(read: ByteReader, pageCount: number): StoredExtents {
  const { next: _, ...runs } = read.native((bytes, at) => addon().decodeExtents(bytes, at, pageCount));
  return new StoredExtents(runs, read.raw(runs.pageCount * 4));
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
