import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { type Checkpoint, Checkpointer, CheckpointStore, Engine, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, bytesOf, copyOf, outcome, PAGE, range, restoredFresh, stamp, stored } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

const PAGES = 2048;

/** Numbers below `limit` that are the same in each run. */
function dice(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

describe('precopy() that is joined', () => {
  let path: string;
  /** 3 segments of staging, so that there are many turns between two of a region. */
  let engine: Engine;
  let store: CheckpointStore;
  let region: Region;
  let c: Checkpointer<'r'>;
  beforeEach(async () => {
    path = folder();
    engine = new Engine({ maxStagingBytes: 4 << 20, workers: 2 });
    store = await CheckpointStore.open(path, { createIfMissing: true, engine });
    region = Region.allocate(PAGES * PAGE);
    c = await Checkpointer.open(store, { regions: { r: region } });
  });
  afterEach(async () => {
    await store.close();
    const { stagingBytes, stagingFreeBytes, pendingCalls } = engine.stats();
    await engine.close();
    assert.deepEqual(
      [stagingBytes - stagingFreeBytes, pendingCalls],
      [0, 0],
      'staging that is not free, calls without an answer',
    );
    await assertSound(path);
  });
  // Its own hook, which removes them, comes last.
  const folder = storeFolders();

  it('by checkpoint(), at any microtask before its first slice', async () => {
    const models: Uint8Array[] = [];
    const ids: number[] = [];
    for (let microtasks = 0; microtasks < 12; microtasks++) {
      stamp(region, range(0, 600), 10 + microtasks);
      const ahead = c.precopy();
      for (let k = 0; k < microtasks; k++) await null;
      stamp(region, range(300, 700), 40 + microtasks);
      models.push(copyOf(region));
      ids.push((await c.checkpoint()).id);
      await ahead;
    }
    for (const [k, id] of ids.entries()) assertSame(await stored(store, id), models[k]!, `after ${k} microtasks`);
    await c.close();
  });

  it('by checkpoint(), at any slice, with writes in between', async () => {
    const calls: Promise<Checkpoint>[] = [];
    const models: Uint8Array[] = [];
    const touched: number[] = [];
    stamp(region, range(0, PAGES), 1);
    for (let turns = 0; turns <= 12; turns++) {
      const pages = new Set(turns === 0 ? range(0, PAGES) : []);
      const write = (list: number[], value: number) => {
        stamp(region, list, value);
        for (const page of list) pages.add(page);
      };
      write(range(60 * turns, 1000), 10 + turns);
      const ahead = c.precopy();
      for (let k = 0; k < turns; k++) {
        await turn();
        write([60 * turns + 100 * k, 60 * turns + 50 * k], 50 + k);
      }
      models.push(copyOf(region));
      calls.push(c.checkpoint());
      touched.push(pages.size);
      await ahead;
    }
    for (const [k, { id, regions }] of (await Promise.all(calls)).entries()) {
      assert.equal(regions.r!.pages, touched[k], `pages of checkpoint ${id}`);
      assertSame(await stored(store, id), models[k]!, `checkpoint ${id}`);
    }
  });

  /** Memory with a checkpoint, 1,000 pages dirty, a precopy in the middle; gives what the memory was at the checkpoint. */
  async function inTheMiddle(turns: number): Promise<{ base: Uint8Array; ahead: Promise<string>; controller: AbortController }> {
    stamp(region, range(0, PAGES), 100 + turns);
    await c.checkpoint();
    const base = copyOf(region);
    stamp(region, range(500, 1000), 200 + turns);
    const controller = new AbortController();
    const ahead = outcome(c.precopy({ signal: controller.signal }));
    for (let k = 0; k < turns; k++) await turn();
    return { base, ahead, controller };
  }

  /** The next checkpoint has exactly these pages and says what is in memory. */
  async function assertNext(pages: number, what: string): Promise<void> {
    const model = copyOf(region);
    const next = await c.checkpoint();
    assert.deepEqual([next.kind, next.regions.r!.pages], ['incremental', pages], what);
    assertSame(await stored(store, next.id), model, what);
  }

  const TURNS = [0, 1, 2, 5, 9];

  it('by an abort: what was stored stays, what was not is taken by the next one', async () => {
    const seen = new Set<string>();
    for (const turns of TURNS) {
      const { ahead, controller } = await inTheMiddle(turns);
      controller.abort();
      const result = await ahead;
      // After many turns it may be done, or about to be.
      if (result !== 'ok' || turns < 5) assert.equal(result, 'TIDEMARK_ABORTED');
      seen.add(result);
      if (turns % 2 === 1) await c.precopy();
      stamp(region, [3, 600], 7);
      await assertNext(1001, `after ${turns} turns`);
    }
    assert.ok(seen.has('TIDEMARK_ABORTED'), 'none was aborted in time');
  });

  it('by a restore, which finds what was taken', async () => {
    for (const turns of TURNS) {
      const { base, ahead } = await inTheMiddle(turns);
      const restored = c.restore();
      assert.equal(await ahead, 'ok');
      const { inPlace, filledPages } = (await restored).stats();
      assert.deepEqual([inPlace, filledPages], [true, 1000]);
      assertSame(region, base);
      stamp(region, [3, 600], 8);
      await assertNext(2, `after ${turns} turns`);
    }
  });

  it('by a restore that fails', async () => {
    for (const turns of TURNS) {
      const { ahead } = await inTheMiddle(turns);
      const model = copyOf(region);
      const failing = turns === 1 ? c.restore(1, { regions: 'r' as never }) : c.restore(9999);
      const outcomes = [await outcome(failing), await ahead];
      assert.deepEqual(outcomes, [turns === 1 ? 'TypeError' : 'TIDEMARK_NOT_FOUND', 'ok']);
      assertSame(region, model);
      stamp(region, [3, 600], 9);
      await assertNext(1001, `after ${turns} turns`);
    }
  });

  it('by attach() and detach()', async () => {
    for (const turns of TURNS) {
      const { ahead } = await inTheMiddle(turns);
      const other = Region.allocate(16 * PAGE);
      stamp(other, 1, 1);
      if (turns % 2 === 0) {
        c.detach('r');
        c.attach('r', region);
      } else {
        (c as Checkpointer).attach('other', other);
        c.detach('other' as never);
      }
      assert.equal(await ahead, 'ok');
      stamp(region, [3, 600], 9);
      await assertNext(1001, `after ${turns} turns`);
      other.close();
    }
  });

  it('by close(): whoever has the memory next finds what is dirty', async () => {
    for (const turns of TURNS) {
      const { ahead } = await inTheMiddle(turns);
      const closed = c.close();
      assert.equal(await ahead, 'ok');
      await closed;
      assert.deepEqual([...region.dirtyRanges()], [500, 1000]);
      c = await Checkpointer.open(store, { regions: { r: region } });
      stamp(region, [3, 600], 9);
      await assertNext(1001, `after ${turns} turns`);
    }
  });

  it('by the death of the engine', async () => {
    const { base, ahead } = await inTheMiddle(2);
    await engine.close();
    assert.equal(await ahead, 'TIDEMARK_CLOSED');
    assert.deepEqual([...region.dirtyRanges()], [500, 1000]);
    await store.close();
    assertSame(await restoredFresh(path), base);
    engine = new Engine();
    store = await CheckpointStore.open(path, { engine });
    c = await Checkpointer.open(store, { regions: { r: region } });
    assert.equal(c.base?.id, 1);
    await assertNext(1000, 'afterwards');
  });

  for (const seed of [1, 2, 3]) {
    it(`by anything at random (${seed})`, async () => {
      const roll = dice(seed);
      const states = new Map<number, Uint8Array>();
      const taken: { call: Promise<Checkpoint>; model: Uint8Array }[] = [];
      const loose: Promise<unknown>[] = [];
      const settle = async () => {
        for (const { call, model } of taken.splice(0)) {
          const result = await outcome(call);
          if (result === 'ok') states.set((await call).id, model);
          else assert.equal(result, 'TIDEMARK_ABORTED');
        }
        await Promise.all(loose.splice(0));
      };
      const controllers: AbortController[] = [];
      const signal = () => {
        const controller = new AbortController();
        if (roll(3) === 0) controllers.push(controller);
        return controller.signal;
      };
      for (let step = 0; step < 150; step++) {
        const first = roll(PAGES);
        const count = Math.min(1 + roll(roll(2) === 0 ? 5 : 700), PAGES - first);
        const what = roll(12);
        const rare = roll(9);
        if (what < 4) stamp(region, range(first, count), step);
        else if (what === 4) bytesOf(region).fill(0, first * PAGE, (first + count) * PAGE);
        else if (what < 8) loose.push(outcome(c.precopy({ signal: signal() })));
        else if (what < 10) {
          const model = copyOf(region);
          const call = c.checkpoint({ signal: signal(), durability: 'relaxed' });
          // Looked at when it is settled.
          call.catch(() => {});
          taken.push({ model, call });
        } else if (what === 10) controllers.pop()?.abort();
        else if (rare < 3) {
          await settle();
          const ids = [...states.keys()];
          const id = ids[roll(ids.length)];
          if (id === undefined) continue;
          await c.restore(id);
          assertSame(region, states.get(id)!, `restored ${id}`);
        } else if (rare < 5) {
          c.detach('r');
          c.attach('r', region);
        }
        for (let turns = roll(6); turns > 0; turns--) await turn();
      }
      taken.push({ model: copyOf(region), call: c.checkpoint() });
      await settle();
      assert.ok(states.size > 3, 'too few checkpoints');
      for (const [id, model] of states) assertSame(await stored(store, id), model, `checkpoint ${id}`);
    });
  }
});

/** Writes words at random places, all the time but when it is told to hold still: [hold, stop, held, writes]. */
const WRITER = `
const { workerData: { control, buffer, seed } } = require('node:worker_threads');
const state = new Int32Array(control);
const words = new Uint32Array(buffer);
let random = seed;
for (;;) {
  if (Atomics.load(state, 0) === 1) {
    Atomics.add(state, 2, 1);
    Atomics.notify(state, 2);
    Atomics.wait(state, 0, 1);
    Atomics.sub(state, 2, 1);
  }
  if (Atomics.load(state, 1) === 1) break;
  random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
  const at = Math.floor(random / 2 ** 32 * words.length);
  // Now and then a whole page becomes zero.
  if (random % 64 === 0) words.fill(0, at & ~1023, (at & ~1023) + 1024);
  else words[at] = random;
  if (Atomics.add(state, 3, 1) % 32 === 0) Atomics.wait(state, 4, 0, 1);
}
`;

describe('precopy() while threads write all the time', () => {
  const folder = storeFolders();

  it('makes checkpoints that are exact, whose writers are held still around the call only', async () => {
    const path = folder();
    const engine = new Engine({ maxStagingBytes: 4 << 20, workers: 2 });
    const store = await CheckpointStore.open(path, { createIfMissing: true, engine });
    const region = Region.allocate(PAGES * PAGE, { shared: true });
    stamp(region, range(0, PAGES), 1);
    const c = await Checkpointer.open(store, { regions: { r: region } });
    const state = new Int32Array(new SharedArrayBuffer(20));
    const writers = [1, 2].map((seed) => {
      const worker = new Worker(WRITER, { eval: true, workerData: { control: state.buffer, buffer: region.buffer, seed } });
      return new Promise((resolve, reject) => worker.on('exit', resolve).on('error', reject));
    });
    const hold = (on: boolean): void => {
      Atomics.store(state, 0, on ? 1 : 0);
      Atomics.notify(state, 0);
      while (on ? Atomics.load(state, 2) < 2 : Atomics.load(state, 2) > 0) Atomics.wait(state, 4, 0, 1);
    };
    while (Atomics.load(state, 3) < 100) await turn();
    const taken: { call: Promise<Checkpoint>; model: Uint8Array }[] = [];
    for (let k = 0; k < 8; k++) {
      const before = Atomics.load(state, 3);
      const ahead = c.precopy();
      if (k % 3 !== 2) await ahead;
      else for (let turns = 0; turns < k; turns++) await turn();
      // However long it takes until they have had their turn.
      while (Atomics.load(state, 3) === before) await turn();
      hold(true);
      taken.push({ model: copyOf(region), call: c.checkpoint({ durability: k % 2 === 0 ? 'sync' : 'relaxed' }) });
      hold(false);
      await ahead;
    }
    Atomics.store(state, 1, 1);
    await Promise.all(writers);
    for (const { call, model } of taken) assertSame(await stored(store, (await call).id), model, `checkpoint ${(await call).id}`);
    await store.close();
    await engine.close();
    assertSame(await restoredFresh(path), taken.at(-1)!.model);
    await assertSound(path);
  });
});
