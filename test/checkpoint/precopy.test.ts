import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { type Checkpoint, Checkpointer, CheckpointStore, Engine, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assertSame, bytesOf, copyOf, hashOf, outcome, PAGE, range, restoredFresh, stamp, stored } from '../support/kit.js';
import { assertSound, extentNumbers } from '../support/log-files.js';
import { Memory, resizable } from '../support/memories.js';

const MIB_PAGES = 256;

/** What a checkpoint says of region r. */
function counts({ kind, parent, regions }: Checkpoint, name = 'r'): unknown[] {
  const { pages, zeroPages, unchangedPages } = regions[name]!;
  return [kind, parent, pages, zeroPages, unchangedPages];
}

function zero(memory: Region | Uint8Array, page: number, count = 1): void {
  bytesOf(memory).fill(0, page * PAGE, (page + count) * PAGE);
}

describe('precopy()', () => {
  const folder = storeFolders();
  let path: string;
  /** Staging of 3 segments: more than 768 pages have to wait for writes. */
  let engine: Engine;
  let store: CheckpointStore;
  beforeEach(async () => {
    path = folder();
    engine = new Engine({ maxStagingBytes: 4 << 20, workers: 2 });
    store = await CheckpointStore.open(path, { createIfMissing: true, engine });
  });
  afterEach(async () => {
    const { stagingBytes, stagingFreeBytes, pendingCalls } = engine.stats();
    await store.close();
    await engine.close();
    assert.deepEqual(
      [stagingBytes - stagingFreeBytes, pendingCalls],
      [0, 0],
      'staging that is not free, calls without an answer',
    );
  });

  /** Closes everything and looks at the log: each checkpoint is whole, and there is nothing else. */
  async function assertClean(): Promise<void> {
    await store.close();
    await assertSound(path);
  }

  it('stores ahead of a first checkpoint what was there, once, though staging is far smaller', async () => {
    const region = Region.allocate(2048 * PAGE);
    const c = await Checkpointer.open(store, { regions: { r: region } });
    // Pages 2000 on are holes.
    stamp(region, range(0, 2000), 1);
    await c.precopy();
    assert.deepEqual([...region.dirtyRanges()], [], 'everything is armed again');
    stamp(region, [7, 300, 2047], 2);
    const model = copyOf(region);
    const full = await c.checkpoint();
    assert.deepEqual(counts(full), ['full', null, 2001, 0, 0]);
    stamp(region, 5, 3);
    assert.deepEqual(counts(await c.checkpoint()), ['incremental', 1, 1, 0, 0]);
    assertSame(await stored(store, full.id), model);
    await store.close();
    // 8 of precopy, one of the capture, one of the second checkpoint: what was ahead was not stored again.
    assert.equal((await extentNumbers(path)).length, 10);
    await assertSound(path);
    const hash = await inChild({}, async ({ restoredFresh, hashOf }, path) => hashOf(await restoredFresh(path)), path);
    assert.equal(hash, hashOf(region));
  });

  it('takes what is dirty in each region of an increment, and lists the page that was written again once', async () => {
    const [a, b] = [Region.allocate(1024 * PAGE), Region.allocate(1024 * PAGE, { shared: true })];
    const c = await Checkpointer.open(store, { regions: { a, b } });
    stamp(a, range(0, 1024), 1);
    stamp(b, range(0, 10), 1);
    await c.checkpoint();
    stamp(a, range(100, 300), 2);
    stamp(b, range(5, 600), 2);
    await c.precopy();
    stamp(a, range(390, 20), 3);
    stamp(b, range(0, 6), 3);
    const models = [copyOf(a), copyOf(b)];
    const next = await c.checkpoint();
    assert.deepEqual(counts(next, 'a'), ['incremental', 1, 310, 0, 0]);
    assert.deepEqual(counts(next, 'b'), ['incremental', 1, 605, 0, 0]);
    assert.equal(next.rawBytes, 915 * PAGE);
    assertSame(await stored(store, 2, 'a'), models[0]!, 'a');
    assertSame(await stored(store, 2, 'b'), models[1]!, 'b');
    assertSame(await restoredAgain(2, 'b'), models[1]!, 'b, restored');
    await assertClean();
  });

  async function restoredAgain(target: number, name: string): Promise<Uint8Array> {
    const { regions } = (await store.find(target))!;
    const fresh = Object.fromEntries(Object.keys(regions).map((key) => [key, Region.allocate(regions[key]!.byteLength)]));
    const c = await Checkpointer.open(store, { regions: fresh, branch: 'other' });
    await c.restore(target);
    await c.close();
    return copyOf(fresh[name]!);
  }

  it('follows pages that become zero and are written again between its rounds', async () => {
    const region = Region.allocate(64 * PAGE);
    const c = await Checkpointer.open(store, { regions: { r: region } });
    stamp(region, range(0, 8), 1);
    await c.checkpoint();
    stamp(region, [0, 10, 11], 2);
    zero(region, 1);
    zero(region, 2);
    zero(region, 12);
    await c.precopy();
    zero(region, 0);
    zero(region, 10);
    stamp(region, [1, 12], 3);
    await c.precopy();
    stamp(region, [0, 13], 4);
    zero(region, 13);
    zero(region, 1);
    await c.precopy();
    zero(region, 11);
    const model = copyOf(region);
    // 0 and 12 hold something, 1 and 2 became zero, 10, 11 and 13 were zero and are.
    const next = await c.checkpoint();
    assert.deepEqual(counts(next), ['incremental', 1, 2, 2, 3]);
    assertSame(await stored(store, next.id), model);
    await assertClean();
  });

  it('deletes what no page of counts any more, with the checkpoint itself', async () => {
    const region = Region.allocate(1024 * PAGE);
    const c = await Checkpointer.open(store, { regions: { r: region } });
    for (let k = 1; k <= 4; k++) {
      stamp(region, range(0, 512), k);
      await c.precopy();
    }
    stamp(region, range(0, 10), 5);
    const model = copyOf(region);
    const { regions, storedBytes } = await c.checkpoint({ durability: 'relaxed' });
    assert.equal(regions.r!.pages, 512);
    assert.ok(storedBytes < 600 * PAGE, `${storedBytes} bytes stored, of four times as many that were stored in passing`);
    assertSame(await stored(store, 1), model);
    await store.close();
    assert.equal((await extentNumbers(path)).length, 3);
    await assertSound(path);
  });

  it('followed by the checkpoint and a kill leaves nothing behind', async () => {
    await store.close();
    const hash = await inChild(
      {},
      async ({ Checkpointer, Region, PAGE, stamp, range, hashOf, crash }, path) => {
        const region = Region.allocate(1024 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        for (const k of [1, 2, 3]) {
          stamp(region, range(0, 600), k);
          await c.precopy();
        }
        stamp(region, range(0, 300), 4);
        await c.checkpoint();
        return crash(hashOf(region));
      },
      path,
    );
    assert.deepEqual(await assertSound(path), [1]);
    assert.equal(hashOf(await restoredFresh(path)), hash);
  });

  it('takes memory that was dropped', async () => {
    const buffer = resizable(1024 * PAGE);
    const region = Region.of(buffer);
    const c = await Checkpointer.open(store, { regions: { r: region } });
    stamp(region, range(0, 1000), 1);
    await c.precopy();
    buffer.resize(512 * PAGE);
    buffer.resize(1024 * PAGE);
    stamp(region, 900, 2);
    const full = copyOf(region);
    assert.deepEqual(counts(await c.checkpoint()), ['full', null, 513, 0, 511]);
    stamp(region, range(500, 20), 3);
    buffer.resize(256 * PAGE);
    buffer.resize(1024 * PAGE);
    await c.precopy();
    stamp(region, [300, 600], 4);
    const model = copyOf(region);
    await c.checkpoint();
    assertSame(await stored(store, 1), full);
    assertSame(await stored(store, 2), model);
    await assertClean();
  });

  it('goes on while WebAssembly memory grows', async () => {
    const memory = new Memory({ initial: 64, maximum: 512 });
    const region = Region.of(memory);
    const c = await Checkpointer.open(store, { regions: { r: region } });
    stamp(new Uint8Array(memory.buffer), range(0, 1024), 1);
    let running = true;
    const done = c.precopy().then(() => {
      running = false;
    });
    let size = 1024;
    for (let k = 0; running && size < 4096; k++) {
      memory.grow(16);
      stamp(new Uint8Array(memory.buffer), [k, size + 3, size + 255], 2);
      size += 256;
      await turn();
    }
    await done;
    assert.ok(size >= 1024 + 256 * 3, 'it grew meanwhile');
    memory.grow(16);
    stamp(new Uint8Array(memory.buffer), [5, size + 7], 3);
    const model = new Uint8Array(memory.buffer).slice();
    const { regions } = await c.checkpoint();
    assert.equal(regions.r!.byteLength, model.length);
    assertSame(await stored(store, 1), model);
    await assertClean();
  });

  it('describes no moment: with ifChanged what it took is a change, and nothing taken is none', async () => {
    const region = Region.allocate(64 * PAGE);
    const c = await Checkpointer.open(store, { regions: { r: region } });
    stamp(region, 1, 1);
    await c.checkpoint();
    await c.precopy();
    assert.equal((await c.checkpoint({ ifChanged: true })).id, 1, 'nothing was written');
    stamp(region, 2, 1);
    await c.precopy();
    assert.deepEqual(counts(await c.checkpoint({ ifChanged: true })), ['incremental', 1, 1, 0, 0]);
    await c.precopy();
    assert.equal((await c.checkpoint({ ifChanged: true })).id, 2);
    stamp(region, 3, 1);
    assert.deepEqual(counts(await c.checkpoint({ ifChanged: true })), ['incremental', 2, 1, 0, 0]);
    assertSame(await stored(store, 3), copyOf(region));
    await assertClean();
  });

  it('called again before it is over takes everything once', async () => {
    const region = Region.allocate(2048 * PAGE);
    const c = await Checkpointer.open(store, { regions: { r: region } });
    stamp(region, range(0, 2048), 1);
    const calls = [c.precopy(), c.precopy()];
    await turn();
    stamp(region, range(0, 400), 2);
    calls.push(c.precopy());
    await Promise.all(calls);
    stamp(region, 9, 3);
    const model = copyOf(region);
    assert.deepEqual(counts(await c.checkpoint()), ['full', null, 2048, 0, 0]);
    assertSame(await stored(store, 1), model);
    await assertClean();
  });

  it('of several checkpointers that share a store and little staging, with checkpoints in between', async () => {
    const regions = range(0, 4).map(() => Region.allocate(1024 * PAGE));
    const all = await Promise.all(
      regions.map((region, k) => Checkpointer.open(store, { regions: { r: region }, branch: `b${k}` })),
    );
    const models: Uint8Array[] = [];
    const calls: Promise<Checkpoint>[] = [];
    for (let round = 1; round <= 4; round++) {
      const ahead = all.map((c, k) => {
        stamp(regions[k]!, range(100 * k, 600), round);
        return c.precopy();
      });
      for (let k = 0; k < 4; k++) {
        // Only some are awaited: the others are ended by their checkpoint.
        if (k % 2 === 0) await ahead[k];
        stamp(regions[k]!, range(50 * round, 100), 10 + round);
        models.push(copyOf(regions[k]!));
        calls.push(all[k]!.checkpoint());
      }
      await Promise.all(ahead);
    }
    for (const [k, { id }] of (await Promise.all(calls)).entries()) assertSame(await stored(store, id), models[k]!, `call ${k}`);
    await assertClean();
  });

  it('that was aborted keeps no staging from others', async () => {
    const [a, b] = [Region.allocate(1024 * PAGE), Region.allocate(1024 * PAGE)];
    const one = await Checkpointer.open(store, { regions: { r: a }, branch: 'one' });
    const two = await Checkpointer.open(store, { regions: { r: b }, branch: 'two' });
    stamp(a, range(0, 1024), 1);
    stamp(b, range(0, 1024), 2);
    const controller = new AbortController();
    const aborted = outcome(one.precopy({ signal: controller.signal }));
    // The first segments are filled in the first turns.
    for (let k = 0; engine.stats().stagingFreeBytes === engine.stats().stagingBytes; k++) {
      assert.ok(k < 1000, 'nothing was copied');
      await turn();
    }
    controller.abort();
    assert.equal(await aborted, 'TIDEMARK_ABORTED');
    await two.precopy();
    await two.checkpoint();
    await one.checkpoint();
    assertSame(await stored(store, 'one'), copyOf(a));
    assertSame(await stored(store, 'two'), copyOf(b));
    await assertClean();
  });

  it('while checkpoints are in flight', async () => {
    const region = Region.allocate(2048 * PAGE);
    const c = await Checkpointer.open(store, { regions: { r: region } });
    const calls: Promise<Checkpoint>[] = [];
    const models: Uint8Array[] = [];
    const checkpoint = () => {
      models.push(copyOf(region));
      calls.push(c.checkpoint());
    };
    stamp(region, range(0, 2000), 1);
    checkpoint();
    for (let k = 2; k < 6; k++) {
      stamp(region, range(k * 100, 4 * MIB_PAGES), k);
      checkpoint();
      stamp(region, range(k * 120, 3 * MIB_PAGES), 10 + k);
      const ahead = c.precopy();
      for (let turns = 0; turns < k; turns++) await turn();
      stamp(region, range(k * 130, 50), 20 + k);
      checkpoint();
      await ahead;
    }
    for (const [k, { id, parent }] of (await Promise.all(calls)).entries()) {
      assert.deepEqual([id, parent], [k + 1, k === 0 ? null : k]);
      assertSame(await stored(store, id), models[k]!, `checkpoint ${id}`);
    }
    await assertClean();
  });
});
