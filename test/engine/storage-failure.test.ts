import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { hashOf, restoredFresh } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

describe('the storage thread', () => {
  const folder = storeFolders();

  it('that ends fails everything with an error; opened again, the memory goes on where it was', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'storage.exit:2' },
      async ({ Checkpointer, CheckpointStore, Region, PAGE, stamp, range, outcome, hashOf, noMoreFaults, crash }, path) => {
        const region = Region.allocate(64 * PAGE);
        const store = await CheckpointStore.open(path, { createIfMissing: true });
        const c = await Checkpointer.open(store, { regions: { r: region } });
        noMoreFaults();
        stamp(region, range(0, 64), 1);
        await c.checkpoint();
        stamp(region, [1, 2], 2);
        const calls = [c.checkpoint()];
        stamp(region, [2, 3], 3);
        calls.push(c.checkpoint());
        const outcomes = await Promise.all([...calls, c.flush(), c.checkpoint(), c.restore()].map(outcome));
        const find = await outcome(store.find(1));
        const closed = await Promise.all([outcome(c.close()), outcome(store.close())]);
        const again = await Checkpointer.open(path, { regions: { r: region } });
        const ends = [again.head?.id, again.base?.id];
        stamp(region, 4, 4);
        const next = await again.checkpoint();
        return crash({ outcomes, find, closed, ends, counts: [next.parent, next.regions.r!.pages], hash: hashOf(region) });
      },
      path,
    );
    // A capture that finds the staging without its storage thread before the event loop has told of its end says STALLED.
    for (const one of result.outcomes) assert.match(one, /^TIDEMARK_(WRITE_FAILED|STALLED)$/);
    // Not before the thread has ended: until then it answers.
    assert.equal(result.find, 'TIDEMARK_CLOSED');
    assert.deepEqual(result.closed, ['ok', 'ok']);
    assert.deepEqual(result.ends, [1, 1]);
    assert.deepEqual(result.counts, [1, 4]);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
    await assertSound(path);
  });

  it('that ends while a capture waits for staging ends the wait with an error', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'storage.exit:4' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, outcome, hashOf, noMoreFaults, crash }, path) => {
        const region = Region.allocate(8192 * PAGE);
        const engine = new Engine({ maxStagingBytes: 4 << 20 });
        const c = await Checkpointer.open(path, { regions: { r: region }, engine });
        noMoreFaults();
        stamp(region, 0, 1);
        await c.checkpoint();
        const first = hashOf(region);
        stamp(region, range(1, 8191), 2);
        const started = performance.now();
        const failed = await outcome(c.checkpoint());
        const ms = performance.now() - started;
        const closed = await outcome(c.close());
        const again = await Checkpointer.open(path, { regions: { r: region }, engine });
        const next = await again.checkpoint();
        return crash({ failed, ms, closed, first, counts: [next.parent, next.regions.r!.pages], hash: hashOf(region) });
      },
      path,
    );
    assert.match(result.failed, /^TIDEMARK_(WRITE_FAILED|STALLED)$/);
    // Not the minute after which a capture gives up by itself.
    assert.ok(result.ms < 15_000, `${result.ms} ms`);
    assert.equal(result.closed, 'ok');
    assert.deepEqual(result.counts, [1, 8191]);
    assert.equal(hashOf(await restoredFresh(path, 1)), result.first);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
    await assertSound(path);
  });

  it('that ends, and the process too: what was acknowledged is there', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'storage.exit:3' },
      async ({ Checkpointer, Region, PAGE, stamp, outcome, hashOf, crash }, path) => {
        const region = Region.allocate(64 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region }, durability: 'relaxed' });
        stamp(region, 1, 1);
        await c.checkpoint();
        stamp(region, 2, 2);
        await c.checkpoint();
        const hash = hashOf(region);
        stamp(region, 3, 3);
        return crash({ failed: await outcome(c.checkpoint()), hash });
      },
      path,
    );
    assert.equal(result.failed, 'TIDEMARK_WRITE_FAILED');
    assert.deepEqual(await assertSound(path), [1, 2]);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });

  it('that writes nothing any more: a capture that waits for staging ends with an error after `stallMs`', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'storage.hang:2' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, outcome, hashOf, crash }, path) => {
        const region = Region.allocate(8192 * PAGE);
        const engine = new Engine({ maxStagingBytes: 4 << 20, stallMs: 1000 });
        const c = await Checkpointer.open(path, { regions: { r: region }, engine });
        stamp(region, 0, 1);
        await c.checkpoint();
        const hash = hashOf(region);
        stamp(region, range(0, 8192), 2);
        const started = performance.now();
        const failed = await outcome(c.checkpoint());
        const ms = performance.now() - started;
        const dirty = region.dirtyRanges();
        return crash({ failed, ms, dirty: [...dirty], hash });
      },
      path,
    );
    assert.equal(result.failed, 'TIDEMARK_STALLED');
    assert.ok(result.ms >= 1000 && result.ms < 15_000, `${result.ms} ms`);
    assert.deepEqual(result.dirty, [0, 8192]);
    assert.deepEqual(await assertSound(path), [1]);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });
});
