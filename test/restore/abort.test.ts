import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { Checkpointer, CheckpointStore, Engine, Region, type TidemarkError } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, bytesOf, copyOf, outcome, PAGE, range, stamp, stored } from '../support/kit.js';

/** 16 extents: a restore of all reads them in two portions. */
const PAGES = 4096;
const REASON = new Error('never mind');

interface Aborted {
  code: string | undefined;
  /** Events of each pass until it settled. */
  passes: number[];
}

/** Restores, and aborts at event `at` of pass `pass` (1: checking in place, or filling where nothing was). */
async function abortAt(c: Checkpointer<'r'>, target: number, pass: number, at: number): Promise<Aborted> {
  const controller = new AbortController();
  const { signal } = controller;
  const passes: number[] = [];
  let last = Number.POSITIVE_INFINITY;
  const onProgress = ({ donePages }: { donePages: number }): void => {
    if (donePages <= last) passes.push(0);
    last = donePages;
    passes[passes.length - 1]!++;
    if (passes.length === pass && passes.at(-1) === at) controller.abort(REASON);
  };
  const call = c.restore(target, { signal, onProgress });
  const error = await call.then(
    () => undefined,
    (error) => error as TidemarkError,
  );
  assert.ok(signal.aborted, 'it went by too fast');
  assert.equal(getEventListeners(signal, 'abort').length, 0, 'listeners that are left on the signal');
  if (error !== undefined) {
    assert.deepEqual([error.code, error.name, error.cause], ['TIDEMARK_ABORTED', 'AbortError', REASON]);
  }
  return { code: error?.code, passes };
}

