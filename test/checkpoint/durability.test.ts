import assert from 'node:assert/strict';
import { type Checkpoint, Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { PAGE, stamp, withCheckpointer } from '../support/kit.js';

type Durability = 'sync' | 'relaxed';

/** What `find()` and `checkpoints()` say of each checkpoint, by id. */
async function durables(store: CheckpointStore): Promise<Record<number, boolean>> {
  const listed: Record<number, boolean> = {};
  for await (const { id, durable } of store.checkpoints()) listed[id] = durable;
  for (const [id, durable] of Object.entries(listed))
    assert.equal((await store.find(Number(id)))?.durable, durable, `find(${id})`);
  return listed;
}

const all = (count: number, durable: boolean): Record<number, boolean> =>
  Object.fromEntries(Array.from({ length: count }, (_, k) => [k + 1, durable]));

describe('durability', () => {
  const folder = storeFolders();
  let store: CheckpointStore;
  let path: string;
  beforeEach(async () => {
    path = folder();
    store = await CheckpointStore.open(path, { createIfMissing: true });
  });
  afterEach(() => store.close());

  /** A checkpointer of four pages, and a function that writes to them and takes a checkpoint. */
  async function open(branch: string, durability?: Durability) {
    const region = Region.allocate(4 * PAGE);
    const options = { regions: { r: region }, branch, ...(durability === undefined ? {} : { durability }) };
    const checkpointer = await Checkpointer.open(store, options);
    let value = 0;
    const take = (asked?: Durability): Promise<Checkpoint> => {
      stamp(region, value % 4, ++value);
      return checkpointer.checkpoint(asked === undefined ? {} : { durability: asked });
    };
    return { checkpointer, take, close: () => checkpointer.close() };
  }

  for (const own of [undefined, 'sync', 'relaxed'] as const)
    for (const asked of [undefined, 'sync', 'relaxed'] as const) {
      const expected = (asked ?? own ?? 'sync') === 'sync';
      it(`checkpointer ${own ?? 'by default'}, checkpoint ${asked ?? 'by default'}: ${expected ? 'durable' : 'not yet'}`, async () => {
        const { checkpointer, take, close } = await open('main', own);
        for (let k = 1; k <= 2; k++) {
          const { id, durable } = await take(asked);
          assert.deepEqual([id, durable], [k, expected]);
          assert.equal(checkpointer.head?.durable, expected);
          assert.equal(checkpointer.base?.durable, expected);
        }
        assert.deepEqual(await durables(store), all(2, expected));
        await close();
      });
    }

  it('a synced commit makes the relaxed past durable, on every branch; what comes after it is not', async () => {
    const a = await open('a', 'relaxed');
    const b = await open('b', 'relaxed');
    await a.take();
    await b.take();
    await a.take();
    assert.deepEqual(await durables(store), all(3, false));
    assert.equal((await b.take('sync')).durable, true);
    assert.deepEqual(await durables(store), all(4, true));
    assert.equal((await a.take()).durable, false);
    assert.deepEqual(await durables(store), { ...all(4, true), 5: false });
    await a.close();
    await b.close();
  });

  it('flush makes everything committed durable, and head, base and what it returns say so', async () => {
    const a = await open('a', 'relaxed');
    const b = await open('b', 'relaxed');
    assert.equal(await a.checkpointer.flush(), undefined);
    await a.take();
    await b.take();
    const newest = await a.checkpointer.flush();
    assert.deepEqual([newest?.id, newest?.durable], [1, true]);
    assert.deepEqual(a.checkpointer.head, newest);
    assert.deepEqual(a.checkpointer.base, newest);
    assert.deepEqual(await durables(store), all(2, true));
    await b.take();
    assert.deepEqual(await durables(store), { ...all(2, true), 3: false });
    // Again with nothing to do for this branch.
    assert.equal((await a.checkpointer.flush())?.id, 1);
    assert.deepEqual(await durables(store), all(3, true));
    await a.close();
    await b.close();
  });

  it('flush waits for what was called before it, and covers that', async () => {
    const { checkpointer, take, close } = await open('main', 'relaxed');
    const taken = [take(), take(), take()];
    const newest = await checkpointer.flush();
    assert.deepEqual([newest?.id, newest?.durable], [3, true]);
    assert.deepEqual(
      (await Promise.all(taken)).map(({ id }) => id),
      [1, 2, 3],
    );
    assert.deepEqual(await durables(store), all(3, true));
    await close();
  });

  it('any mix in flight at once: what was asked for synced is durable, with everything before it', async () => {
    const branches = await Promise.all([open('a', 'relaxed'), open('b', 'sync'), open('c')]);
    let durableThrough = 0;
    const taken: Promise<void>[] = [];
    for (let k = 0; k < 60; k++) {
      const asked = ([undefined, 'sync', 'relaxed'] as const)[(k * 7) % 3];
      const which = (k * 5) % 3;
      const sync = (asked ?? (which === 0 ? 'relaxed' : 'sync')) === 'sync';
      taken.push(
        branches[which]!.take(asked).then(({ id, durable }) => {
          assert.ok(durable || !sync, `checkpoint ${id} was to be durable`);
          if (durable) durableThrough = Math.max(durableThrough, id);
        }),
      );
    }
    await Promise.all(taken);
    const said = await durables(store);
    assert.equal(Object.keys(said).length, 60);
    assert.ok(durableThrough > 0);
    for (const [id, durable] of Object.entries(said)) assert.equal(durable, Number(id) <= durableThrough, `checkpoint ${id}`);
    for (const { close } of branches) await close();
  });

  it('ifChanged with nothing changed: the newest, as durable as was asked for', async () => {
    const { checkpointer, take, close } = await open('main', 'relaxed');
    await take();
    const relaxed = await checkpointer.checkpoint({ ifChanged: true });
    assert.deepEqual([relaxed.id, relaxed.durable], [1, false]);
    const synced = await checkpointer.checkpoint({ ifChanged: true, durability: 'sync' });
    assert.deepEqual([synced.id, synced.durable], [1, true]);
    assert.equal(checkpointer.head?.durable, true);
    assert.deepEqual(await durables(store), { 1: true });
    const both = [take(), checkpointer.checkpoint({ ifChanged: true, durability: 'sync' })];
    assert.deepEqual(
      (await Promise.all(both)).map(({ id }) => id),
      [2, 2],
    );
    assert.deepEqual(await durables(store), { 1: true, 2: true });
    await close();
  });

  it('what a store holds when it is opened is durable', async () => {
    const { take, close } = await open('main', 'relaxed');
    await take();
    await take();
    assert.deepEqual(await durables(store), all(2, false));
    await close();
    await store.close();
    store = await CheckpointStore.open(path);
    assert.deepEqual(await durables(store), all(2, true));
    await withCheckpointer(store, { regions: { r: Region.allocate(4 * PAGE) } }, async (c) => {
      assert.equal(c.head?.durable, true);
      assert.equal((await c.restore()).checkpoint.durable, true);
    });
  });
});
