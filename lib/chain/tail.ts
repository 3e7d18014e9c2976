import type { TidemarkError } from '../errors.js';
import { broken } from './damage.js';
import type { IndexCache } from './index-cache.js';
import { readManifest } from './load.js';
import type { Log } from './log.js';
import { extentRecords } from './manifest.js';
import { Kind } from './record.js';
import { decodeRef, type NumberedRef } from './ref.js';

/** A record that cannot be read or is missing: what depends on it says so when it is used. */
export interface LogDamage {
  record: number;
  error: TidemarkError;
}

/** A manifest, as far as recovery needs it: with thousands of them the page lists would not fit into memory. */
export interface TailManifest {
  number: number;
  id: number;
  uid: string;
  parentUid: string | null;
  sync: boolean;
  /** Its extents and its table. */
  records: number[];
}

/** The end of the log: everything from a record number on. */
export interface Tail {
  from: number;
  manifests: TailManifest[];
  refs: NumberedRef[];
  /** Extents and tables that are there. */
  records: Set<number>;
  damage: LogDamage[];
}

const PAGE = 256;

export async function readTail(log: Log, from: number): Promise<Tail> {
  const tail: Tail = { from, manifests: [], refs: [], records: new Set(), damage: [] };
  for await (const { number, kind } of log.keys(from)) {
    if (kind === Kind.extent || kind === Kind.table) {
      tail.records.add(number);
      continue;
    }
    try {
      if (kind === Kind.ref) {
        tail.refs.push(await readRef(log, number));
        continue;
      }
      const manifest = await readManifest(log, number);
      const { id, uid, parentUid, sync, tableRecord } = manifest;
      const records = extentRecords(manifest);
      if (tableRecord !== 0) records.push(tableRecord);
      tail.manifests.push({ number, id, uid, parentUid, sync, records });
    } catch (error) {
      // Written by a newer version: met before anything is changed.
      if (kind === Kind.ref && (error as TidemarkError).code === 'TIDEMARK_STORE_FORMAT') throw error;
      tail.damage.push({ record: number, error: error as TidemarkError });
    }
  }
  return tail;
}

export async function readRef(log: Log, number: number): Promise<NumberedRef> {
  return decodeRef(await log.payload(number, Kind.ref), number);
}

/**
 * The relaxed manifests behind the last synced one that a power loss has left without their parent, their table or an extent: they are to
 * be cut back. Where others lack something, no crash explains it: that is damage, and is added to the tail's.
 */
export async function findIncomplete(tail: Tail, index: IndexCache): Promise<Set<number>> {
  let lastSync = index.durable;
  for (const { number, sync } of tail.manifests) if (sync) lastSync = Math.max(lastSync, number);
  // A ref is always synced, and everything before it with it.
  for (const { number } of tail.refs) lastSync = Math.max(lastSync, number);
  const known = new Set<string>();
  const cut = new Set<number>();
  for (const { number, id, uid, parentUid, records } of tail.manifests) {
    // What lies before the part that was read was durable when something behind it was synced.
    const whole = records.every((record) => record < tail.from || tail.records.has(record));
    const parentKnown = parentUid === null || known.has(parentUid) || (await knownBefore(index, parentUid, tail.from));
    if (number > lastSync && !(whole && parentKnown)) {
      cut.add(number);
      continue;
    }
    known.add(uid);
    if (whole && parentKnown) continue;
    tail.damage.push({ record: number, error: broken(`the log has lost records that checkpoint ${id} builds on`) });
  }
  return cut;
}

/** The index is believed only about manifests before the part of the log that was read. */
async function knownBefore(index: IndexCache, uid: string, from: number): Promise<boolean> {
  const header = await index.byUid(uid);
  return header !== undefined && header.manifest < from;
}

/** Refs that the index knows in the part of the log that was read, and that are not there. */
export async function findMissingRefs(tail: Tail, index: IndexCache): Promise<number[]> {
  const there = new Set([...tail.refs.map(({ number }) => number), ...tail.damage.map(({ record }) => record)]);
  return (await index.refs(tail.from)).filter((number) => !there.has(number));
}

/** Manifests that the index knows in the part of the log that was read, and that are not there. */
export async function findMissing(tail: Tail, index: IndexCache): Promise<number[]> {
  const there = new Set<number>();
  for (const { number } of tail.manifests) there.add(number);
  for (const { record } of tail.damage) there.add(record);
  const missing: number[] = [];
  for (let before: number | undefined; ; ) {
    const headers = await index.page({ before, reverse: true, limit: PAGE });
    for (const header of headers) {
      if (header.manifest < tail.from) return missing;
      if (!there.has(header.manifest)) missing.push(header.manifest);
      before = header.checkpoint.id;
    }
    if (headers.length < PAGE) return missing;
  }
}
