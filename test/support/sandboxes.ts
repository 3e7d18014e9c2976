import { readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Checkpoint, Checkpointer, CheckpointStore, Engine, Region } from '../../lib/index.js';

/** Many sandboxes in one process: a branch and a region of 1 MiB each, in one store, on one engine. */
export const SANDBOX_BYTES = 1 << 20;
const WORDS = SANDBOX_BYTES / 4;
const WRITES = 4;
const MIB = 1 << 20;

const mix = (...values: number[]): number => {
  let hash = 0x811c9dc5;
  for (const value of values) {
    hash = Math.imul(hash ^ value, 0x85ebca6b);
    hash ^= hash >>> 13;
  }
  return hash >>> 0;
};

/** What a sandbox holds before its first step: something in each page. */
export function begin(words: Uint32Array, sandbox: number): void {
  for (let page = 0; page < SANDBOX_BYTES / 4096; page++) words[page * 1024] = mix(sandbox, page);
}

/** One step of a sandbox: a few words anywhere. */
export function step(words: Uint32Array, sandbox: number, number: number): void {
  for (let k = 0; k < WRITES; k++) words[mix(sandbox, number, k) % WORDS] = mix(sandbox, number, k, 1);
}

const branchOf = (sandbox: number): string => `sandbox-${sandbox}`;

export interface Usage {
  /** RssAnon beyond the regions, all of which are populated, and the shadows. */
  beyondMiB: number;
  threads: number;
  descriptors: number;
}

/** @param regions how many of them there are */
export function usage(regions: number, shadowBytes = 0): Usage {
  const kib = Number(/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))![1]);
  return {
    beyondMiB: (kib * 1024 - regions * SANDBOX_BYTES - shadowBytes) / MIB,
    threads: readdirSync('/proc/self/task').length,
    descriptors: readdirSync('/proc/self/fd').length,
  };
}

/** Threads that Node has when everything of its own has started; what is more belongs to the library. */
export async function threadsOfNode(): Promise<number> {
  await Promise.all(Array.from({ length: 16 }, () => readFile('/proc/self/status')));
  return usage(0).threads;
}

export interface Running {
  /** By sandbox: the last step that was called, and the last that was acknowledged (0: what it began with; -1: nothing). */
  called: number[];
  acknowledged: number[];
  commits: number;
  before: Usage;
  most: Usage;
}

/** All of them step and are checkpointed at random for some time, and until there are more than two commits for each; what they do when it is over goes on. */
export async function run(path: string, count: number, seconds: number, stagingMiB: number): Promise<Running> {
  const before = { ...usage(0), threads: await threadsOfNode() };
  const engine = new Engine({ maxStagingBytes: stagingMiB * MIB });
  const store = await CheckpointStore.open(path, { createIfMissing: true, engine });
  const running: Running = {
    called: new Array<number>(count).fill(-1),
    acknowledged: new Array<number>(count).fill(-1),
    commits: 0,
    before,
    most: { ...before },
  };
  const sandboxes: { words: Uint32Array; checkpointer: Checkpointer }[] = [];
  for (let k = 0; k < count; k++) {
    const region = Region.allocate(SANDBOX_BYTES);
    const words = new Uint32Array(region.buffer);
    begin(words, k);
    const checkpointer = await Checkpointer.open(store, { regions: { memory: region }, branch: branchOf(k) });
    sandboxes.push({ words, checkpointer });
  }
  const until = performance.now() + seconds * 1000;
  const live = async (k: number): Promise<void> => {
    const { words, checkpointer } = sandboxes[k]!;
    const take = async (number: number): Promise<void> => {
      running.called[k] = number;
      const { durable } = await checkpointer.checkpoint({ metadata: { step: number } });
      if (!durable) throw new Error('a synced checkpoint that is not durable');
      running.acknowledged[k] = number;
      running.commits++;
    };
    await take(0);
    for (let number = 1; ; ) {
      // Some have two in flight, some rest.
      const both = Array.from({ length: 1 + (mix(k, number) % 2) }, () => {
        step(words, k, number);
        return take(number++);
      });
      await Promise.all(both);
      if (mix(k, number) % 3 === 0) await sleep(mix(k, number, 1) % 200);
    }
  };
  let failed: unknown;
  for (let k = 0; k < count; k++)
    live(k).catch((error) => {
      failed ??= error;
    });
  while (performance.now() < until || running.acknowledged.includes(-1) || running.commits <= 2 * count) {
    await sleep(50);
    const now = usage(count, engine.stats().shadowUsedBytes);
    for (const key of ['beyondMiB', 'threads', 'descriptors'] as const) running.most[key] = Math.max(running.most[key], now[key]);
    if (failed !== undefined) throw failed;
  }
  return running;
}

/** What is wrong with the sandboxes of a store whose process was killed. Each goes on by one step. */
export async function check(path: string, { called, acknowledged }: Running): Promise<string[]> {
  const wrong: string[] = [];
  const store = await CheckpointStore.open(path);
  const expected = new Uint32Array(WORDS);
  const one = async (k: number): Promise<void> => {
    const region = Region.allocate(SANDBOX_BYTES);
    const words = new Uint32Array(region.buffer);
    const checkpointer = await Checkpointer.open(store, { regions: { memory: region }, branch: branchOf(k) });
    const { checkpoint } = await checkpointer.restore();
    const last = stepOf(checkpoint);
    if (last < acknowledged[k]! || last > called[k]!)
      wrong.push(`sandbox ${k} is at step ${last}; ${acknowledged[k]} was acknowledged, ${called[k]} called`);
    // Nothing is awaited while `expected` is in use.
    expected.fill(0);
    begin(expected, k);
    for (let number = 1; number <= last; number++) step(expected, k, number);
    if (Buffer.compare(bytesOf(words), bytesOf(expected)) !== 0) wrong.push(`sandbox ${k} is not what it was at step ${last}`);
    step(words, k, last + 1);
    const next = await checkpointer.checkpoint({ metadata: { step: last + 1 } });
    if (next.parent !== checkpoint.id) wrong.push(`sandbox ${k} goes on from ${next.parent}, not from ${checkpoint.id}`);
    await checkpointer.close();
    region.close();
  };
  for (let k = 0; k < called.length; k += 20)
    await Promise.all(Array.from({ length: Math.min(20, called.length - k) }, (_, n) => one(k + n)));
  await store.close();
  return wrong;
}

const stepOf = ({ metadata }: Checkpoint): number => (metadata as { step: number }).step;
const bytesOf = (words: Uint32Array): Uint8Array => new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
