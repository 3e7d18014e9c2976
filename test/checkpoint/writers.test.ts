import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { PAGE, restoredFresh, stored } from '../support/kit.js';

/**
 * A thread that, under a lock, counts up in one word of every second page of each buffer: at no moment outside of the lock do the words
 * differ.
 */
const WRITER = `
const { workerData, parentPort } = require('node:worker_threads');
const { lock, buffers } = workerData;
const state = new Int32Array(lock);
const words = buffers.map((buffer) => new Uint32Array(buffer));
for (let count = 1; Atomics.load(state, 1) === 0; count++) {
  while (Atomics.compareExchange(state, 0, 0, 1) !== 0) Atomics.wait(state, 0, 1, 1);
  for (const region of words) for (let k = workerData.first; k < region.length; k += 2048) region[k] = count;
  Atomics.store(state, 0, 0);
  Atomics.notify(state, 0);
  // Somebody else's turn.
  Atomics.wait(state, 2, 0, 0.05);
}
parentPort.postMessage('done');
`;

class Lock {
  readonly shared = new SharedArrayBuffer(12);
  readonly #state = new Int32Array(this.shared);

  hold<T>(body: () => T): T {
    while (Atomics.compareExchange(this.#state, 0, 0, 1) !== 0) Atomics.wait(this.#state, 0, 1, 1);
    try {
      return body();
    } finally {
      Atomics.store(this.#state, 0, 0);
      Atomics.notify(this.#state, 0);
    }
  }

  stop(): void {
    Atomics.store(this.#state, 1, 1);
  }
}

function start(lock: Lock, first: number, regions: Region[]): Promise<unknown> {
  const buffers = regions.map(({ buffer }) => buffer);
  const worker = new Worker(WRITER, { eval: true, workerData: { lock: lock.shared, buffers, first } });
  return new Promise((resolve, reject) => worker.on('exit', resolve).on('error', reject));
}

/** Resolves when the writer has counted on. */
async function countsOn(region: Region): Promise<void> {
  const word = new Uint32Array(region.buffer, 0, 1);
  const before = Atomics.load(word, 0);
  while (Atomics.load(word, 0) === before) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** The counts found in the words at `first` of every second page. */
function counts(bytes: Uint8Array, first: number): number[] {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const found = new Set<number>();
  for (let k = first; k < words.length; k += 2048) found.add(words[k]!);
  return [...found];
}

describe('checkpoint() while other threads write', () => {
  const folder = storeFolders();

  it('takes all regions at one moment: a writer held still around the call is never seen half-way', async () => {
    const path = folder();
    const a = Region.allocate(256 * PAGE, { shared: true });
    const b = Region.allocate(600 * PAGE, { shared: true });
    const store = await CheckpointStore.open(path, { createIfMissing: true });
    const checkpointer = await Checkpointer.open(store, { regions: { a, b } });
    const lock = new Lock();
    const writer = start(lock, 0, [a, b]);
    const calls: ReturnType<typeof checkpointer.checkpoint>[] = [];
    for (let k = 0; k < 25; k++) {
      calls.push(lock.hold(() => checkpointer.checkpoint()));
      await countsOn(a);
    }
    lock.stop();
    await writer;
    const seen: number[] = [];
    for (const { id } of await Promise.all(calls)) {
      const inA = counts(await stored(store, id, 'a'), 0);
      const inB = counts(await stored(store, id, 'b'), 0);
      assert.equal(inA.length, 1, `checkpoint ${id}, a: ${inA}`);
      assert.deepEqual(inB, inA, `checkpoint ${id}, b`);
      seen.push(inA[0]!);
    }
    assert.deepEqual(
      seen,
      seen.toSorted((x, y) => x - y),
    );
    assert.equal(new Set(seen).size, 25, 'the writer went on between the calls');
    await checkpointer.close();
    await store.close();
    a.close();
    b.close();
    assert.deepEqual(counts(await restoredFresh(path, 25, 'a'), 0), [seen[24]]);
    assert.deepEqual(counts(await restoredFresh(path, 25, 'b'), 0), [seen[24]]);
  });

  it('loses no write of two threads in one shared region, and mixes no moments', async () => {
    const path = folder();
    const region = Region.allocate(512 * PAGE, { shared: true });
    const store = await CheckpointStore.open(path, { createIfMissing: true });
    const checkpointer = await Checkpointer.open(store, { regions: { r: region } });
    const lock = new Lock();
    // Different words of the same pages.
    const writers = [start(lock, 0, [region]), start(lock, 7, [region])];
    const expected: number[][] = [];
    const calls: ReturnType<typeof checkpointer.checkpoint>[] = [];
    const now = new Uint32Array(region.buffer);
    for (let k = 0; k < 25; k++) {
      lock.hold(() => {
        expected.push([now[0]!, now[7]!]);
        calls.push(checkpointer.checkpoint());
      });
      await countsOn(region);
    }
    lock.stop();
    await Promise.all(writers);
    for (const [k, { id }] of (await Promise.all(calls)).entries()) {
      const bytes = await stored(store, id);
      assert.deepEqual(
        [counts(bytes, 0), counts(bytes, 7)],
        [[expected[k]![0]], [expected[k]![1]]],
        `checkpoint ${id} against the memory at its call`,
      );
    }
    await checkpointer.close();
    await store.close();
    region.close();
  });
});
