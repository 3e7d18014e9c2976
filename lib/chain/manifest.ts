import { addon, PAGE_SIZE } from '../kernel/addon.js';
import { ByteReader, ByteWriter } from './bytes.js';
import { damaged } from './damage.js';
import { LEVELS } from './page-table.js';
import type { Runs } from './runs.js';
import { readExtents, readRuns, StoredExtents, writeExtents, writeRuns } from './stored-extents.js';

/** JSON values, as metadata may hold them. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** What a checkpoint changed in one region. */
export interface RegionChange {
  /** Number of the region in this chain; versions and sums refer to it, names are beside it. */
  number: number;
  name: string;
  byteLength: number;
  /** Meaningful bytes, from the start. */
  length: number;
  /** Pages stored as full versions. No page is in two extents, of whatever kind. */
  extents: StoredExtents;
  /** Pages stored as the XOR with the version before. The CRC32Cs are those of the pages that come out. */
  deltas: StoredExtents;
  /** Pages that became zero. */
  zeros: Runs;
  unchangedPages: number;
}

/** Bytes beside the memory: cut into pages, in the slots of its extents in order. */
export interface StoredAttachment {
  name: string;
  byteLength: number;
  /** SHA-256 of the bytes, 64 hex digits. */
  sha256: string;
  extents: StoredExtents;
}

/** The descriptive part, kept as JSON inside the manifest. */
export interface ManifestInfo {
  branch: string;
  label?: string;
  metadata?: Json;
  fingerprint?: string;
  captureMs: number;
  encodeMs: number;
}

/** The record that commits a checkpoint. */
export interface Manifest {
  /** 1, 2, ... in a store; never used twice for different checkpoints that were acknowledged. */
  id: number;
  /** 32 hex digits. */
  uid: string;
  parent: number | null;
  parentUid: string | null;
  /** Distance from the full checkpoint that the chain begins with. */
  depth: number;
  /** Milliseconds since 1970, UTC. */
  createdAt: number;
  /** Committed with durability 'sync': everything it builds on was durable before it. */
  sync: boolean;
  stateBefore: bigint;
  stateAfter: bigint;
  /** Lowest record number of anything that was in flight when this one was committed (this one excluded), or had failed and was not deleted yet. */
  lowWater: number;
  /** Record number of the manifest written before this one (any branch), 0 for the first. */
  previousManifest: number;
  /** Record number and level of the page table committed with it; 0: none. */
  tableRecord: number;
  tableLevel: number;
  /** Bytes of its extents and its table in the log, keys included. */
  extentBytes: number;
  tableBytes: number;
  /** The number of the next region that appears in this chain: none is used twice. */
  nextRegion: number;
  info: ManifestInfo;
  regions: RegionChange[];
  attachments: StoredAttachment[];
}

const FLAG_SYNC = 1;
const FLAG_FULL = 2;
/** Page numbers have 32 bits: regions end at 16 TiB. */
const MAX_PAGES = 2 ** 32;
const MAX_REGION = 2 ** 32 - 1;
const NO_UID = '0'.repeat(32);

export function uidBytes(uid: string): Uint8Array {
  return new Uint8Array(Buffer.from(uid, 'hex'));
}

export function uidText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

export function encodeManifest(m: Manifest): Uint8Array {
  const out = new ByteWriter(1024 + m.regions.reduce((sum, region) => sum + storedPages(region), 0) * 6);
  out.varint(m.id);
  out.raw(uidBytes(m.uid));
  out.varint(m.parent ?? 0);
  out.raw(uidBytes(m.parentUid ?? NO_UID));
  out.varint(m.depth);
  out.varint(m.createdAt);
  out.u8((m.sync ? FLAG_SYNC : 0) | (m.parent === null ? FLAG_FULL : 0));
  out.u64(m.stateBefore);
  out.u64(m.stateAfter);
  out.varint(m.lowWater);
  out.varint(m.previousManifest);
  out.varint(m.tableRecord);
  out.u8(m.tableLevel);
  out.varint(m.extentBytes);
  out.varint(m.tableBytes);
  out.varint(m.nextRegion);
  out.text(JSON.stringify(m.info));
  out.varint(m.regions.length);
  for (const region of m.regions) {
    out.varint(region.number);
    out.text(region.name);
    out.varint(region.byteLength);
    out.varint(region.length);
    out.varint(region.unchangedPages);
    writeExtents(out, region.extents);
    writeRuns(out, region.zeros);
    writeExtents(out, region.deltas);
  }
  out.varint(m.attachments.length);
  for (const attachment of m.attachments) {
    out.text(attachment.name);
    out.varint(attachment.byteLength);
    out.raw(new Uint8Array(Buffer.from(attachment.sha256, 'hex')));
    writeExtents(out, attachment.extents);
  }
  return out.bytes();
}

