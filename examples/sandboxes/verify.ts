import type { CheckpointStore } from '../../lib/index.js';
import { openIfThere } from '../open-if-there.js';
import type { Life } from './life.js';
import { difference, type History, Model } from './model.js';
import { digest, forkName, type Metadata, sandboxName } from './protocol.js';

/** How many of the older checkpoints are compared with the model. */
const samples = 40;
/** Memories that are read and compared at a time. */
const atATime = 16;

/** The state at the head of each branch. */
export type Found = Map<string, { history: History; digest: string }>;

/** Reads the memory at the head of every branch and compares it with the model, byte by byte. @throws when one differs */
export async function verifyHeads(path: string, sandboxes: number, seed: number): Promise<Found> {
  const verified = await reading(path, async (store) => {
    const names = Array.from({ length: sandboxes }, (_, n) => sandboxName(n));
    for (let n = 0; (await store.find(forkName(n))) !== undefined; n++) names.push(forkName(n));
    const found: Found = new Map();
    await eachOf(names, async (name) => {
      if ((await store.find(name)) !== undefined) found.set(name, await verifyOne(store, name, seed));
    });
    return found;
  });
  return verified ?? new Map();
}

/** Every page of every checkpoint is read and checked; some checkpoints, on branches and left behind by rollbacks, are compared with the model. */
export async function verifyHistory(path: string, seed: number, next: (below: number) => number) {
  const verified = await reading(path, async (store) => {
    const { problems } = await store.verify();
    if (problems.length > 0) throw new Error(problems.map(({ message }) => message).join('\n'));
    const ids: number[] = [];
    for await (const { id } of store.checkpoints()) ids.push(id);
    const chosen = new Set<number>();
    while (chosen.size < Math.min(samples, ids.length)) chosen.add(ids[next(ids.length)]!);
    await eachOf([...chosen], async (id) => {
      await verifyOne(store, id, seed);
    });
    return { checkpoints: ids.length, compared: chosen.size };
  });
  return verified ?? { checkpoints: 0, compared: 0 };
}

/**
 * What was found after a life against what the program said in it. @throws for a sandbox that went on from another state than the newest one in
 * the store, one that is older than what was acknowledged, and a state that no checkpoint was taken of
 */
export function compare(life: Life, before: Found, found: Found, seed: number): void {
  const memoryOf = (history: History) => digest(new Model(seed, history).bytes());
  for (const [name, { history, digest: now }] of life.restored) {
    // What was forked in this life was not there before.
    const from = before.get(name)?.history ?? life.branches.get(name)?.states[0];
    if (!same(from, history)) throw new Error(`${name} went on from ${text(history)}, and ${text(from)} was in the store`);
    if (now !== (before.get(name)?.digest ?? memoryOf(history)))
      throw new Error(`${name} has restored ${text(history)}, and has other memory`);
  }
  for (const { name, history, digest: now } of life.rolledBack)
    if (now !== memoryOf(history)) throw new Error(`${name} went back to ${text(history)}, and has other memory`);

  for (const name of new Set([...before.keys(), ...found.keys(), ...life.branches.keys()])) {
    const branch = life.branches.get(name) ?? { states: [], acknowledged: 0 };
    const states = [before.get(name)?.history, ...branch.states];
    const state = found.get(name)?.history;
    const place = states.findLastIndex((one) => same(one, state));
    if (place < 0) throw new Error(`${name}: ${text(state)} is in the store, and no checkpoint was taken of that`);
    if (place < branch.acknowledged)
      throw new Error(`${name}: ${text(states[branch.acknowledged])} was acknowledged, and ${text(state)} is in the store`);
  }
}

async function verifyOne(
  store: CheckpointStore,
  target: string | number,
  seed: number,
): Promise<{ history: History; digest: string }> {
  const snapshot = await store.at(target);
  try {
    const { id, metadata, regions } = snapshot.checkpoint;
    const { step, history } = metadata as Metadata;
    const memory = await snapshot.read('memory', 0, regions.memory!.byteLength);
    const model = new Model(seed, history);
    const wrong = step === model.steps ? difference(memory, model.bytes()) : `${step} steps instead of ${model.steps}`;
    if (wrong !== undefined) throw new Error(`checkpoint ${id} (${target}) is not what was stored: ${wrong}`);
    return { history, digest: digest(memory) };
  } finally {
    await snapshot.close();
  }
}

/** Undefined when there is no store. */
async function reading<T>(path: string, read: (store: CheckpointStore) => Promise<T>): Promise<T | undefined> {
  const store = await openIfThere(path);
  if (store === undefined) return undefined;
  try {
    return await read(store);
  } finally {
    await store.close();
  }
}

async function eachOf<T>(all: T[], work: (one: T) => Promise<void>): Promise<void> {
  const left = [...all];
  await Promise.all(
    Array.from({ length: atATime }, async () => {
      for (let one = left.pop(); one !== undefined; one = left.pop()) await work(one);
    }),
  );
}

function same(one: History | undefined, other: History | undefined): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** Steps in all, and in how many parts. */
function text(history: History | undefined): string {
  if (history === undefined) return 'nothing';
  return `${history.reduce((sum, [, steps]) => sum + steps, 0)} steps (${JSON.stringify(history.slice(-3))})`;
}