describe('restore() that is aborted', () => {
  let engine: Engine;
  let store: CheckpointStore;
  let region: Region;
  let c: Checkpointer<'r'>;
  let models: Uint8Array[];
  /** Checkpoint 1 and 2 differ in every page. */
  beforeEach(async () => {
    engine = new Engine({ workers: 1 });
    store = await CheckpointStore.open(folder(), { createIfMissing: true, engine });
    region = Region.allocate(PAGES * PAGE);
    c = await Checkpointer.open(store, { regions: { r: region } });
    models = [];
    for (const value of [1, 2]) {
      stamp(region, range(0, PAGES), value);
      models.push(copyOf(region));
      await c.checkpoint();
    }
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
  });
  // Its own hook, which removes them, comes last.
  const folder = storeFolders();

  /** The next checkpoint builds on `base` and has just what was written since. */
  async function assertTracked(base: number, pages: number): Promise<void> {
    const model = copyOf(region);
    const next = await c.checkpoint();
    assert.deepEqual([next.parent, next.regions.r!.pages, next.regions.r!.zeroPages], [base, pages, 0]);
    assertSame(await stored(store, next.id), model, `checkpoint ${next.id}`);
  }

  it('before the call', async () => {
    stamp(region, [3, 4], 3);
    const model = copyOf(region);
    const call = c.restore(1, { signal: AbortSignal.abort(REASON) });
    await assert.rejects(call, { code: 'TIDEMARK_ABORTED', name: 'AbortError', cause: REASON });
    assertSame(region, model);
    assert.equal(c.base?.id, 2);
    await assertTracked(2, 2);
  });

  it('right after the call, and while it waits for a checkpoint before it', async () => {
    for (const waits of [false, true]) {
      stamp(region, [3, 4], 4);
      const before = waits ? c.checkpoint() : Promise.resolve(c.head!);
      const model = copyOf(region);
      const controller = new AbortController();
      const call = c.restore(1, { signal: controller.signal });
      controller.abort();
      assert.equal(await outcome(call), 'TIDEMARK_ABORTED');
      assertSame(region, model);
      await assertTracked((await before).id, waits ? 0 : 2);
      assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
    }
  });

  for (const at of [1, 3, 8, 12, 16]) {
    it(`in place, with ${at} extents checked: nothing is touched`, async () => {
      stamp(region, [3, 4], 5);
      await c.precopy();
      stamp(region, [4, 5], 6);
      const model = copyOf(region);
      const { code, passes } = await abortAt(c, 1, 1, at);
      assert.equal(code, 'TIDEMARK_ABORTED');
      assert.equal(passes.length, 1, 'it went on to fill');
      assertSame(region, model);
      assert.deepEqual([c.base?.id, c.head?.id], [2, 2]);
      await assertTracked(2, 3);
      await c.restore(1);
      assertSame(region, models[0]!);
    });
  }

  it('in place, when pages are changed already: it is too late', async () => {
    for (const at of [1, 16]) {
      const { code, passes } = await abortAt(c, 1, 2, at);
      assert.deepEqual([code, passes], [undefined, [16, 16]]);
      assertSame(region, models[0]!);
      assert.equal(c.base?.id, 1);
      await c.restore(2);
      assertSame(region, models[1]!);
    }
    stamp(region, 7, 7);
    await assertTracked(2, 1);
  });

  it('with nothing in the memory: what was filled is taken out again', async function () {
    this.timeout(120_000);
    await c.close();
    let aborted = 0;
    // It is in time while the second portion is not under way: the first event is most of the time.
    const deadline = performance.now() + 60_000;
    for (let k = 0; k < 3 || (aborted === 0 && performance.now() < deadline); k++) {
      const at = [1, 16, 5][k] ?? 1;
      const fresh = Region.allocate(PAGES * PAGE, { shared: at === 5 });
      const other = await Checkpointer.open(store, { regions: { r: fresh } });
      const { code, passes } = await abortAt(other, 2, 1, at);
      if (code === undefined) {
        assertSame(fresh, models[1]!);
      } else {
        aborted++;
        assert.ok(passes[0]! < 16, `${passes}`);
        assert.ok(
          bytesOf(fresh).every((byte) => byte === 0),
          'there is something left',
        );
        assert.deepEqual([...fresh.dirtyRanges()], []);
        assert.equal(other.base, undefined);
        assert.equal(await outcome(other.checkpoint()), 'TIDEMARK_NOT_RESTORED');
        assert.equal(await outcome(other.precopy()), 'TIDEMARK_NOT_RESTORED');
      }
      const { inPlace } = (await other.restore(2)).stats();
      assert.equal(inPlace, code === undefined);
      assertSame(fresh, models[1]!);
      stamp(fresh, [1, 2], 8);
      const next = await other.checkpoint();
      assert.equal(next.regions.r!.pages, 2);
      await other.restore(2);
      await other.checkpoint();
      await other.close();
      fresh.close();
    }
    assert.ok(aborted > 0, 'none was aborted in time');
  });

  it('in memory that held something else: it holds that', async () => {
    await c.close();
    const used = Region.allocate(PAGES * PAGE);
    stamp(used, range(100, 50), 9);
    const model = copyOf(used);
    const other = await Checkpointer.open(store, { regions: { r: used } });
    assert.equal((await abortAt(other, 2, 1, 2)).code, 'TIDEMARK_ABORTED');
    assertSame(used, model);
    assert.equal(await outcome(other.checkpoint()), 'TIDEMARK_NOT_RESTORED');
    await other.restore();
    assertSame(used, models[1]!);
    assert.equal((await other.checkpoint()).regions.r!.pages, 0);
    await other.close();
  });

  it('of some regions: neither these nor the others forget what they descend from', async () => {
    await c.close();
    const others = { r: region, q: Region.allocate(64 * PAGE) };
    const both = await Checkpointer.open(store, { regions: others, branch: 'both', startOver: true });
    stamp(others.q, range(0, 10), 1);
    const first = await both.checkpoint();
    stamp(others.q, 3, 2);
    stamp(region, range(0, 3000), 3);
    const model = copyOf(region);
    const controller = new AbortController();
    const onProgress = () => controller.abort();
    const call = both.restore(first.id, { regions: ['r'], signal: controller.signal, onProgress });
    assert.equal(await outcome(call), 'TIDEMARK_ABORTED');
    assertSame(region, model);
    const { parent, regions } = await both.checkpoint();
    assert.deepEqual([parent, regions.r!.pages, regions.q!.pages], [first.id, 3000, 1]);
    await both.close();
  });
});
