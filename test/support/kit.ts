import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeSync } from 'node:fs';
import { Checkpointer, type CheckpointerOptions, CheckpointStore, capabilities, Engine, Region } from '../../lib/index.js';

/** What tests and their child processes (`in-child.ts`) work with. */
export * as fs from 'node:fs';
export { closeUserfaults, loadMappings } from './mappings.js';
export { assert, Checkpointer, type CheckpointerOptions, CheckpointStore, capabilities, Engine, Region };
export const PAGE = 4096;

/** The memory of a region (all of its buffer). */
export function bytesOf(memory: Region | Uint8Array): Uint8Array {
  return memory instanceof Uint8Array ? memory : new Uint8Array(memory.buffer);
}

/** The memory as it is now, to be compared later. */
export function copyOf(memory: Region | Uint8Array): Uint8Array {
  return bytesOf(memory).slice();
}

export function hashOf(memory: Region | Uint8Array): string {
  return createHash('sha1').update(bytesOf(memory)).digest('hex');
}

/** Fills pages with bytes that do not compress and differ for every page and `value`. */
export function stamp(memory: Region | Uint8Array, pages: Iterable<number> | number, value: number): void {
  const bytes = bytesOf(memory);
  for (const page of typeof pages === 'number' ? [pages] : pages) {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset + page * PAGE, PAGE / 4);
    let state = (Math.imul(page + 1, 0x9e3779b1) ^ Math.imul(value + 1, 0x85ebca6b)) | 1;
    for (let k = 0; k < words.length; k++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      words[k] = state;
    }
  }
}

/** Changes a few bytes of pages, others for every `value`. */
export function edit(memory: Region | Uint8Array, pages: Iterable<number> | number, value: number): void {
  const bytes = bytesOf(memory);
  for (const page of typeof pages === 'number' ? [pages] : pages) {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset + page * PAGE, PAGE / 4);
    words[100 + (value % 7)] = value + 1;
    words[1023] = value;
  }
}

/** Bytes that do not compress, another sequence for each `value`. */
export function noise(byteLength: number, value: number): Uint8Array {
  const pages = Math.ceil(byteLength / PAGE);
  const bytes = new Uint8Array(pages * PAGE);
  stamp(bytes, range(0, pages), value);
  return bytes.slice(0, byteLength);
}

/** `count` numbers from `first` on. */
export function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, k) => first + k);
}

/** Pages that `sampleMemory` has, and how many of them hold something. */
export const SAMPLE_PAGES = 4096;
export const SAMPLE_STORED = 3000;

/** What `makeSample` stores. */
export function sampleMemory(): Uint8Array {
  const memory = new Uint8Array(SAMPLE_PAGES * PAGE);
  stamp(memory, range(0, SAMPLE_STORED), 1);
  edit(memory, range(100, 50), 2);
  return memory;
}

/** A store whose head, of two checkpoints, is `sampleMemory()` in a region `r`; the second has 50 deltas. */
export async function makeSample(path: string): Promise<void> {
  const region = Region.allocate(SAMPLE_PAGES * PAGE);
  await withCheckpointer(path, { regions: { r: region } }, async (c) => {
    stamp(region, range(0, SAMPLE_STORED), 1);
    await c.checkpoint();
    edit(region, range(100, 50), 2);
    await c.checkpoint();
  });
  region.close();
}

/** Memory into which the head of such a store is being restored. */
export async function sampleRestoring(path: string, region: Region = Region.allocate(SAMPLE_PAGES * PAGE)) {
  const c = await Checkpointer.open(path, { regions: { r: region } });
  const restoration = await c.restore(undefined, { lazy: true });
  return { region, c, restoration, bytes: bytesOf(region), missing: () => restoration.stats().lazy!.missingPages };
}

/** Fails with the pages that differ. */
export function assertSame(actual: Region | Uint8Array, expected: Uint8Array, what = 'memory'): void {
  const bytes = bytesOf(actual);
  assert.equal(bytes.length, expected.length, `${what}: length`);
  const wrong: number[] = [];
  for (let page = 0; page * PAGE < bytes.length; page++) {
    const part = bytes.subarray(page * PAGE, (page + 1) * PAGE);
    if (Buffer.compare(part, expected.subarray(page * PAGE, (page + 1) * PAGE)) !== 0) wrong.push(page);
  }
  assert.deepEqual(wrong.slice(0, 20), [], `${what}: ${wrong.length} pages differ`);
}

/** `'ok'`, or the code (else the name) of what the promise rejected with. */
export async function outcome(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'ok';
  } catch (error) {
    return (error as { code?: string }).code ?? (error as Error).name;
  }
}

/** The contents of a region as of a checkpoint, as the store reads them. */
export async function stored(store: CheckpointStore, target: number | string, name = 'r'): Promise<Uint8Array> {
  const snapshot = await store.at(target);
  try {
    return await snapshot.read(name, 0, snapshot.checkpoint.regions[name]!.byteLength);
  } finally {
    await snapshot.close();
  }
}

/** The contents of a region as of a checkpoint, restored into fresh memory; the store is opened for it. */
export async function restoredFresh(path: string, target?: number | string, name = 'r'): Promise<Uint8Array> {
  const store = await CheckpointStore.open(path);
  const found = await store.find(target ?? 'main');
  assert.ok(found, `no checkpoint ${target ?? 'main'}`);
  const regions = Object.fromEntries(
    Object.entries(found.regions).map(([key, { byteLength }]) => [key, Region.allocate(byteLength)]),
  );
  const checkpointer = await Checkpointer.open(store, { regions });
  await checkpointer.restore(target);
  const copy = copyOf(regions[name]!);
  await checkpointer.close();
  await store.close();
  for (const region of Object.values(regions)) region.close();
  return copy;
}

/** Opens, gives to `body`, closes. */
export async function withCheckpointer<N extends string, R>(
  store: string | CheckpointStore,
  options: CheckpointerOptions<N>,
  body: (checkpointer: Checkpointer<N>) => Promise<R>,
): Promise<R> {
  const checkpointer = await Checkpointer.open(store, options);
  try {
    return await body(checkpointer);
  } finally {
    await checkpointer.close();
  }
}

/** Calls again while the engine replaces threads that have ended, as the hint of `TIDEMARK_STALLED` says; they need a while to start. */
export async function retried<T>(call: () => Promise<T>): Promise<T> {
  const deadline = performance.now() + 15_000;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if ((error as { code?: string }).code !== 'TIDEMARK_STALLED' || performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** Waits until no segment of staging is in use: nothing was lost on the way, whatever failed. */
export async function stagingFree(engine: Engine): Promise<boolean> {
  const end = performance.now() + 10_000;
  for (;;) {
    const { stagingBytes, stagingFreeBytes } = engine.stats();
    if (stagingBytes === stagingFreeBytes) return true;
    if (performance.now() > end) return false;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Threads that start from now on have no faults. */
export function noMoreFaults(): void {
  delete process.env.TIDEMARK_FAULTS;
}

/** In a child process: the result of `inChild`. */
export function report(value: unknown): void {
  writeSync(3, JSON.stringify(value));
}

/** In a child process: reports and dies as by `kill -9`. */
export function crash<T>(value: T): Promise<T> {
  report(value);
  process.kill(process.pid, 'SIGKILL');
  return new Promise(() => {});
}
