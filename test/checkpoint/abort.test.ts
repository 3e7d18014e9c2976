import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { Checkpointer, CheckpointStore, Engine, Region, TidemarkError } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assertSame, copyOf, outcome, PAGE, range, stamp, stored } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

const PAGES = 2048;
const REASON = new Error('had enough');
/** On a machine that gives this thread no time a checkpoint may be committed, or have failed, before the abort behind its call is called. */
const TRIES = 4;

/** What it was aborted with, so that the caller can tell his own abort from somebody else's. */
async function abortOf(promise: Promise<unknown>): Promise<TidemarkError> {
  const error = await promise.then(
    () => assert.fail('it was not aborted'),
    (error) => error,
  );
  assert.ok(error instanceof TidemarkError, String(error));
  assert.deepEqual([error.code, error.name], ['TIDEMARK_ABORTED', 'AbortError']);
  return error;
}

describe('a signal that is aborted', () => {
  let path: string;
  let engine: Engine;
  let store: CheckpointStore;
  let region: Region;
  let c: Checkpointer<'r'>;
  let controller: AbortController;
  const listening = () => getEventListeners(controller.signal, 'abort').length;
  beforeEach(async () => {
    path = folder();
    engine = new Engine({ maxStagingBytes: 32 << 20, workers: 1 });
    store = await CheckpointStore.open(path, { createIfMissing: true, engine });
    region = Region.allocate(PAGES * PAGE);
    c = await Checkpointer.open(store, { regions: { r: region } });
    controller = new AbortController();
  });
  afterEach(async () => {
    assert.equal(listening(), 0, 'listeners that are left on the signal');
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

  it('before the call: nothing is taken', async () => {
    stamp(region, [1, 2], 1);
    controller.abort(REASON);
    const { signal } = controller;
    for (const call of [
      () => c.checkpoint({ signal }),
      () => c.precopy({ signal }),
      () => c.checkpoint({ signal, ifChanged: true }),
    ]) {
      assert.equal((await abortOf(call())).cause, REASON);
      assert.deepEqual([...region.dirtyRanges()], [1, 2]);
    }
    assert.deepEqual([c.stats().failed, c.stats().captureMs.total], [0, 0], 'nothing was captured');
    const { id, regions } = await c.checkpoint();
    assert.deepEqual([id, regions.r!.pages], [1, 2]);
  });

  it('right after the call: the next one has everything, and is full if that was the first', async function () {
    this.retries(TRIES);
    stamp(region, range(0, PAGES), 1);
    let call = c.checkpoint({ signal: controller.signal, label: 'mine' });
    assert.equal(listening(), 1);
    controller.abort(REASON);
    assert.equal((await abortOf(call)).cause, REASON);
    assert.deepEqual([...region.dirtyRanges()], [0, PAGES], 'dirty again');
    assert.equal(c.base, undefined);
    const full = await c.checkpoint({ label: 'mine' });
    assert.deepEqual([full.kind, full.regions.r!.pages, full.label], ['full', PAGES, 'mine']);

    stamp(region, range(0, 1000), 2);
    controller = new AbortController();
    call = c.checkpoint({ signal: controller.signal });
    stamp(region, [5, 1500], 3);
    controller.abort('a text');
    assert.equal((await abortOf(call)).cause, 'a text');
    const model = copyOf(region);
    const next = await c.checkpoint();
    assert.deepEqual([next.kind, next.parent, next.regions.r!.pages], ['incremental', full.id, 1001]);
    assertSame(await stored(store, next.id), model);
  });

  it('fails what was captured behind it, and nothing before it', async function () {
    this.retries(TRIES);
    const models: Uint8Array[] = [];
    stamp(region, range(0, PAGES), 1);
    models.push(copyOf(region));
    const first = c.checkpoint();
    stamp(region, range(0, 500), 2);
    const aborted = c.checkpoint({ signal: controller.signal, label: 'x' });
    stamp(region, range(400, 500), 3);
    const other = new AbortController();
    const behind = [c.checkpoint({ signal: other.signal }), c.checkpoint({ ifChanged: true }), c.precopy()];
    for (const call of behind) call.catch(() => {});
    controller.abort(REASON);
    assert.equal((await first).id, 1);
    const error = await abortOf(aborted);
    assert.deepEqual([error.cause, error.retryable], [REASON, false]);
    for (const call of behind.slice(0, 2)) {
      const late = await abortOf(call);
      assert.deepEqual([late.cause, late.retryable], [undefined, true], 'somebody else’s abort');
    }
    // What it took was given back, if it had begun by then.
    assert.ok(['ok', 'TIDEMARK_ABORTED'].includes(await outcome(behind[2]!)));
    assert.equal(getEventListeners(other.signal, 'abort').length, 0);
    stamp(region, 2000, 4);
    models.push(copyOf(region));
    const next = await c.checkpoint({ label: 'x' });
    assert.deepEqual([next.id, next.parent, next.regions.r!.pages], [2, 1, 901]);
    for (const [k, model] of models.entries()) assertSame(await stored(store, k + 1), model, `checkpoint ${k + 1}`);
    assert.deepEqual([c.stats().checkpoints, c.stats().inFlight], [2, 0]);
  });

  it('after the commit: nothing happens', async () => {
    stamp(region, range(0, 100), 1);
    const { signal } = controller;
    const calls = [
      c.checkpoint({ signal }),
      c.checkpoint({ signal }),
      c.precopy({ signal }),
      c.checkpoint({ signal, ifChanged: true }),
    ];
    await Promise.all(calls);
    assert.equal(listening(), 0);
    controller.abort();
    stamp(region, 7, 2);
    const { parent, regions } = await c.checkpoint();
    assert.deepEqual([parent, regions.r!.pages], [2, 1]);
  });

  it('at any time: the checkpoint is there and resolved, or not there and aborted', async () => {
    const ids: number[] = [];
    const seen = new Set<string>();
    for (let k = 0; k < 40; k++) {
      stamp(region, range(0, 1 + (k % 4) * 100), k);
      controller = new AbortController();
      const call = c.checkpoint({ signal: controller.signal, durability: 'relaxed' });
      const result = outcome(call);
      const until = performance.now() + (k % 10);
      while (performance.now() < until) await new Promise((resolve) => setImmediate(resolve));
      controller.abort();
      seen.add(await result);
      if ((await result) === 'ok') ids.push((await call).id);
    }
    const model = copyOf(region);
    ids.push((await c.checkpoint()).id);
    const found: number[] = [];
    for await (const { id } of store.checkpoints()) found.push(id);
    assert.deepEqual(found, ids);
    assertSame(await stored(store, ids.at(-1)!), model);
    assert.ok(seen.has('TIDEMARK_ABORTED'), 'none was aborted in time');
  });

  it('with attachments, that are stored by the next one', async function () {
    this.retries(TRIES);
    const attachments = { a: Buffer.alloc(3 << 20, 'abc'), b: Buffer.from('short') };
    await c.checkpoint();
    stamp(region, range(0, PAGES), 1);
    const call = c.checkpoint({ signal: controller.signal, attachments });
    controller.abort();
    await abortOf(call);
    const next = await c.checkpoint({ attachments });
    const snapshot = await store.at(next.id);
    for (const name of ['a', 'b'] as const) assert.deepEqual(Buffer.from(await snapshot.attachment(name)), attachments[name]);
    await snapshot.close();
  });

  it('is no signal: a TypeError', async () => {
    for (const signal of [null, {}, controller] as never[]) {
      assert.equal(await outcome(c.checkpoint({ signal })), 'TypeError');
      assert.equal(await outcome(c.precopy({ signal })), 'TypeError');
    }
  });

  it('ends a checkpoint that waits for a disk that hangs', async () => {
    const result = await inChild(
      { faults: 'storage.hang:2' },
      async ({ Checkpointer, Region, PAGE, stamp, outcome, crash }, path) => {
        const region = Region.allocate(16 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, 0, 1);
        await c.checkpoint();
        stamp(region, [1, 2], 2);
        const signal = AbortSignal.timeout(100);
        const call = c.checkpoint({ signal });
        const result = await outcome(call);
        const cause = await call.catch((error) => error.cause === signal.reason);
        return crash({ result, cause, dirty: [...region.dirtyRanges()] });
      },
      `${path}-hanging`,
    );
    assert.deepEqual(result, { result: 'TIDEMARK_ABORTED', cause: true, dirty: [1, 2] });
  });

  it('is not what the checkpoint before it is told when that fails by itself', async function () {
    this.retries(TRIES);
    const result = await inChild(
      { faults: 'log.write:2' },
      async ({ Checkpointer, Region, PAGE, stamp, outcome }, path) => {
        const region = Region.allocate(16 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, 0, 1);
        await c.checkpoint();
        const abort = new AbortController();
        stamp(region, 1, 2);
        const before = c.checkpoint();
        stamp(region, 2, 2);
        const aborted = c.checkpoint({ signal: abort.signal });
        abort.abort();
        const ends = [await outcome(before), await outcome(aborted)];
        return { ends, dirty: [...region.dirtyRanges()], next: (await c.checkpoint()).regions.r!.pages };
      },
      `${path}-failing`,
    );
    assert.deepEqual(result, { ends: ['TIDEMARK_WRITE_FAILED', 'TIDEMARK_ABORTED'], dirty: [1, 2], next: 2 });
  });

  it('and neither is a label that is taken', async () => {
    const result = await inChild(
      { faults: 'log.write:2' },
      async ({ Checkpointer, Region, PAGE, stamp, outcome }, path) => {
        const region = Region.allocate(16 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, 0, 1);
        // While it is written the others arrive: they are decided on together.
        const first = c.checkpoint({ label: 'taken' });
        stamp(region, 1, 2);
        const before = c.checkpoint();
        stamp(region, 2, 2);
        const taken = c.checkpoint({ label: 'taken' });
        const ends = [await outcome(first), await outcome(before), await outcome(taken)];
        return { ends, dirty: [...region.dirtyRanges()] };
      },
      `${path}-taken`,
    );
    // Where the first two were written together, the write that fails comes later.
    const isTogether = result.ends[1] === 'ok';
    assert.deepEqual(result.ends.slice(0, 2), ['ok', isTogether ? 'ok' : 'TIDEMARK_WRITE_FAILED']);
    assert.notEqual(result.ends[2], 'ok');
    assert.deepEqual(result.dirty, isTogether ? [2, 1] : [1, 2]);
  });
});
