import assert from 'node:assert/strict';
import { type Checkpoint, Checkpointer, CheckpointStore, Engine, type EngineOptions, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, bytesOf, copyOf, edit, outcome, PAGE, range, restoredFresh, stamp, stored } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

const PAGES = 300;

/** pages, of these deltas, zero pages, unchanged pages. */
function counts({ regions }: Checkpoint): number[] {
  const { pages, deltaPages, zeroPages, unchangedPages } = regions.r!;
  return [pages, deltaPages, zeroPages, unchangedPages];
}

describe('deltas', () => {
  let path: string;
  let engine: Engine;
  let store: CheckpointStore;
  let region: Region;
  let c: Checkpointer<'r'>;
  /** What each checkpoint must read as. */
  let models: Map<number, Uint8Array>;

  beforeEach(async () => {
    path = folder();
    region = Region.allocate(PAGES * PAGE);
    models = new Map();
    await open({});
  });
  afterEach(async () => {
    // All of them, or where they are many some of each kind.
    const step = Math.ceil(models.size / 40);
    for (const [id, model] of models) if (id % step === 0) assertSame(await stored(store, id), model, `checkpoint ${id}`);
    await close();
    await assertSound(path);
    const newest = [...models.keys()].at(-1)!;
    assertSame(await restoredFresh(path, newest), models.get(newest)!, 'in fresh memory');
    region.close();
  });
  // Its own hook, which removes them, comes last.
  const folder = storeFolders();

  async function open(options: EngineOptions, deltas?: boolean): Promise<void> {
    engine = new Engine({ maxStagingBytes: 4 << 20, workers: 2, ...options });
    store = await CheckpointStore.open(path, { createIfMissing: true, engine });
    c = await Checkpointer.open(store, { regions: { r: region }, ...(deltas === undefined ? {} : { deltas }) });
  }

  async function close(): Promise<void> {
    await store.close();
    const { stagingBytes, stagingFreeBytes, shadowUsedBytes, pendingCalls } = engine.stats();
    assert.deepEqual([stagingBytes - stagingFreeBytes, shadowUsedBytes, pendingCalls], [0, 0, 0]);
    await engine.close();
  }

  const reopen = async (options: EngineOptions = {}, deltas?: boolean): Promise<void> => {
    await close();
    await open(options, deltas);
  };

  /** Takes a checkpoint and notes what it must be. */
  async function take(signal?: AbortSignal): Promise<Checkpoint> {
    const model = copyOf(region);
    const taken = await c.checkpoint({ durability: 'relaxed', ...(signal === undefined ? {} : { signal }) });
    models.set(taken.id, model);
    return taken;
  }

  it('store what changed in a page, once it was stored whole', async () => {
    stamp(region, range(0, PAGES), 1);
    assert.deepEqual(counts(await take()), [PAGES, 0, 0, 0]);
    edit(region, range(10, 50), 1);
    const second = await take();
    assert.deepEqual(counts(second), [50, 50, 0, 0]);
    assert.equal(second.rawBytes, 50 * PAGE);
    assert.ok(second.storedBytes < 50 * 60, `${second.storedBytes} bytes`);
    edit(region, [10, 299], 2);
    assert.deepEqual(counts(await take()), [2, 2, 0, 0]);
    assert.equal(engine.stats().shadowUsedBytes, PAGES * PAGE);
  });

  it('are counted beside what is full, unchanged and zero', async () => {
    stamp(region, range(0, 250), 1);
    await take();
    const first = copyOf(region);
    edit(region, range(0, 5), 1);
    stamp(region, range(100, 3), 2);
    bytesOf(region).set(first.subarray(200 * PAGE, 204 * PAGE), 200 * PAGE);
    bytesOf(region).fill(0, 210 * PAGE, 212 * PAGE);
    stamp(region, 280, 1);
    const second = await take();
    assert.deepEqual(counts(second), [9, 5, 2, 4]);
    assert.equal(second.rawBytes, 9 * PAGE);
    // Written, and nothing is other than it was: a checkpoint of its own, of no page.
    bytesOf(region).set(copyOf(region).subarray(0, 20 * PAGE));
    const third = await take();
    assert.deepEqual([third.parent, third.rawBytes, ...counts(third)], [2, 0, 0, 0, 0, 20]);
  });

  it('are made where half of a page changed, and not where it was more', async () => {
    stamp(region, range(0, 4), 1);
    await take();
    const words = new BigUint64Array(region.buffer);
    for (const [page, changed] of [256, 257, 511, 1].entries())
      for (let k = 0; k < changed; k++) words[page * 512 + ((k * 3) % 512)]! ^= 1n << BigInt(k % 64);
    assert.deepEqual(counts(await take()), [4, 2, 0, 0]);
    edit(region, range(0, 4), 2);
    assert.deepEqual(counts(await take()), [4, 4, 0, 0]);
  });

  it('are not made on a page that was zero, also while it is in flight', async () => {
    stamp(region, range(0, 20), 1);
    await take();
    bytesOf(region).fill(0, 0, 10 * PAGE);
    assert.deepEqual(counts(await take()), [0, 0, 10, 0]);
    edit(region, range(5, 10), 1);
    assert.deepEqual(counts(await take()), [10, 5, 0, 0]);
    edit(region, range(5, 10), 2);
    assert.deepEqual(counts(await take()), [10, 10, 0, 0]);
    const inFlight: Promise<Checkpoint>[] = [];
    for (let round = 0; round < 10; round++) {
      // Written, zero, not zero, in three checkpoints at once.
      edit(region, range(0, 20), 10 + round);
      inFlight.push(take());
      bytesOf(region).fill(0, round * PAGE, (round + 5) * PAGE);
      inFlight.push(take());
      edit(region, range(0, 20), 30 + round);
      inFlight.push(take());
    }
    const [last] = (await Promise.all(inFlight)).slice(-1);
    assert.deepEqual(counts(last!), [20, 15, 0, 0]);
  });

  it('can be turned off for a store that has some, and on again', async () => {
    stamp(region, range(0, 50), 1);
    await take();
    edit(region, range(0, 30), 1);
    assert.deepEqual(counts(await take()), [30, 30, 0, 0]);
    await reopen({}, false);
    assert.equal(c.base?.id, 2);
    edit(region, range(0, 10), 2);
    assert.deepEqual(counts(await take()), [10, 0, 0, 0]);
    assert.equal(engine.stats().shadowUsedBytes, 0);
    await c.restore(1);
    assertSame(region, models.get(1)!);
    await c.restore(3);
    assertSame(region, models.get(3)!);
    await reopen({}, true);
    edit(region, range(0, 30), 3);
    assert.deepEqual(counts(await take()), [30, 0, 0, 0]);
    edit(region, range(0, 30), 4);
    assert.deepEqual(counts(await take()), [30, 30, 0, 0]);
    await reopen({ maxShadowBytes: 0 });
    edit(region, range(0, 30), 5);
    assert.deepEqual(counts(await take()), [30, 0, 0, 0]);
    edit(region, range(0, 30), 6);
    assert.deepEqual([...counts(await take()), engine.stats().shadowBytes], [30, 0, 0, 0, 0]);
  });

  for (const maxDeltas of [1, 3, 64]) {
    it(`are at most ${maxDeltas} on a full page, when so many are allowed`, async () => {
      await reopen({ maxDeltas });
      stamp(region, range(0, 6), 1);
      await take();
      const full: number[] = [];
      for (let k = 1; k <= 2 * maxDeltas + 3; k++) {
        edit(region, range(0, 6), k);
        const [pages, deltaPages] = counts(await take());
        assert.equal(pages, 6);
        assert.ok(deltaPages === 0 || deltaPages === 6);
        if (deltaPages === 0) full.push(k);
      }
      assert.deepEqual(full, [maxDeltas + 1, 2 * maxDeltas + 2]);
      // Restored, a page has as many below it as it had when it was stored.
      const fresh = Region.allocate(PAGES * PAGE);
      const other = await Checkpointer.open(store, { regions: { r: fresh }, branch: 'other', startOver: true });
      await other.restore(1 + maxDeltas);
      edit(fresh, 0, 1000);
      const next = await other.checkpoint();
      assert.deepEqual(counts(next), [1, 0, 0, 0]);
      models.set(next.id, copyOf(fresh));
      await other.close();
      fresh.close();
    });
  }

  it('go on where there is room for few shadows', async () => {
    await reopen({ maxShadowBytes: 16 * PAGE });
    stamp(region, range(0, 280), 1);
    await take();
    let deltas = 0;
    for (let k = 1; k < 30; k++) {
      edit(region, [...range(0, 8), ...range(20 + 7 * k, 3)], k);
      deltas += (await take()).regions.r!.deltaPages;
      assert.ok(engine.stats().shadowUsedBytes <= 16 * PAGE);
    }
    // The 8 that are written always stay.
    assert.ok(deltas > 20 * 8, `${deltas} deltas`);
  });

  it('are made in the order of the captures, however many are in flight, with two codec threads', async () => {
    stamp(region, range(0, PAGES), 1);
    await take();
    for (let round = 0; round < 2; round++) {
      const inFlight: Promise<Checkpoint>[] = [];
      for (let k = 0; k < 20; k++) {
        // Two segments each.
        edit(region, range(k, 270), 100 * round + k);
        inFlight.push(take());
      }
      for (const taken of await Promise.all(inFlight)) {
        const [pages, deltaPages] = counts(taken);
        assert.equal(pages, 270);
        assert.ok(taken.id > 33 || deltaPages === 270, `${deltaPages} deltas in ${taken.id}`);
      }
    }
  });

  it('are not made of pages that were taken ahead, but of those around them', async () => {
    stamp(region, range(0, 280), 1);
    await take();
    edit(region, range(0, 40), 1);
    await c.precopy();
    // 20 to 39 are superseded: they are full, too.
    edit(region, range(20, 40), 2);
    assert.deepEqual(counts(await take()), [60, 20, 0, 0]);
    edit(region, range(0, 60), 3);
    // What the precopy has, and nobody has written since, has no shadow.
    assert.deepEqual(counts(await take()), [60, 40, 0, 0]);
    edit(region, range(0, 60), 4);
    assert.deepEqual(counts(await take()), [60, 60, 0, 0]);
    // Aborted: what it has taken stays taken.
    edit(region, range(0, 280), 5);
    const controller = new AbortController();
    const ahead = outcome(c.precopy({ signal: controller.signal }));
    await new Promise(setImmediate);
    controller.abort();
    assert.equal(await ahead, 'TIDEMARK_ABORTED');
    edit(region, range(0, 10), 6);
    await take();
    edit(region, range(0, 280), 7);
    await take();
    edit(region, range(0, 280), 8);
    assert.deepEqual(counts(await take()), [280, 280, 0, 0]);
  });

  it('begin anew with memory that was detached and attached', async () => {
    stamp(region, range(0, 20), 1);
    await take();
    edit(region, 1, 1);
    c.detach('r');
    assert.equal(engine.stats().shadowUsedBytes, 0);
    c.attach('r', region);
    assert.deepEqual(counts(await take()), [1, 0, 0, 0]);
    edit(region, [1, 2], 2);
    assert.deepEqual(counts(await take()), [2, 1, 0, 0]);
    // In flight when it goes: it descends from nothing then.
    edit(region, range(0, 20), 3);
    const call = take();
    c.detach('r');
    edit(region, range(0, 20), 4);
    c.attach('r', region);
    const next = take();
    // Where a job comes too late for its shadows it makes no delta.
    assert.equal(counts(await call)[0], 20);
    assert.deepEqual(counts(await next), [20, 0, 0, 0]);
    edit(region, range(0, 20), 5);
    assert.deepEqual(counts(await take()), [20, 20, 0, 0]);
  });

  it('go on after one of several in flight was aborted', async () => {
    stamp(region, range(0, 100), 1);
    await take();
    for (let round = 0; round < 12; round++) {
      edit(region, range(0, 60), 10 * round);
      const before = take();
      edit(region, range(30, 50), 10 * round + 1);
      const controller = new AbortController();
      const aborted = outcome(take(controller.signal));
      edit(region, range(60, 20), 10 * round + 2);
      const behind = outcome(take());
      if (round % 3 > 0) await new Promise(setImmediate);
      controller.abort();
      edit(region, 90, 10 * round + 3);
      const results = [await aborted, await behind];
      assert.equal(results[0], results[1]);
      await before;
      if (results[0] === 'ok') continue;
      assert.equal(results[0], 'TIDEMARK_ABORTED');
      // What the aborted ones have written is full, if they came so far that they have taken its shadows; page 90 never is.
      const [again, deltasAgain] = counts(await take());
      assert.ok(again === 51 && deltasAgain! >= 1, `${deltasAgain} deltas of ${again} pages`);
      edit(region, range(0, 100), 10 * round + 4);
      const [pages, deltaPages] = counts(await take());
      // A job of them that was still under way when the pages were taken again kept them from getting shadows.
      assert.ok(pages === 100 && deltaPages! >= 50, `${deltaPages} deltas of ${pages} pages`);
    }
  });

  it('are made of the pages of several regions at once, each on its own', async () => {
    const other = Region.allocate(300 * PAGE, { shared: true });
    (c as Checkpointer).attach('s', other);
    stamp(region, range(0, 300), 1);
    stamp(other, range(0, 300), 2);
    const first = await take();
    for (let k = 0; k < 20; k++) {
      edit(region, range(k, 10), k);
      edit(other, range(k, 270), k);
      const model = copyOf(other);
      const { id, regions } = await take();
      assert.deepEqual([regions.r!.deltaPages, regions.s!.deltaPages], [10, 270]);
      assertSame(await stored(store, id, 's'), model, `s of ${id}`);
    }
    await c.restore(first.id);
    assertSame(region, models.get(first.id)!);
  });
});
