import { addon, type LayerColumns } from '../kernel/addon.js';
import { ByteReader, ByteWriter } from './bytes.js';
import { damaged } from './damage.js';
import { uidBytes, uidText } from './manifest.js';
import { MOST_OLDER } from './older-versions.js';
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
    const body = encodeRegion(region, level);
    out.varint(region.number);
    out.varint(region.pageCount);
    out.varint(body.runs);
    out.varint(body.bytes.length);
    out.raw(body.bytes);
  }
  return out.bytes();
}

/** The same number of versions back of many pages: where each is. */
interface Layer {
  pages: Uint32Array;
  kind(k: number): number;
  record(k: number): number;
  slot(k: number): number;
}

/** The newest versions and their CRC32Cs; then, layer by layer, what the deltas among them build on, as far as it was made in the span of the table. */
function encodeRegion(region: RegionTable, level: number): { runs: number; bytes: Uint8Array } {
  const pages = region.pendingPages(level);
  const out = new ByteWriter(1024 + pages.length * 8);
  const runs = writeLayer(out, {
    pages,
    kind: (k) => region.kind(pages[k]!),
    record: (k) => region.record(pages[k]!),
    slot: (k) => region.slot[pages[k]!]!,
  });
  out.u32s(pages.filter((page) => region.isStored(page)).map((page) => region.crc[page]!));
  const older = new ByteWriter(1024);
  let layers = 0;
  for (let layer = olderOf(region, pages, level); layer.pages.length > 0; layer = nextOf(region, layer, level)) {
    older.varint(countRuns(layer));
    writeLayer(older, layer);
    layers++;
  }
  out.varint(layers);
  out.raw(older.bytes());
  return { runs, bytes: out.bytes() };
}

interface OlderLayer extends Layer {
  nodes: Uint32Array;
}

function olderOf(region: RegionTable, pages: Uint32Array, level: number): OlderLayer {
  const deltas = pages.filter((page) => region.kind(page) === Version.delta);
  return olderLayer(
    region,
    deltas,
    deltas.map((page) => region.older.first(page)),
    level,
  );
}

function nextOf(region: RegionTable, { pages, nodes }: OlderLayer, level: number): OlderLayer {
  return olderLayer(
    region,
    pages,
    nodes.map((node) => region.older.next(node)),
    level,
  );
}

/** Of these nodes, one a page, those that there are and that the table must have: older ones are found where reading goes on. */
function olderLayer({ older }: RegionTable, pages: Uint32Array, nodes: Uint32Array, level: number): OlderLayer {
  const has = nodes.map((node) => (node !== 0 && older.isPending(node, level) ? 1 : 0));
  const own = pages.filter((_, k) => has[k] === 1);
  const kept = nodes.filter((_, k) => has[k] === 1);
  return {
    pages: own,
    nodes: kept,
    kind: (k) => older.kind(kept[k]!),
    record: (k) => older.record(kept[k]!),
    slot: (k) => older.slot(kept[k]!),
  };
}

/** Where the run that begins at `from` ends: pages whose versions lie in consecutive slots of one extent, or which are all zero. */
function endOfRun(layer: Layer, from: number): number {
  const { pages } = layer;
  const [kind, record, slot] = [layer.kind(from), layer.record(from), layer.slot(from)];
  let k = from + 1;
  while (k < pages.length && pages[k] === pages[from]! + (k - from) && layer.kind(k) === kind) {
    if (kind !== Version.zero && (layer.slot(k) !== slot + (k - from) || layer.record(k) !== record)) break;
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
  const { pages } = layer;
  let runs = 0;
  let end = 0;
  let before = 0;
  for (let k = 0; k < pages.length; runs++) {
    const next = endOfRun(layer, k);
    const kind = layer.kind(k);
    out.varint(pages[k]! - end);
    out.varint(next - k);
    out.u8(kind);
    if (kind !== Version.zero) {
      const record = layer.record(k);
      out.signed(record - before);
      out.u8(layer.slot(k));
      before = record;
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
    const newest = readLayer(read, entries, true);
    const crcs = read.raw(newest.stored * 4);
    region?.addRuns(newest.kinds, newest, crcs, levels);
    const layers = read.varint();
    if (layers > MOST_OLDER) throw damaged(`page table ${number} claims ${layers} layers`);
    // What lies below must be below a delta: so the checksums of the newest versions bound all of them.
    let { deltas } = newest;
    for (let k = 0; k < layers; k++) {
      const layer = readLayer(read, read.varint(), false);
      if (layer.stored > deltas) throw damaged(`page table ${number} has ${layer.stored} versions below ${deltas} deltas`);
      ({ deltas } = layer);
      region?.addRuns(layer.kinds, layer, undefined, levels);
    }
    read.end();
  }
}

function readLayer(read: ByteReader, runs: number, mayBeZero: boolean): LayerColumns {
  return read.native((bytes, at) => addon().decodeLayer(bytes, at, runs, mayBeZero));
}
