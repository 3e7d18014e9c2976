import { type Checkpoint, Checkpointer, CheckpointStore, type Region } from '../../lib/index.js';
import { openIfThere } from '../open-if-there.js';
import { HashIndex } from './hash-index.js';
import { fingerprint, type Metadata, regionBytes } from './protocol.js';
import { Model } from './workload.js';

/** How many of the older checkpoints are compared with the model. */
const samples = 6;

export interface Found {
  operations: number;
  entries: number;
}

/**
 * Restores the newest checkpoint and compares it with the model; undefined when there is none. The region may hold the state of an earlier
 * call: then only what differs is restored.
 */
export async function verifyNewest(path: string, seed: number, region: Region, model: Model): Promise<Found | undefined> {
  const store = await openIfThere(path);
  if (store === undefined) return undefined;
  try {
    const checkpointer = await Checkpointer.open(store, { regions: { index: region }, fingerprint: fingerprint(seed) });
    try {
      if (checkpointer.head === undefined) return undefined;
      const { checkpoint } = await checkpointer.restore();
      return compare(checkpoint, new Uint8Array(region.buffer), model);
    } finally {
      await checkpointer.close();
    }
  } finally {
    await store.close();
  }
}

/** Every page of every checkpoint is read and checked; some checkpoints are compared with the model, the first and the last among them. */
export async function verifyHistory(
  path: string,
  seed: number,
  next: (below: number) => number,
): Promise<{ checkpoints: number; compared: number }> {
  const store = await CheckpointStore.open(path);
  try {
    const { problems } = await store.verify();
    if (problems.length > 0) throw new Error(problems.map(({ message }) => message).join('\n'));
    const ids: number[] = [];
    let before = 0;
    for await (const { id, parent, metadata } of store.checkpoints()) {
      const { operations } = metadata as Metadata;
      if (operations <= before || parent !== (ids.at(-1) ?? null))
        throw new Error(
          `checkpoint ${id} does not follow on the one before: operation ${operations} after ${before}, parent ${parent}`,
        );
      before = operations;
      ids.push(id);
    }
    const chosen = new Set([ids[0]!, ids.at(-1)!]);
    while (chosen.size < Math.min(samples, ids.length)) chosen.add(ids[next(ids.length)]!);
    const model = new Model(seed);
    for (const id of [...chosen].sort((a, b) => a - b)) {
      const snapshot = await store.at(id);
      try {
        compare(snapshot.checkpoint, await snapshot.read('index', 0, regionBytes), model);
      } finally {
        await snapshot.close();
      }
    }
    return { checkpoints: ids.length, compared: chosen.size };
  } finally {
    await store.close();
  }
}

function compare({ id, metadata }: Checkpoint, bytes: Uint8Array, model: Model): Found {
  const { operations } = metadata as Metadata;
  model.goTo(operations);
  const index = HashIndex.open(bytes);
  const differences = model.differences(index);
  if (differences.length > 0) throw new Error(`checkpoint ${id} is not what was stored:\n${differences.slice(0, 10).join('\n')}`);
  return { operations, entries: index.size };
}
