import assert from 'node:assert/strict';
import { type Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assertSame, copyOf, PAGE, range, restoredFresh, stamp, stored, withCheckpointer } from '../support/kit.js';

const PAGES = 64;
/** Head and base, by id. */
const ends = ({ head, base }: Checkpointer) => [head?.id, base?.id];

describe('what a checkpoint builds on', () => {
  const folder = storeFolders();

  it('memory that was not restored is not put in place of a chain', async () => {
    const path = folder();
    const first = Region.allocate(PAGES * PAGE);
    stamp(first, 1, 1);
    await withCheckpointer(path, { regions: { r: first } }, (c) => c.checkpoint());
    const other = Region.allocate(PAGES * PAGE);
    stamp(other, 2, 2);
    await withCheckpointer(path, { regions: { r: other } }, async (c) => {
      assert.deepEqual(ends(c), [1, undefined]);
      await assert.rejects(c.checkpoint(), { code: 'TIDEMARK_NOT_RESTORED' });
      await assert.rejects(c.checkpoint(), { code: 'TIDEMARK_NOT_RESTORED' });
      assert.deepEqual(ends(c), [1, undefined]);
      await c.restore();
      assert.deepEqual(ends(c), [1, 1]);
      stamp(other, 3, 3);
      const next = await c.checkpoint();
      assert.deepEqual([next.kind, next.parent, next.regions.r!.pages], ['incremental', 1, 1]);
      assert.deepEqual(ends(c), [2, 2]);
    });
    stamp(first, 3, 3);
    assertSame(await restoredFresh(path), copyOf(first));
  });

  it('startOver allows a full checkpoint, and the one after it is incremental to that', async () => {
    const path = folder();
    await withCheckpointer(path, { regions: { r: Region.allocate(PAGES * PAGE) } }, (c) => c.checkpoint());
    const region = Region.allocate(PAGES * PAGE);
    stamp(region, [5, 6], 1);
    await withCheckpointer(path, { regions: { r: region }, startOver: true }, async (c) => {
      const full = await c.checkpoint();
      assert.deepEqual([full.kind, full.parent, full.regions.r!.pages], ['full', null, 2]);
      stamp(region, 7, 1);
      const next = await c.checkpoint();
      assert.deepEqual([next.kind, next.parent, next.regions.r!.pages], ['incremental', full.id, 1]);
    });
    assertSame(await restoredFresh(path), copyOf(region));
  });

  it('after going back the next checkpoint has the older one as its parent; the head moves only then', async () => {
    const path = folder();
    const store = await CheckpointStore.open(path, { createIfMissing: true });
    const region = Region.allocate(PAGES * PAGE);
    const models: Uint8Array[] = [];
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      for (const k of [1, 2, 3]) {
        stamp(region, [k, 10], k);
        models.push(copyOf(region));
        await c.checkpoint();
      }
      await c.restore(1);
      assertSame(region, models[0]!);
      assert.deepEqual(ends(c), [3, 1]);
      assert.equal((await store.find('main'))?.id, 3);
      stamp(region, 20, 4);
      models.push(copyOf(region));
      const fork = await c.checkpoint();
      assert.deepEqual([fork.id, fork.parent, fork.kind, fork.regions.r!.pages], [4, 1, 'incremental', 1]);
      assert.deepEqual(ends(c), [4, 4]);
      assert.equal((await store.find('main'))?.id, 4);
    });
    for (const [k, model] of models.entries()) assertSame(await stored(store, k + 1), model, `checkpoint ${k + 1}`);
    await store.close();
    assertSame(await restoredFresh(path), models[3]!);
  });

  it('a crash after going back, before the next checkpoint, comes up at the old head', async () => {
    const path = folder();
    const states = await inChild(
      {},
      async ({ Checkpointer, Region, PAGE, stamp, hashOf, crash }, path) => {
        const region = Region.allocate(64 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, 1, 1);
        const first = hashOf(region);
        await c.checkpoint();
        stamp(region, 1, 2);
        await c.checkpoint();
        await c.restore(1);
        return crash({ restored: hashOf(region) === first, head: c.head?.id, base: c.base?.id });
      },
      path,
    );
    assert.deepEqual(states, { restored: true, head: 2, base: 1 });
    const region = Region.allocate(PAGES * PAGE);
    const model = new Uint8Array(PAGES * PAGE);
    stamp(model, 1, 2);
    await withCheckpointer(path, { regions: { r: region } }, async (c) => {
      assert.equal(c.head?.id, 2);
      assert.equal((await c.restore()).checkpoint.id, 2);
    });
    assertSame(region, model);
  });

  it('a checkpointer opened again on the same memory goes on where it was', async () => {
    const path = folder();
    const region = Region.allocate(PAGES * PAGE);
    stamp(region, range(0, PAGES), 1);
    await withCheckpointer(path, { regions: { r: region } }, (c) => c.checkpoint());
    // Written while nobody watches but the kernel.
    stamp(region, [8, 9], 2);
    await withCheckpointer(path, { regions: { r: region } }, async (c) => {
      assert.deepEqual(ends(c), [1, 1]);
      stamp(region, 10, 2);
      const next = await c.checkpoint();
      assert.deepEqual([next.kind, next.parent, next.regions.r!.pages], ['incremental', 1, 3]);
    });
    assertSame(await restoredFresh(path), copyOf(region));
  });

  it('takeDirtyRanges() in between takes away what it builds on', async () => {
    const path = folder();
    const region = Region.allocate(PAGES * PAGE);
    await withCheckpointer(path, { regions: { r: region } }, async (c) => {
      await c.checkpoint();
      assert.throws(() => region.takeDirtyRanges(), { code: 'TIDEMARK_REGION_BUSY' });
    });
    stamp(region, [8, 9], 2);
    assert.deepEqual([...region.dirtyRanges()], [8, 2]);
    assert.deepEqual([...region.takeDirtyRanges()], [8, 2]);
    await withCheckpointer(path, { regions: { r: region } }, async (c) => {
      assert.equal(c.base, undefined);
      await assert.rejects(c.checkpoint(), { code: 'TIDEMARK_NOT_RESTORED' });
    });
    const model = copyOf(region);
    await withCheckpointer(path, { regions: { r: region }, startOver: true }, async (c) => {
      assert.equal((await c.checkpoint()).kind, 'full');
    });
    assertSame(await restoredFresh(path), model);
  });

  it('memory that descends from one store, or has another name now, is not incremental elsewhere', async () => {
    const region = Region.allocate(PAGES * PAGE);
    stamp(region, 1, 1);
    const path = folder();
    await withCheckpointer(path, { regions: { r: region } }, (c) => c.checkpoint());
    const elsewhere = folder();
    await withCheckpointer(elsewhere, { regions: { r: region } }, async (c) => {
      assert.equal(c.base, undefined);
      const { kind, parent, regions } = await c.checkpoint();
      assert.deepEqual([kind, parent, regions.r!.pages], ['full', null, 1]);
    });
    await withCheckpointer(elsewhere, { regions: { renamed: region } }, async (c) => {
      assert.equal(c.base, undefined);
      await assert.rejects(c.checkpoint(), { code: 'TIDEMARK_NOT_RESTORED' });
    });
    // It descends from the other store now, and the dirty pages of the first are not known any more.
    await withCheckpointer(path, { regions: { r: region } }, async (c) => assert.equal(c.base, undefined));
  });

  it('two regions that have exchanged their names do not go on where they were', async () => {
    const path = folder();
    const [a, b] = [Region.allocate(PAGES * PAGE), Region.allocate(PAGES * PAGE)];
    stamp(a, 1, 1);
    stamp(b, 2, 2);
    await withCheckpointer(path, { regions: { a, b } }, (c) => c.checkpoint());
    await withCheckpointer(path, { regions: { a: b, b: a } }, async (c) => {
      assert.deepEqual(ends(c), [1, undefined]);
      await assert.rejects(c.checkpoint(), { code: 'TIDEMARK_NOT_RESTORED' });
    });
    await withCheckpointer(path, { regions: { a, b } }, async (c) => assert.deepEqual(ends(c), [1, 1]));
  });

  it('another branch of the same store may build on what this branch has', async () => {
    const path = folder();
    const region = Region.allocate(PAGES * PAGE);
    stamp(region, range(0, PAGES), 1);
    await withCheckpointer(path, { regions: { r: region } }, (c) => c.checkpoint());
    stamp(region, 3, 2);
    await withCheckpointer(path, { regions: { r: region }, branch: 'side' }, async (c) => {
      assert.deepEqual([c.head, c.base?.id], [undefined, 1]);
      const next = await c.checkpoint();
      assert.deepEqual([next.branch, next.kind, next.parent, next.regions.r!.pages], ['side', 'incremental', 1, 1]);
    });
    assertSame(await restoredFresh(path, 'side'), copyOf(region));
    await withCheckpointer(path, { regions: { r: Region.allocate(PAGES * PAGE) } }, async (c) => assert.equal(c.head?.id, 1));
  });
});
