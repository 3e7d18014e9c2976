import type { TidemarkError } from '../errors.js';
import { broken } from './damage.js';
import { type Header, headerOf } from './header.js';
import type { Entries, IndexCache } from './index-cache.js';
import { readManifest } from './load.js';
import { deletion, type Log, type LogOperation } from './log.js';
import { Kind } from './record.js';
import type { NumberedRef } from './ref.js';
import { storageError } from './store-folder.js';
import { findIncomplete, findMissing, findMissingRefs, type LogDamage, readRef, readTail, type Tail } from './tail.js';

const INDEX_CHUNK = 256;

/**
 * Brings log and index to one state when a store is opened or a rejected write has closed it: cuts back what a crash left behind, then
 * brings the index up to date or makes it anew. The log has just been opened, so everything in it is durable (recovery
 * puts what it finds into synced tables).
 * @returns what is damaged; then nothing was deleted
 */
export async function recover(log: Log, index: IndexCache): Promise<LogDamage[]> {
  // An index that a write failed to is not to be believed; nor is one that is ahead of the log: it belongs to a past that a power loss took
  // away, or to another log.
  const ahead = !index.broken && index.applied !== 0 && !(await log.has(index.applied, Kind.manifest));
  const lostDurable = ahead && index.durable >= index.applied ? index.applied : 0;
  if (index.broken || (ahead && lostDurable === 0)) await index.clear();
  const lowWater = index.applied === 0 ? 0 : await lowWaterOf(log, index.applied);
  const from = index.applied === 0 ? 0 : Math.min(lowWater, index.durable + 1, index.applied + 1);
  const tail = await readTail(log, from);
  const cut = await findIncomplete(tail, index);
  const missing = [...(await findMissing(tail, index)), ...(await findMissingRefs(tail, index))];
  if (lostDurable !== 0 && !missing.includes(lostDurable)) missing.push(lostDurable);
  // No crash loses what was durable. The index keeps it, so that the loss is still known at the next open.
  for (const number of missing) if (number <= index.durable) tail.damage.push({ record: number, error: lostRecord(number) });
  await removeOrphans(log, tail, cut, lowWater);
  const last = Math.max(index.applied, index.appliedRef);
  if ([...cut, ...missing].some((number) => number > index.durable && number <= last)) {
    // The index names what is gone; the names it moved cannot be moved back one by one.
    await index.clear();
    return recover(log, index);
  }
  await catchUp(log, index, tail, cut);
  return tail.damage;
}

/** The record number before which nothing has to be cleaned up. */
async function lowWaterOf(log: Log, manifest: number): Promise<number> {
  try {
    return (await readManifest(log, manifest)).lowWater;
  } catch {
    // It is damaged: what it protected is not known, so nothing before it is touched.
    return manifest;
  }
}

/** Enters the manifests that the index does not have yet. */
async function catchUp(log: Log, index: IndexCache, tail: Tail, cut: Set<number>): Promise<void> {
  let durable = index.durable;
  const numbers: number[] = [];
  for (const { number } of tail.manifests) {
    if (cut.has(number)) continue;
    durable = Math.max(durable, number);
    if (number > index.applied) numbers.push(number);
  }
  for (const { number } of tail.refs) durable = Math.max(durable, number);
  const refs = tail.refs.filter(({ number }) => number > index.appliedRef);
  if (refs.length > 0) await index.apply({ headers: [], refs }, index.durable);
  for (let k = 0; k < numbers.length; k += INDEX_CHUNK) {
    const headers = await readHeaders(log, numbers.slice(k, k + INDEX_CHUNK));
    await index.apply({ headers, refs: [] }, index.durable);
  }
  index.durable = durable;
  // Without the mark the next open reads more of the log, that is all.
  if (tail.damage.length === 0) await index.mark().catch(() => {});
}

/** Makes an index anew that could not be written, while checkpoints are in flight: nothing is cut back. */
export async function rebuildIndex(log: Log, index: IndexCache): Promise<void> {
  // Listing and reading in turns must not wait for a reopening that waits for the listing.
  await log.pin();
  try {
    await index.rewrite(everything(log));
  } finally {
    log.unpin();
  }
}

async function* everything(log: Log): AsyncGenerator<Entries> {
  let manifests: number[] = [];
  let refs: number[] = [];
  for await (const { number, kind } of log.keys(0)) {
    if (kind === Kind.manifest) manifests.push(number);
    if (kind === Kind.ref) refs.push(number);
    if (manifests.length + refs.length < INDEX_CHUNK) continue;
    yield { headers: await readHeaders(log, manifests), refs: await readRefs(log, refs) };
    manifests = [];
    refs = [];
  }
  yield { headers: await readHeaders(log, manifests), refs: await readRefs(log, refs) };
}

function readHeaders(log: Log, numbers: number[]): Promise<Header[]> {
  return readWhole(numbers, async (number) => {
    const record = await log.record(number, Kind.manifest);
    return headerOf(await readManifest(log, number), number, record?.length ?? 0, 0);
  });
}

function readRefs(log: Log, numbers: number[]): Promise<NumberedRef[]> {
  return readWhole(numbers, (number) => readRef(log, number));
}

/** Records, without those that are damaged: these were reported when the store was opened. */
async function readWhole<T>(numbers: number[], read: (number: number) => Promise<T>): Promise<T[]> {
  const whole: T[] = [];
  for (const number of numbers) {
    try {
      whole.push(await read(number));
    } catch (error) {
      if (!['TIDEMARK_DAMAGED', 'TIDEMARK_CHAIN_BROKEN'].includes((error as TidemarkError).code)) throw error;
    }
  }
  return whole;
}

function lostRecord(number: number): TidemarkError {
  return broken(`the log has lost record ${number}, a checkpoint or a name that was durable`);
}

/** Deletes manifests that were cut, and what no manifest refers to. */
async function removeOrphans(log: Log, tail: Tail, cut: Set<number>, lowWater: number): Promise<void> {
  // A manifest that cannot be read may refer to any of them.
  if (tail.damage.length > 0) return;
  const used = new Set<number>();
  const operations: LogOperation[] = [];
  for (const { number, records } of tail.manifests) {
    if (cut.has(number)) operations.push(deletion(number, Kind.manifest));
    else for (const record of records) used.add(record);
  }
  for (const number of tail.records) {
    if (number < lowWater || used.has(number)) continue;
    operations.push(deletion(number, Kind.extent), deletion(number, Kind.table));
  }
  if (operations.length === 0) return;
  try {
    await log.write(operations, true);
  } catch (error) {
    throw storageError(error, 'what a crash has left could not be removed');
  }
}
