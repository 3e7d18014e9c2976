import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { hashOf, restoredFresh } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

describe('a codec thread', () => {
  const folder = storeFolders();

  it('that cannot encode fails the checkpoints in flight, and the next has everything', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'codec.encode:2' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, outcome, hashOf, crash }, path) => {
        const region = Region.allocate(64 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region }, engine: new Engine({ workers: 1 }) });
        stamp(region, range(0, 64), 1);
        await c.checkpoint();
        stamp(region, [1, 2], 2);
        const failed = [outcome(c.checkpoint())];
        stamp(region, [2, 3], 3);
        failed.push(outcome(c.checkpoint()));
        const outcomes = await Promise.all(failed);
        stamp(region, 4, 4);
        const { parent, regions } = await c.checkpoint();
        return crash({ outcomes, parent, pages: regions.r!.pages, hash: hashOf(region) });
      },
      path,
    );
    assert.deepEqual(result.outcomes, ['TIDEMARK_WRITE_FAILED', 'TIDEMARK_WRITE_FAILED']);
    assert.deepEqual([result.parent, result.pages], [1, 4]);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
    await assertSound(path);
  });

  it('that cannot encode does not hold up a capture whose jobs follow', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'codec.encode:2' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, outcome, hashOf }, path) => {
        const region = Region.allocate(1024 * PAGE);
        // 3 segments: the second capture waits for staging that its own jobs hold.
        const engine = new Engine({ workers: 2, maxStagingBytes: 4 << 20, stallMs: 20_000 });
        const c = await Checkpointer.open(path, { regions: { r: region }, engine });
        stamp(region, range(0, 1024), 1);
        const first = outcome(c.checkpoint());
        stamp(region, range(0, 1024), 2);
        const outcomes = await Promise.all([first, outcome(c.checkpoint())]);
        await c.checkpoint();
        await c.close();
        return { outcomes, hash: hashOf(region) };
      },
      path,
    );
    assert.deepEqual(result.outcomes, ['TIDEMARK_WRITE_FAILED', 'TIDEMARK_WRITE_FAILED']);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
    await assertSound(path);
  });

  it('that cannot encode for one checkpointer does not disturb another', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'codec.encode:2' },
      async ({ Checkpointer, CheckpointStore, Engine, Region, PAGE, stamp, outcome, hashOf }, path) => {
        const store = await CheckpointStore.open(path, { createIfMissing: true, engine: new Engine({ workers: 1 }) });
        const [a, b] = [Region.allocate(8 * PAGE), Region.allocate(8 * PAGE)];
        const one = await Checkpointer.open(store, { regions: { a }, branch: 'one' });
        const two = await Checkpointer.open(store, { regions: { b }, branch: 'two' });
        stamp(a, 1, 1);
        stamp(b, 1, 1);
        await two.checkpoint();
        stamp(b, 2, 2);
        const outcomes = await Promise.all([outcome(one.checkpoint()), outcome(two.checkpoint())]);
        await one.checkpoint();
        await store.close();
        return { outcomes, hash: hashOf(b) };
      },
      path,
    );
    assert.deepEqual(result.outcomes, ['TIDEMARK_WRITE_FAILED', 'ok']);
    assert.equal(hashOf(await restoredFresh(path, 'two', 'b')), result.hash);
    await assertSound(path);
  });

  for (const workers of [1, 2]) {
    it(`that ends fails what is in flight, is replaced, and the next checkpoint has everything (of ${workers})`, async () => {
      const path = folder();
      const result = await inChild(
        { faults: 'codec.exit:2' },
        async (
          { Checkpointer, Engine, Region, PAGE, stamp, range, outcome, hashOf, noMoreFaults, retried, crash },
          path,
          workers,
        ) => {
          const region = Region.allocate(4096 * PAGE);
          const engine = new Engine({ workers });
          const c = await Checkpointer.open(path, { regions: { r: region }, engine });
          noMoreFaults();
          stamp(region, 0, 1);
          await c.checkpoint();
          stamp(region, range(1, 2000), 2);
          const failed = await outcome(c.checkpoint());
          stamp(region, 3000, 3);
          const next = await retried(() => c.checkpoint());
          stamp(region, 3001, 3);
          const after = await c.checkpoint();
          return crash({ failed, counts: [next.parent, next.regions.r!.pages, after.regions.r!.pages], hash: hashOf(region) });
        },
        path,
        workers,
      );
      assert.equal(result.failed, 'TIDEMARK_STALLED');
      assert.deepEqual(result.counts, [1, 2001, 1]);
      assert.equal(hashOf(await restoredFresh(path)), result.hash);
      await assertSound(path);
    });

    it(`that ends while a capture waits for staging ends the wait with an error (of ${workers})`, async () => {
      const path = folder();
      const result = await inChild(
        { faults: 'codec.exit:3' },
        async (
          { Checkpointer, Engine, Region, PAGE, stamp, range, outcome, hashOf, noMoreFaults, retried, crash },
          path,
          workers,
        ) => {
          const region = Region.allocate(8192 * PAGE);
          const engine = new Engine({ workers, maxStagingBytes: 4 << 20 });
          const c = await Checkpointer.open(path, { regions: { r: region }, engine });
          noMoreFaults();
          stamp(region, range(0, 8192), 1);
          const started = performance.now();
          const failed = await outcome(c.checkpoint());
          const ms = performance.now() - started;
          const next = await retried(() => c.checkpoint());
          return crash({ failed, ms, pages: next.regions.r!.pages, hash: hashOf(region) });
        },
        path,
        workers,
      );
      assert.equal(result.failed, 'TIDEMARK_STALLED');
      // Not the minute after which a capture gives up by itself.
      assert.ok(result.ms < 15_000, `${result.ms} ms`);
      assert.equal(result.pages, 8192);
      assert.equal(hashOf(await restoredFresh(path)), result.hash);
      await assertSound(path);
    });
  }

  it('that ends while another waits for its turn is told as what it is', async () => {
    const outcomes = await inChild(
      { limitMs: 40_000 },
      async ({ Checkpointer, CheckpointStore, Engine, Region, PAGE, stamp, outcome }, path) => {
        const threads = (await import('node:worker_threads')).default;
        const { syncBuiltinESMExports } = await import('node:module');
        const codecs: InstanceType<typeof threads.Worker>[] = [];
        threads.Worker = class extends threads.Worker {
          constructor(...args: ConstructorParameters<typeof threads.Worker>) {
            super(...args);
            if (String(args[0]).includes('codec-thread')) codecs.push(this);
          }
        };
        syncBuiltinESMExports();
        const engine = new Engine({ workers: 2 });
        const store = await CheckpointStore.open(path, { createIfMissing: true, engine });
        const busy = Region.allocate(1 << 20);
        const region = Region.allocate(16 * PAGE);
        const other = await Checkpointer.open(store, { regions: { busy }, branch: 'busy', compressionLevel: 19, deltas: false });
        const c = await Checkpointer.open(store, { regions: { r: region } });
        const bytes = new Uint8Array(region.buffer);
        stamp(region, [0, 1], 1);
        // Jobs go to the two threads in turn: after these two the first one is next.
        await c.checkpoint();
        bytes[5]!++;
        await c.checkpoint();
        // Something like text, which takes zstd long at this level.
        const words = new Uint8Array(busy.buffer);
        for (let at = 0, state = 1; at < words.length; at += 7) {
          state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
          const word = Buffer.from(((((state >>> 8) % 4000) + 1) * 2654435761).toString(36));
          words.set(word.subarray(0, Math.min(7, words.length - at)), at);
        }
        const calls = [outcome(other.checkpoint())];
        // The second of these waits behind the busy one, and the third, in the other thread, for the second.
        for (let k = 0; k < 3; k++) {
          bytes[100 + k]!++;
          calls.push(outcome(c.checkpoint()));
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
        void codecs[0]!.terminate();
        const outcomes = await Promise.all(calls);
        await store.close();
        await engine.close();
        return outcomes;
      },
      folder(),
    );
    // Those that were through by then have succeeded.
    for (const outcome of outcomes) assert.match(outcome, /^(ok|TIDEMARK_STALLED)$/);
  });
});