export function storedPages({ extents, deltas }: RegionChange): number {
  return extents.pageCount + deltas.pageCount;
}

/** All records that hold pages of a checkpoint. */
export function extentRecords({ regions, attachments }: Pick<Manifest, 'regions' | 'attachments'>): number[] {
  return [
    ...regions.flatMap(({ extents, deltas }) => [...extents.records, ...deltas.records]),
    ...attachments.flatMap(({ extents }) => extents.records),
  ];
}

export function decodeManifest(payload: Uint8Array, number: number): Manifest {
  const what = `manifest ${number}`;
  const read = new ByteReader(payload, what);
  const id = read.varint();
  const uid = uidText(read.raw(16));
  const parent = read.varint();
  const parentUid = uidText(read.raw(16));
  const depth = read.varint();
  const createdAt = read.varint();
  const flags = read.u8();
  const full = (flags & FLAG_FULL) !== 0;
  const m: Manifest = {
    id,
    uid,
    parent: full ? null : parent,
    parentUid: full ? null : parentUid,
    depth,
    createdAt,
    sync: (flags & FLAG_SYNC) !== 0,
    stateBefore: read.u64(),
    stateAfter: read.u64(),
    lowWater: read.varint(),
    previousManifest: read.varint(),
    tableRecord: read.varint(),
    tableLevel: read.u8(),
    extentBytes: read.varint(),
    tableBytes: read.varint(),
    nextRegion: read.varint(),
    info: parseInfo(read.text(), what),
    regions: [],
    attachments: [],
  };
  if (m.tableLevel > LEVELS) throw damaged(`${what} names a page table of level ${m.tableLevel}`);
  const regionCount = read.varint();
  for (let k = 0; k < regionCount; k++) m.regions.push(readRegion(read, what));
  if (m.regions.some(({ number }) => number >= m.nextRegion)) throw damaged(`${what} has a region behind its last one`);
  const attachmentCount = read.varint();
  for (let k = 0; k < attachmentCount; k++) m.attachments.push(readAttachment(read, what));
  read.end();
  return m;
}

function parseInfo(text: string, what: string): ManifestInfo {
  let info: unknown;
  try {
    info = JSON.parse(text);
  } catch (cause) {
    throw damaged(`${what}: its description is not JSON`, cause);
  }
  if (typeof info !== 'object' || info === null) throw damaged(`${what}: its description is no object`);
  return info as ManifestInfo;
}

function readRegion(read: ByteReader, what: string): RegionChange {
  const number = read.varint();
  const name = read.text();
  const byteLength = read.varint();
  const length = read.varint();
  const unchangedPages = read.varint();
  const pageCount = byteLength / PAGE_SIZE;
  if (number > MAX_REGION) throw damaged(`${what} has a region ${number}`);
  if (!Number.isInteger(pageCount) || pageCount > MAX_PAGES || length > byteLength)
    throw damaged(`${what} has a region of ${byteLength} bytes`);
  const extents = readExtents(read, pageCount);
  const zeros = readRuns(read, pageCount, what);
  const deltas = readExtents(read, pageCount);
  return { number, name, byteLength, length, extents, deltas, zeros, unchangedPages };
}

function readAttachment(read: ByteReader, what: string): StoredAttachment {
  const name = read.text();
  const byteLength = read.varint();
  const sha256 = uidText(read.raw(32));
  const pageCount = Math.ceil(byteLength / PAGE_SIZE);
  if (pageCount > MAX_PAGES) throw damaged(`${what} has an attachment of ${byteLength} bytes`);
  const extents = readExtents(read, pageCount);
  const { firsts, lengths, counts } = extents.runs;
  let next = 0;
  for (const [k, first] of firsts.entries()) {
    if (first !== next || lengths[k] !== counts[k]) throw damaged(`${what} has an attachment with a gap`);
    next += lengths[k]!;
  }
  if (next !== pageCount) throw damaged(`${what}: ${next} of the ${pageCount} pages of an attachment`);
  // Copied: a page table keeps them, and must not keep the whole record.
  return { name, byteLength, sha256, extents: new StoredExtents(extents.runs, new Uint8Array(extents.crcs)) };
}

/** The sum that a set of versions contributes to the state of a chain; zero and absent pages contribute nothing. */
export function stateOf(region: number, pages: Uint32Array, crcs: Uint32Array): bigint {
  return addon().stateSum(region, pages, crcs);
}

export function addState(a: bigint, b: bigint): bigint {
  return BigInt.asUintN(64, a + b);
}
