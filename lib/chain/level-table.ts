import { ByteReader, ByteWriter } from './bytes.js';
import { damaged } from './damage.js';
import { uidBytes, uidText } from './manifest.js';
import { type PageTable, type RegionTable, type Stored, Version } from './page-table.js';

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

/** The same number of versions back of many pages. */
interface Layer {
  pages: number[];
  kinds: number[];
  records: number[];
  slots: number[];
}

/** The newest versions and their CRC32Cs; then, layer by layer, what the deltas among them build on. */
function encodeRegion(region: RegionTable, pages: Uint32Array): { runs: number; bytes: Uint8Array } {
  const out = new ByteWriter(1024 + pages.length * 8);
  const layers: Layer[] = [emptyLayer()];
  const crcs = new Uint32Array(pages.length);
  let crcCount = 0;
  for (const page of pages) {
    if (!region.isStored(page)) {
      add(layers[0]!, page, Version.zero, 0, 0);
      continue;
    }
    crcs[crcCount++] = region.crc[page]!;
    let k = 0;
    region.versions(page, (kind, record, slot) => {
      if (k === layers.length) layers.push(emptyLayer());
      add(layers[k++]!, page, kind, record, slot);
    });
  }
  const [newest, ...older] = layers as [Layer, ...Layer[]];
  const runs = writeLayer(out, newest);
  out.u32s(crcs.subarray(0, crcCount));
  out.varint(older.length);
  for (const layer of older) {
    out.varint(countRuns(layer));
    writeLayer(out, layer);
  }
  return { runs, bytes: out.bytes() };
}

function emptyLayer(): Layer {
  return { pages: [], kinds: [], records: [], slots: [] };
}

function add(layer: Layer, page: number, kind: number, record: number, slot: number): void {
  layer.pages.push(page);
  layer.kinds.push(kind);
  layer.records.push(record);
  layer.slots.push(slot);
}

/** Where the run that begins at `from` ends: pages whose versions lie in consecutive slots of one extent, or which are all zero. */
function endOfRun({ pages, kinds, records, slots }: Layer, from: number): number {
  let k = from + 1;
  while (k < pages.length && pages[k] === pages[from]! + (k - from) && kinds[k] === kinds[from]) {
    if (kinds[k] !== Version.zero && (slots[k] !== slots[from]! + (k - from) || records[k] !== records[from])) break;
    k++;
  }
  return k;
}

function countRuns(layer: Layer): number {
  let count = 0;
  for (let k = 0; k < layer.pages.length; k = endOfRun(layer, k)) count++;
  return count;
}

/** @returns the runs written */
function writeLayer(out: ByteWriter, layer: Layer): number {
  const { pages, kinds, records, slots } = layer;
  let runs = 0;
  let end = 0;
  let record = 0;
  for (let k = 0; k < pages.length; runs++) {
    const next = endOfRun(layer, k);
    out.varint(pages[k]! - end);
    out.varint(next - k);
    out.u8(kinds[k]!);
    if (kinds[k] !== Version.zero) {
      out.signed(records[k]! - record);
      out.u8(slots[k]!);
      record = records[k]!;
    }
    end = pages[next - 1]! + 1;
    k = next;
  }
  return runs;
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

/** Puts the versions of a table where `table` has none yet, or has only deltas (it is filled from the newest checkpoint to the oldest). */
export function applyLevelTable(level: LevelTable, table: PageTable, levels: number, number: number): void {
  for (const { number: regionNumber, entries, read } of level.regions) {
    const region = table.byNumber(regionNumber);
    const newest = readLayer(read, entries, true, number);
    for (const run of newest) {
      const crcs = run.kind === Version.zero ? undefined : read.u32s(run.count);
      if (region !== undefined) applyRun(region, run, crcs, levels);
    }
    const layers = read.varint();
    for (let k = 0; k < layers; k++) {
      for (const run of readLayer(read, read.varint(), false, number))
        if (region !== undefined) applyRun(region, run, undefined, levels);
    }
    read.end();
  }
}

interface RunOfVersions {
  first: number;
  count: number;
  kind: number;
  record: number;
  slot: number;
}

function readLayer(read: ByteReader, entries: number, mayBeZero: boolean, number: number): RunOfVersions[] {
  const runs: RunOfVersions[] = [];
  let end = 0;
  let record = 0;
  for (let k = 0; k < entries; k++) {
    const first = end + read.varint();
    const count = read.varint();
    const kind = read.u8();
    end = first + count;
    const stored = kind === Version.full || kind === Version.delta;
    if (!stored && !(mayBeZero && kind === Version.zero)) throw damaged(`page table ${number} has a version of kind ${kind}`);
    if (stored) record += read.signed();
    runs.push({ first, count, kind, record, slot: stored ? read.u8() : 0 });
  }
  return runs;
}

function applyRun(region: RegionTable, run: RunOfVersions, crcs: Uint32Array | undefined, levels: number): void {
  const end = Math.min(run.first + run.count, region.pageCount);
  for (let page = run.first; page < end; page++) {
    const k = page - run.first;
    if (run.kind === Version.zero) {
      if (region.kind(page) === Version.absent) region.setZero(page, levels);
    } else if (region.isOpen(page)) {
      region.addOlder(page, run.kind as Stored, run.record, run.slot + k, crcs?.[k] ?? 0, levels);
    }
  }
}
