import assert from 'node:assert/strict';
import { join } from 'node:path';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { code, makeStore, PAGE, withFolder } from './support.js';

describe('api: finding checkpoints', () => {
  it('an empty store lists nothing and finds nothing', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      const region = Region.allocate(PAGE);
      const checkpointer = await Checkpointer.open(path, { regions: { region } });
      assert.equal(checkpointer.head, undefined);
      assert.equal(checkpointer.base, undefined);
      for (const target of [undefined, 1, 'main', 'main~0', { back: 0 }])
        await assert.rejects(checkpointer.restore(target), code('TIDEMARK_NOT_FOUND'), String(target));
      assert.equal(await checkpointer.flush(), undefined);
      await checkpointer.close();
      region.close();
      const store = await CheckpointStore.open(path);
      for await (const _ of store.checkpoints()) assert.fail('nothing is there');
      assert.equal(await store.find('main'), undefined);
      await assert.rejects(store.at(1), code('TIDEMARK_NOT_FOUND'));
      assert.deepEqual(await store.verify(), { checkpoints: 0, extents: 0, pages: 0, bytes: 0, readData: true, problems: [] });
      await store.close();
    });
  });

  it('unknown ids, names, steps and uids are NOT_FOUND', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      await makeStore(path, 3);
      const region = Region.allocate(8 * PAGE);
      const store = await CheckpointStore.open(path);
      const checkpointer = await Checkpointer.open(store, { regions: { heap: region } });
      const unknown = [
        4,
        2 ** 53 - 1,
        '4',
        '0',
        '99999999',
        'five',
        'Main',
        'one~1',
        'main~3',
        'main~999999999',
        { branch: 'x' },
        { back: 3 },
        'deadbeef',
        'f'.repeat(32),
      ];
      for (const target of unknown) {
        assert.equal(await store.find(target), undefined, String(target));
        await assert.rejects(store.at(target), code('TIDEMARK_NOT_FOUND'), String(target));
        await assert.rejects(checkpointer.restore(target), code('TIDEMARK_NOT_FOUND'), String(target));
      }
      assert.equal(region.dirtyRanges().length, 0, 'the memory was not touched');
      assert.equal(checkpointer.base, undefined);
      await assert.rejects((await store.at(1)).read('stack', 0, 1), code('TIDEMARK_NOT_FOUND'));
      await assert.rejects((await store.at(1)).read('toString', 0, 1), code('TIDEMARK_NOT_FOUND'));
      await store.close();
      region.close();
    });
  });

  it('every kind of target finds its checkpoint', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      await makeStore(path, 3);
      const store = await CheckpointStore.open(path);
      const second = (await store.find(2))!;
      const found = [
        2,
        '2',
        'two',
        'two~0',
        'three~1',
        'main~1',
        { back: 1 },
        { branch: 'main', back: 1 },
        second.uid,
        second.uid.slice(0, 8),
      ];
      for (const target of found) assert.equal((await store.find(target))?.id, 2, String(target));
      assert.equal((await store.find(`${second.uid}~1`))?.id, 1);
      assert.equal((await store.find({}))?.id, 3);
      await store.close();
    });
  });

  it('lists by branch, time, order and number', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      const region = Region.allocate(PAGE);
      const store = await CheckpointStore.open(path, { createIfMissing: true });
      for (const branch of ['main', 'other']) {
        const checkpointer = await Checkpointer.open(store, { regions: { region }, branch });
        for (let k = 0; k < 300; k++) void checkpointer.checkpoint({ durability: 'relaxed' });
        await checkpointer.close();
      }
      const ids = async (options: Parameters<typeof store.checkpoints>[0]) => {
        const found: number[] = [];
        for await (const { id } of store.checkpoints(options)) found.push(id);
        return found;
      };
      const all = Array.from({ length: 600 }, (_, k) => k + 1);
      assert.deepEqual(await ids({}), all);
      assert.deepEqual(await ids({ reverse: true }), [...all].reverse());
      assert.deepEqual(await ids({ limit: 0 }), []);
      assert.deepEqual(await ids({ limit: 257 }), all.slice(0, 257));
      assert.deepEqual(await ids({ branch: 'other' }), all.slice(300));
      assert.deepEqual(await ids({ branch: 'other', limit: 3, reverse: true }), [600, 599, 598]);
      assert.deepEqual(await ids({ branch: 'main', reverse: true }), all.slice(0, 300).reverse());
      assert.deepEqual(await ids({ branch: 'none' }), []);
      const { createdAt } = (await store.find(350))!;
      const times = new Map<number, number>();
      for await (const { id, createdAt: at } of store.checkpoints()) times.set(id, at.getTime());
      const since = all.filter((id) => times.get(id)! >= createdAt.getTime());
      assert.deepEqual(await ids({ since: createdAt }), since);
      const until = all.filter((id) => times.get(id)! <= createdAt.getTime());
      assert.deepEqual(await ids({ until: createdAt }), until);
      await store.close();
      region.close();
    });
  });
});
