import assert from 'node:assert/strict';
import { Checkpointer, CheckpointStore, Engine, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, copyOf, PAGE, range, stamp, withCheckpointer } from '../support/kit.js';
import { damageExtent } from '../support/log-files.js';

const PAGES = 1024;

/** The head is a checkpoint of 700 pages in three extents, then one of 3 pages. */
async function makeStore(path: string): Promise<{ region: Region; models: Uint8Array[] }> {
  const region = Region.allocate(PAGES * PAGE);
  const models: Uint8Array[] = [];
  // One codec thread: extents in the order of their pages.
  const engine = new Engine({ workers: 1 });
  await withCheckpointer(path, { regions: { r: region }, engine }, async (c) => {
    stamp(region, range(0, 700), 1);
    await c.checkpoint();
    models.push(copyOf(region));
    stamp(region, [1, 300, 699], 2);
    await c.checkpoint();
    models.push(copyOf(region));
  });
  await engine.close();
  return { region, models };
}

describe('a restore from a store with a damaged extent', () => {
  const folder = storeFolders();

  it('leaves memory that held something else as it was', async () => {
    const path = folder();
    const { models } = await makeStore(path);
    await damageExtent(path, 2);
    const region = Region.allocate(PAGES * PAGE);
    stamp(region, range(100, 800), 9);
    const before = copyOf(region);
    await withCheckpointer(path, { regions: { r: region } }, async (c) => {
      for (const target of [undefined, 1, 2]) {
        await assert.rejects(c.restore(target), { code: 'TIDEMARK_DAMAGED' });
        assertSame(region, before);
      }
      assert.equal(c.base, undefined);
      await assert.rejects(c.checkpoint(), { code: 'TIDEMARK_NOT_RESTORED' });
    });
    // Nothing of it counts as clean now.
    const other = folder();
    await withCheckpointer(other, { regions: { r: region } }, async (c) => {
      assert.equal((await c.checkpoint()).regions.r!.pages, 800);
    });
    assert.notDeepEqual(before, models[1]);
  });

  it('leaves memory that descends from it as it was, and its next checkpoint is exact', async () => {
    const path = folder();
    const { region } = await makeStore(path);
    // Of checkpoint 1: pages 256 to 511.
    await damageExtent(path, 1);
    stamp(region, [5, 1000], 3);
    const before = copyOf(region);
    const store = await CheckpointStore.open(path);
    const c = await Checkpointer.open(store, { regions: { r: region } });
    assert.equal(c.base?.id, 2);
    // Going back needs page 300 as it was in 1.
    await assert.rejects(c.restore(1), { code: 'TIDEMARK_DAMAGED' });
    assertSame(region, before);
    assert.equal(c.base?.id, 2);
    stamp(region, 6, 3);
    const next = await c.checkpoint();
    assert.deepEqual([next.kind, next.parent, next.regions.r!.pages], ['incremental', 2, 3]);
    // What the damage does not touch can be had: pages 5, 6 and 1000.
    assert.equal((await c.restore(2)).stats().inPlace, true);
    await c.close();
    await store.close();
  });

  it('leaves fresh memory empty, and it can be used', async () => {
    const path = folder();
    await makeStore(path);
    await damageExtent(path, 2);
    const region = Region.allocate(PAGES * PAGE);
    await withCheckpointer(path, { regions: { r: region }, startOver: true }, async (c) => {
      await assert.rejects(c.restore(), { code: 'TIDEMARK_DAMAGED' });
      assertSame(region, new Uint8Array(PAGES * PAGE));
      stamp(region, [1, 2], 5);
      const { kind, regions } = await c.checkpoint();
      assert.deepEqual([kind, regions.r!.pages], ['full', 2]);
    });
  });

  it('reads what is not damaged, and never other bytes', async () => {
    const path = folder();
    const { models } = await makeStore(path);
    await damageExtent(path, 1);
    const store = await CheckpointStore.open(path);
    const snapshot = await store.at(1);
    const bytes = await snapshot.read('r', 0, 256 * PAGE);
    assertSame(bytes, models[0]!.subarray(0, 256 * PAGE));
    await assert.rejects(snapshot.read('r', 400 * PAGE, 10), { code: 'TIDEMARK_DAMAGED' });
    await snapshot.close();
    const { problems } = await store.verify();
    assert.deepEqual(
      problems.map(({ code, checkpoint, pages }) => [code, checkpoint, pages]),
      [['TIDEMARK_DAMAGED', 1, [256, 256]]],
    );
    await store.close();
  });
});
