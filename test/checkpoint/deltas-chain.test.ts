import assert from 'node:assert/strict';
import { Kind } from '../../lib/chain/record.js';
import { type Checkpoint, Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { faultyEngine } from '../support/faulty-engine.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import {
  assertSame,
  bytesOf,
  copyOf,
  edit,
  hashOf,
  PAGE,
  range,
  restoredFresh,
  stamp,
  stored,
  withCheckpointer,
} from '../support/kit.js';
import { assertSound, logRecords } from '../support/log-files.js';

const PAGES = 32;

describe('a chain with deltas', () => {
  const folder = storeFolders();

  /** Takes a checkpoint of what is in memory, and notes it. */
  async function take(c: Checkpointer<'r'>, region: Region, models: Map<number, Uint8Array>): Promise<Checkpoint> {
    const model = copyOf(region);
    const taken = await c.checkpoint({ durability: 'relaxed' });
    models.set(taken.id, model);
    return taken;
  }

  it('of 300 checkpoints, with page tables of two levels, is read from whatever table it is', async () => {
    const path = folder();
    const region = Region.allocate(PAGES * PAGE);
    const models = new Map<number, Uint8Array>();
    let [deltas, full] = [0, 0];
    await withCheckpointer(path, { regions: { r: region } }, async (c) => {
      stamp(region, range(0, PAGES - 2), 1);
      await take(c, region, models);
      for (let k = 1; k <= 300; k++) {
        // Always, now and then with a table between, only once in a table of level 2, in the checkpoints that have tables and those beside them.
        const pages = [0, 1, 2 + (k % 5), 8 + (k % 17), ...(k % 40 === 0 ? [26] : []), ...(k % 16 < 2 ? [27] : [])];
        edit(region, pages, k);
        if (k % 100 === 99) edit(region, 28, k);
        if (k % 33 === 0) bytesOf(region).fill(0, 3 * PAGE, 4 * PAGE);
        if (k % 50 === 0) stamp(region, 4, k);
        const { r } = (await take(c, region, models)).regions;
        deltas += r!.deltaPages;
        full += r!.pages - r!.deltaPages;
      }
    });
    assert.ok(deltas > 1000 && full > 30 && full < 100, `${deltas} deltas, ${full} full pages`);
    assert.equal((await logRecords(path)).filter(({ kind }) => kind === Kind.table).length, 18);
    const store = await CheckpointStore.open(path);
    for (const [id, model] of models)
      if (id % 3 === 0 || id % 16 < 3) assertSame(await stored(store, id), model, `checkpoint ${id}`);
    // The tables are loaded: what is committed on them goes on with what they say.
    for (const id of [17, 257, 258, 272, 33]) {
      const fresh = Region.allocate(PAGES * PAGE);
      await store.fork(id, `from-${id}`);
      await withCheckpointer(store, { regions: { r: fresh }, branch: `from-${id}` }, async (c) => {
        await c.restore();
        assertSame(fresh, models.get(id)!, `restored ${id}`);
        for (let k = 0; k < 17; k++) {
          edit(fresh, [0, 26, 8 + (k % 17)], 1000 + k);
          await take(c, fresh, models);
        }
        await c.restore(id);
        assertSame(fresh, models.get(id)!, `back at ${id}`);
      });
      fresh.close();
    }
    for (let id = 302; id <= models.size; id += 4) assertSame(await stored(store, id), models.get(id)!, `checkpoint ${id}`);
    await store.close();
    await assertSound(path);
  });

  it('is read in single pages and in any range', async () => {
    const path = folder();
    const region = Region.allocate(PAGES * PAGE);
    const models = new Map<number, Uint8Array>();
    let count = 0;
    await withCheckpointer(path, { regions: { r: region } }, async (c) => {
      stamp(region, range(0, 20), 1);
      count += (await take(c, region, models)).regions.r!.pages;
      for (let k = 1; k < 8; k++) {
        edit(region, range(k, 10), k);
        bytesOf(region).fill(0, (20 - k) * PAGE, (21 - k) * PAGE);
        count += (await take(c, region, models)).regions.r!.pages;
      }
    });
    const store = await CheckpointStore.open(path);
    for (const [id, model] of models) {
      const snapshot = await store.at(id);
      for (const page of range(0, PAGES))
        assertSame(await snapshot.read('r', page * PAGE, PAGE), model.subarray(page * PAGE, (page + 1) * PAGE), `page ${page}`);
      for (const [at, length] of [
        [0, 1],
        [PAGE - 1, 2],
        [3 * PAGE + 400, 1],
        [3 * PAGE + 5, 9 * PAGE],
        [PAGES * PAGE - 5, 5],
        [7 * PAGE, 0],
      ] as const)
        assert.ok(
          Buffer.from(model.subarray(at, at + length)).equals(await snapshot.read('r', at, length)),
          `${length} bytes at ${at}`,
        );
      const pieces: Uint8Array[] = [];
      for await (const piece of snapshot.stream('r')) pieces.push(piece);
      assertSame(Buffer.concat(pieces), model);
      await snapshot.close();
    }
    const { problems, pages, readData } = await store.verify({ readData: true });
    assert.deepEqual([problems, readData], [[], true]);
    assert.equal(pages, count);
    assert.deepEqual((await store.verify({ readData: false })).problems, []);
    await store.close();
  });

  it('goes on in two branches, each with deltas on what both have', async () => {
    const path = folder();
    const store = await CheckpointStore.open(path, { createIfMissing: true });
    const [one, two] = [Region.allocate(PAGES * PAGE), Region.allocate(PAGES * PAGE)];
    const models = new Map<number, Uint8Array>();
    const main = await Checkpointer.open(store, { regions: { r: one } });
    stamp(one, range(0, 20), 1);
    await take(main, one, models);
    for (let k = 0; k < 3; k++) {
      edit(one, range(0, 10), k);
      await take(main, one, models);
    }
    await store.fork(3, 'other');
    const other = await Checkpointer.open(store, { regions: { r: two }, branch: 'other' });
    await other.restore();
    assertSame(two, models.get(3)!);
    for (let k = 10; k < 20; k++) {
      edit(one, range(0, 10), k);
      edit(two, range(5, 10), 50 + k);
      const both = await Promise.all([take(main, one, models), take(other, two, models)]);
      assert.deepEqual(
        both.map(({ regions }) => regions.r!.deltaPages),
        [10, 10],
      );
    }
    // From one branch to the other in place: what is common leads there.
    const target = (await store.find('other'))!.id;
    assert.equal((await main.restore(target)).stats().inPlace, true);
    assertSame(one, models.get(target)!);
    await main.restore('main');
    assertSame(one, models.get((await store.find('main'))!.id)!);
    for (const [id, model] of models) assertSame(await stored(store, id), model, `checkpoint ${id}`);
    await store.close();
    await assertSound(path);
  });

  it('survives the end of a process by kill -9, and goes on', async () => {
    const path = folder();
    const { hash, deltas } = await inChild(
      {},
      async ({ Checkpointer, Region, PAGE, stamp, edit, range, hashOf, crash }, path) => {
        const region = Region.allocate(64 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, range(0, 64), 1);
        await c.checkpoint();
        let deltas = 0;
        for (let k = 0; k < 20; k++) {
          edit(region, range(k, 30), k);
          deltas += (await c.checkpoint()).regions.r!.deltaPages;
        }
        return crash({ hash: hashOf(region), deltas });
      },
      path,
    );
    assert.equal(deltas, 600);
    assert.equal(hashOf(await restoredFresh(path)), hash);
    const region = Region.allocate(64 * PAGE);
    await withCheckpointer(path, { regions: { r: region } }, async (c) => {
      await c.restore();
      edit(region, range(0, 64), 30);
      assert.equal((await c.checkpoint()).regions.r!.deltaPages, 64);
    });
    assertSame(await restoredFresh(path), copyOf(region));
    await assertSound(path);
  });

  it('has no delta on a shadow that has changed: its page is stored full', async () => {
    const path = folder();
    // Before the third segment that is encoded.
    const engine = await faultyEngine('shadow.corrupt:3');
    const store = await CheckpointStore.open(path, { createIfMissing: true, engine });
    const region = Region.allocate(PAGES * PAGE);
    const models = new Map<number, Uint8Array>();
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      stamp(region, range(0, 20), 1);
      await take(c, region, models);
      const counts: number[][] = [];
      for (let k = 0; k < 3; k++) {
        edit(region, range(0, 10), k);
        // Written with what it held: that is not believed, either.
        bytesOf(region)[15 * PAGE]! = bytesOf(region)[15 * PAGE]!;
        const { pages, deltaPages, unchangedPages } = (await take(c, region, models)).regions.r!;
        counts.push([pages, deltaPages, unchangedPages]);
      }
      assert.deepEqual(counts, [
        [10, 10, 1],
        [11, 0, 0],
        [10, 10, 1],
      ]);
      // Those that were not written meanwhile.
      edit(region, range(0, 20), 9);
      assert.equal((await take(c, region, models)).regions.r!.deltaPages, 11);
    });
    for (const [id, model] of models) assertSame(await stored(store, id), model, `checkpoint ${id}`);
    await store.close();
    await engine.close();
    await assertSound(path);
  });
});
