import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';

describe('a checkpointer and the life of its process', () => {
  const folder = storeFolders();

  it('an open one that has nothing to do does not keep the process alive', async () => {
    const result = await inChild(
      {},
      async ({ Checkpointer, Region, PAGE }, path) => {
        const c = await Checkpointer.open(path, { regions: { r: Region.allocate(PAGE) } });
        await c.checkpoint();
        await c.restore();
        // Neither closed nor exited.
        return c.head?.id;
      },
      folder(),
    );
    assert.equal(result, 1);
  });

  it('nor do an open store and a snapshot, read or not, and an engine', async () => {
    const result = await inChild(
      { limitMs: 8000 },
      async ({ Checkpointer, CheckpointStore, Engine, Region, PAGE, stamp }, path) => {
        const region = Region.allocate(64 * PAGE);
        const engine = new Engine();
        const store = await CheckpointStore.open(path, { createIfMissing: true, engine });
        const c = await Checkpointer.open(store, { regions: { r: region } });
        stamp(region, 1, 1);
        await c.precopy();
        await c.checkpoint({ attachments: { a: new Uint8Array(5) } });
        const [read] = [await store.at(1), await store.at('main')];
        // A stream that nobody reads to its end, a list too.
        for await (const _ of read.stream('r')) break;
        for await (const _ of store.checkpoints()) break;
        // And what was taken ahead of a checkpoint that never comes.
        stamp(region, 2, 2);
        await c.precopy();
        return (await read.attachment('a')).length;
      },
      folder(),
    );
    assert.equal(result, 5);
  });

  it('work in flight does: what a store and a snapshot are asked, and a precopy', async () => {
    const path = folder();
    const calls = ['precopy', 'find', 'at', 'verify', 'read', 'attachment', 'restored', 'store'] as const;
    for (const name of calls) {
      const done = await inChild<[string, string], unknown>(
        {},
        async ({ Checkpointer, CheckpointStore, Region, PAGE, stamp, range, report }, path, name) => {
          const region = Region.allocate(2048 * PAGE);
          const store = await CheckpointStore.open(path, { createIfMissing: true });
          const c = await Checkpointer.open(store, { regions: { r: region }, startOver: true });
          stamp(region, range(0, 2048), 1);
          await c.checkpoint({ attachments: { a: new Uint8Array(1 << 20) } });
          const snapshot = await store.at('main');
          const restored = await c.restore();
          stamp(region, range(0, 2048), 2);
          const asked: Record<string, () => Promise<unknown>> = {
            precopy: () => c.precopy(),
            find: () => store.find(1),
            at: () => store.at(1),
            verify: () => store.verify(),
            read: () => snapshot.read('r', 0, 2048 * PAGE),
            attachment: () => snapshot.attachment('a'),
            restored: () => restored.attachment('a'),
            store: () => store.close(),
          };
          asked[name]!().then(() => report(name));
        },
        path,
        name,
      );
      assert.equal(done, name);
    }
  });

  it('work in flight does: a checkpoint, a flush, a restore, a close', async () => {
    const path = folder();
    const checkpointed = await inChild<[string], unknown>(
      {},
      async ({ Checkpointer, Region, PAGE, stamp, range, report }, path) => {
        const region = Region.allocate(8192 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, range(0, 8192), 1);
        c.checkpoint().then(({ regions }) => report(regions.r!.pages));
      },
      path,
    );
    assert.equal(checkpointed, 8192);
    const restored = await inChild<[string], unknown>(
      {},
      async ({ Checkpointer, Region, PAGE, report }, path) => {
        const region = Region.allocate(8192 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        c.restore().then(({ stats }) => report(stats().filledPages));
      },
      path,
    );
    assert.equal(restored, 8192);
    for (const method of ['flush', 'close'] as const) {
      const done = await inChild<[string, 'flush' | 'close'], unknown>(
        {},
        async ({ Checkpointer, Region, PAGE, report }, path, method) => {
          const c = await Checkpointer.open(path, { regions: { r: Region.allocate(8192 * PAGE) } });
          c[method]().then(() => report('done'));
        },
        path,
        method,
      );
      assert.equal(done, 'done');
    }
  });

  it('no rejection is unhandled when the caller handles every promise once', async () => {
    const outcomes = await inChild(
      { flags: ['--unhandled-rejections=strict'], faults: 'log.write:2:2,capture.copy:6' },
      async ({ Checkpointer, CheckpointStore, Region, PAGE, stamp, outcome }, path) => {
        const region = Region.allocate(64 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        const seen: string[] = [];
        const wait = () => new Promise((resolve) => setTimeout(resolve, 30));
        const see = async (...calls: Promise<unknown>[]) => {
          const settled = await Promise.all(calls.map(outcome));
          seen.push(settled.join(' '));
          await wait();
        };
        const dirty = () => {
          stamp(region, [1, 2], seen.length);
          return c.checkpoint();
        };
        await see(dirty());
        await see(dirty(), dirty(), dirty());
        await see(dirty(), dirty());
        await see(c.restore(77), c.restore(1), c.checkpoint(), c.checkpoint({ bogus: 1 } as never), c.flush());
        await see(Checkpointer.open(path, { regions: { r: region } }), CheckpointStore.open(path));
        await see(dirty(), c.close(), c.checkpoint(), c.restore());
        return seen;
      },
      folder(),
    );
    assert.deepEqual(outcomes[0], 'ok');
    assert.match(outcomes[1]!, /^TIDEMARK_WRITE_FAILED TIDEMARK_WRITE_FAILED TIDEMARK_WRITE_FAILED$/);
    assert.match(outcomes[3]!, /^TIDEMARK_NOT_FOUND ok TIDEMARK_REGION_BUSY TypeError ok$/);
    assert.match(outcomes[4]!, /^TIDEMARK_REGION_BUSY TIDEMARK_STORE_LOCKED$/);
    assert.match(outcomes[5]!, /ok TIDEMARK_CLOSED TIDEMARK_CLOSED$/);
  });

  it('a rejection that the caller does not handle is not swallowed', async () => {
    await assert.rejects(
      inChild(
        { flags: ['--unhandled-rejections=strict'] },
        async ({ Checkpointer, Region, PAGE }, path) => {
          const c = await Checkpointer.open(path, { regions: { r: Region.allocate(PAGE) } });
          c.checkpoint({ bogus: 1 } as never);
          await new Promise((resolve) => setTimeout(resolve, 200));
          return 'alive';
        },
        folder(),
      ),
      /unknown|bogus/,
    );
  });
});
