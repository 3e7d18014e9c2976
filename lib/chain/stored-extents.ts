import { addon, type ExtentColumns, SEGMENT_PAGES } from '../kernel/addon.js';
import type { ByteReader, ByteWriter } from './bytes.js';
import { damaged } from './damage.js';
import type { Runs } from './runs.js';

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
    const pageCount = extents.reduce((sum, { pages }) => sum + pages.length, 0);
    const crcs = new Uint32Array(pageCount);
    // As many as there may be: of pages that lie apart there is a run for each.
    const firsts = new Uint32Array(pageCount);
    const lengths = new Uint32Array(pageCount);
    const slotOfRun = new Uint8Array(pageCount);
    const records = new Float64Array(pageCount);
    const ends = new Uint32Array(extents.length);
    let run = 0;
    let at = 0;
    for (let k = 0; k < extents.length; k++) {
      const { record, pages, slots, crcs: own } = extents[k]!;
      for (let from = 0, to = 0; from < pages.length; from = to, run++) {
        while (to < pages.length && pages[to]! - pages[from]! === to - from && slots[to]! - slots[from]! === to - from) to++;
        records[run] = record;
        firsts[run] = pages[from]!;
        lengths[run] = to - from;
        slotOfRun[run] = slots[from]!;
      }
      ends[k] = run;
      crcs.set(own, at);
      at += own.length;
    }
    const runs: ExtentColumns = {
      records: records.slice(0, run),
      firsts: firsts.slice(0, run),
      lengths: lengths.slice(0, run),
      slots: slotOfRun.slice(0, run),
      counts: Uint16Array.from(extents, ({ count }) => count),
      ends,
      pageCount,
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
export function writeExtents(out: ByteWriter, { runs, crcs }: StoredExtents): void {
  const { records, firsts, lengths, slots, counts, ends } = runs;
  out.varint(ends.length);
  let record = 0;
  let end = 0;
  let from = 0;
  for (let k = 0; k < ends.length; k++) {
    const to = ends[k]!;
    // Numbers are given when an extent arrives, and codec threads overtake each other.
    out.signed(records[from]! - record);
    out.varint(counts[k]!);
    writeRuns(out, deadSlots(slots.subarray(from, to), lengths.subarray(from, to), counts[k]!));
    out.signed(firsts[from]! - end);
    const pages = joined(firsts.subarray(from, to), lengths.subarray(from, to));
    writeRuns(out, pages, firsts[from]!);
    record = records[from]!;
    end = firsts[to - 1]! + lengths[to - 1]!;
    from = to;
  }
  out.raw(crcs);
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

/** Runs whose pages follow each other are one, whatever slots they are in. */
function joined(firsts: Uint32Array, lengths: Uint32Array): Runs {
  const runs = new Uint32Array(2 * firsts.length);
  let at = 0;
  for (let k = 0; k < firsts.length; k++) {
    if (at > 0 && runs[at - 2]! + runs[at - 1]! === firsts[k]) {
      runs[at - 1]! += lengths[k]!;
    } else {
      runs[at++] = firsts[k]!;
      runs[at++] = lengths[k]!;
    }
  }
  return runs.subarray(0, at);
}

/** Of an extent, whose runs lie in these slots. */
function deadSlots(slots: Uint8Array, lengths: Uint32Array, count: number): Runs {
  const dead: number[] = [];
  let next = 0;
  for (let k = 0; k < slots.length; k++) {
    if (slots[k]! > next) dead.push(next, slots[k]! - next);
    next = slots[k]! + lengths[k]!;
  }
  if (next < count) dead.push(next, count - next);
  return dead.length === 0 ? NO_RUNS : Uint32Array.from(dead);
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
