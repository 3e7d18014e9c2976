import { ByteReader, ByteWriter } from './bytes.js';
import { damaged } from './damage.js';
import { uidBytes, uidText } from './manifest.js';
import { type PageTable, type RegionTable, Version } from './page-table.js';

/**
 * A page table of level k: the newest version of every page that changed in the last 16^k checkpoints, so that loading
 * a page table reads a bounded number of records however long the chain is.
 */
export interface LevelTable {
  /** The checkpoint it was committed with. */
  uid: string;
  level: number;
  /** The checkpoint whose page table lies below it: the one 16^level before. */
  base: string;
  regions: { number: number; entries: number; read: ByteReader; pageCount: number }[];
}

export function encodeLevelTable(uid: string, level: number, table: PageTable): Uint8Array {
  const out = new ByteWriter(64 * 1024);
  out.raw(uidBytes(uid));
  out.u8(level);
  out.raw(uidBytes(table.boundaries[level - 1]!));
  out.varint(table.regions.size);
  for (const region of table.regions.values()) {
    const body = encodeRegion(region, region.pendingPages(level));
    out.varint(region.number);
    out.varint(region.pageCount);
    out.varint(body.runs);
    out.varint(body.bytes.length);
    out.raw(body.bytes);
  }
  return out.bytes();
}

/** Runs of pages whose versions lie in consecutive slots of one extent, or are all zero; then the CRC32Cs of the full ones. */
function encodeRegion(region: RegionTable, pages: Uint32Array): { runs: number; bytes: Uint8Array } {
  const out = new ByteWriter(1024 + pages.length * 8);
  const crcs = new Uint32Array(pages.length);
  let crcCount = 0;
  let runs = 0;
  let end = 0;
  let record = 0;
  for (let k = 0; k < pages.length; ) {
    const first = pages[k]!;
    const kind = region.kind(first);
    let count = 1;
    while (k + count < pages.length && continues(region, first, count, pages[k + count]!)) count++;
    out.varint(first - end);
    out.varint(count);
    out.u8(kind);
    if (kind === Version.full) {
      out.signed(region.record(first) - record);
      out.u8(region.slot[first]!);
      record = region.record(first);
      for (let j = 0; j < count; j++) crcs[crcCount++] = region.crc[first + j]!;
    }
    end = first + count;
    k += count;
    runs++;
  }
  out.u32s(crcs.subarray(0, crcCount));
  return { runs, bytes: out.bytes() };
}

function continues(region: RegionTable, first: number, count: number, page: number): boolean {
  if (page !== first + count || region.kind(page) !== region.kind(first)) return false;
  if (region.kind(first) !== Version.full) return true;
  return region.slot[page] === region.slot[first]! + count && region.record(page) === region.record(first);
}

export function decodeLevelTable(payload: Uint8Array, number: number): LevelTable {
  const what = `page table ${number}`;
  const read = new ByteReader(payload, what);
  const uid = uidText(read.raw(16));
  const level = read.u8();
  const base = uidText(read.raw(16));
  const regions: LevelTable['regions'] = [];
  const count = read.varint();
  for (let k = 0; k < count; k++) {
    const region = { number: read.varint(), pageCount: read.varint(), entries: read.varint() };
    regions.push({ ...region, read: new ByteReader(read.raw(read.varint()), what) });
  }
  read.end();
  return { uid, level, base, regions };
}

/** Puts the versions of a table where `table` has none yet (it is filled from the newest checkpoint to the oldest). */
export function applyLevelTable(level: LevelTable, table: PageTable, levels: number, number: number): void {
  for (const { number: regionNumber, entries, read } of level.regions) {
    const region = table.byNumber(regionNumber);
    const fulls: { first: number; count: number; record: number; slot: number }[] = [];
    let end = 0;
    let record = 0;
    for (let k = 0; k < entries; k++) {
      const first = end + read.varint();
      const count = read.varint();
      const kind = read.u8();
      end = first + count;
      if (kind === Version.full) {
        record += read.signed();
        fulls.push({ first, count, record, slot: read.u8() });
      } else if (kind !== Version.zero) {
        throw damaged(`page table ${number} has a version of kind ${kind}`);
      } else if (region !== undefined) {
        for (let p = first; p < Math.min(end, region.pageCount); p++)
          if (region.kind(p) === Version.absent) region.setZero(p, levels);
      }
    }
    for (const run of fulls) {
      const crcs = read.u32s(run.count);
      if (region === undefined) continue;
      for (let j = 0; j < run.count && run.first + j < region.pageCount; j++) {
        if (region.kind(run.first + j) === Version.absent)
          region.setFull(run.first + j, run.record, run.slot + j, crcs[j]!, levels);
      }
    }
    read.end();
  }
}
