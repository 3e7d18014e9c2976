import type { Checkpoint } from '../chain/header.js';
import { CheckpointStore } from '../chain/store.js';
import { parseTarget } from '../chain/target.js';
import { Engine } from '../engine/engine.js';
import { notFound, typed } from './exit.js';
import { interruptible } from './verb.js';

const CLOSE_MS = 2000;

/** Opens a store that is there, works with it, and closes it and the engine, so that the process ends by itself. */
export async function withStore<T>(path: string, signal: AbortSignal, work: (store: CheckpointStore) => Promise<T>): Promise<T> {
  let store: CheckpointStore | undefined;
  try {
    store = await interruptible(signal, CheckpointStore.open(path, { createIfMissing: false }));
    return await work(store);
  } finally {
    // Who was interrupted does not wait for what the storage thread still does.
    const closing = store?.close() ?? Promise.resolve();
    if (signal.aborted) await Promise.race([closing.catch(() => {}), delay(CLOSE_MS)]);
    else await closing;
    await Engine.shared.close();
  }
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}

/** What the help of a verb says of its target. */
export const TARGETS =
  'A target is an id (17), a label, a branch (its newest), or 8 or more digits of a uid; behind it ~2 for two steps back,\nor @2026-11-22T14:05Z for the newest one before it that was taken by then (UTC where no zone is given).';

/** A target as it was typed, checked before any store is opened. */
export function checkTarget(text: string, verb: string): string {
  typed(() => parseTarget(text), verb);
  return text;
}

/** @throws {TidemarkError} `TIDEMARK_NOT_FOUND` */
export async function requireCheckpoint(store: CheckpointStore, target: string): Promise<Checkpoint> {
  const checkpoint = await store.find(target);
  if (checkpoint === undefined)
    throw notFound(`${target} is not in the store ${store.path}`, '`tidemark log` lists what is there');
  return checkpoint;
}
