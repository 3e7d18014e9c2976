import assert from 'node:assert/strict';
import { join } from 'node:path';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { code, makeStore, PAGE, withCheckpointer, withFolder } from './support.js';

describe('api: what does not fit is refused', () => {
  it('regions of another size, missing and extra ones', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      await makeStore(path, 1);
      const store = await CheckpointStore.open(path);
      const tries: [string, Record<string, Region>][] = [
        ['smaller', { heap: Region.allocate(7 * PAGE) }],
        ['larger', { heap: Region.allocate(9 * PAGE) }],
        ['another name', { stack: Region.allocate(8 * PAGE) }],
        ['one more', { heap: Region.allocate(8 * PAGE), more: Region.allocate(PAGE) }],
      ];
      for (const [what, regions] of tries) {
        const checkpointer = await Checkpointer.open(store, { regions });
        await assert.rejects(checkpointer.restore(), code('TIDEMARK_REGION_MISMATCH'), what);
        assert.equal(checkpointer.base, undefined);
        await assert.rejects(checkpointer.checkpoint(), code('TIDEMARK_NOT_RESTORED'), what);
        await checkpointer.close();
        for (const region of Object.values(regions)) {
          assert.ok(new Uint8Array(region.buffer).every((byte) => byte === 0));
          region.close();
        }
      }
      await store.close();
    });
  });

  it('memory that does not descend from the branch, unless it is to start over', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      await makeStore(path, 2);
      const heap = Region.allocate(8 * PAGE);
      const careful = await Checkpointer.open(path, { regions: { heap } });
      await assert.rejects(careful.checkpoint(), code('TIDEMARK_NOT_RESTORED'));
      await careful.close();
      const bold = await Checkpointer.open(path, { regions: { heap }, startOver: true });
      const taken = await bold.checkpoint();
      assert.deepEqual([taken.id, taken.kind, taken.parent], [3, 'full', null]);
      assert.equal((await bold.checkpoint()).parent, 3);
      await bold.close();
      heap.close();
    });
  });

  it('regions that are fewer than those the memory descends from', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      const [a, b] = [Region.allocate(PAGE), Region.allocate(PAGE)];
      for (const [value, region] of [a, b].entries()) new Uint8Array(region.buffer)[0] = value + 1;
      const both = await Checkpointer.open(path, { regions: { a, b } });
      await both.checkpoint();
      await both.close();
      // Whatever is said of it: nothing may be acknowledged that cannot be read.
      const taken = await Checkpointer.open(path, { regions: { a } }).then(
        async (one) => {
          new Uint8Array(a.buffer)[0] = 9;
          const id = await one.checkpoint().then(
            (checkpoint) => checkpoint.id,
            (error) => void code('TIDEMARK_REGION_MISMATCH', 'TIDEMARK_NOT_RESTORED')(error),
          );
          await one.close();
          return id;
        },
        (error) => void code('TIDEMARK_REGION_MISMATCH')(error),
      );
      const store = await CheckpointStore.open(path);
      if (taken !== undefined) assert.equal((await (await store.at(taken)).read('a', 0, 1))[0], 9);
      assert.deepEqual((await store.verify()).problems, []);
      await store.close();
      a.close();
      b.close();
    });
  });

  it('a program with another fingerprint', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      await makeStore(path, 1, { fingerprint: 'v1' });
      const heap = Region.allocate(8 * PAGE);
      const other = await Checkpointer.open(path, { regions: { heap }, fingerprint: 'v2' });
      await assert.rejects(other.restore(), code('TIDEMARK_FINGERPRINT'));
      assert.equal(new Uint8Array(heap.buffer)[0], 0);
      await other.close();
      for (const options of [{ fingerprint: 'v1' }, {}]) {
        const same = await Checkpointer.open(path, { regions: { heap }, ...options });
        const { checkpoint } = await same.restore();
        assert.equal(checkpoint.fingerprint, 'v1');
        await same.close();
      }
      heap.close();
      const plain = join(folder, 'plain');
      await makeStore(plain, 1);
      const region = Region.allocate(8 * PAGE);
      const strict = await Checkpointer.open(plain, { regions: { heap: region }, fingerprint: 'v1' });
      await assert.rejects(strict.restore(), code('TIDEMARK_FINGERPRINT'));
      await strict.close();
      region.close();
    });
  });

  it('a label that is taken, and what was captured is in the next checkpoint', async () => {
    await withCheckpointer(async ({ checkpointer, region }) => {
      const bytes = new Uint8Array(region.buffer);
      await checkpointer.checkpoint({ label: 'once' });
      bytes[PAGE] = 5;
      await assert.rejects(checkpointer.checkpoint({ label: 'once' }), code('TIDEMARK_NAME_TAKEN'));
      await assert.rejects(checkpointer.checkpoint({ label: 'main' }), code('TIDEMARK_NAME_TAKEN'));
      const taken = await checkpointer.checkpoint({ label: 'twice' });
      assert.deepEqual([taken.id, taken.parent, taken.regions.heap!.pages], [2, 1, 1]);
      bytes[2 * PAGE] = 5;
      const pair = await Promise.allSettled([
        checkpointer.checkpoint({ label: 'pair' }),
        checkpointer.checkpoint({ label: 'pair' }),
      ]);
      assert.equal(pair[0].status, 'fulfilled');
      assert.equal(pair[1].status, 'rejected');
    });
  });

  it('a label that is the name of a branch before its first checkpoint', async () => {
    await withCheckpointer(async ({ checkpointer }) => {
      await assert.rejects(checkpointer.checkpoint({ label: 'main' }), code('TIDEMARK_NAME_TAKEN'));
      assert.equal((await checkpointer.checkpoint()).branch, 'main');
    });
    await withFolder(async (folder) => {
      const store = await CheckpointStore.open(join(folder, 'store'), { createIfMissing: true });
      const [a, b] = [Region.allocate(PAGE), Region.allocate(PAGE)];
      const first = await Checkpointer.open(store, { regions: { a }, branch: 'first' });
      const second = await Checkpointer.open(store, { regions: { b }, branch: 'second' });
      await Promise.allSettled([first.checkpoint(), second.checkpoint({ label: 'first' })]);
      await Promise.all([first.close(), second.close()]);
      for (const branch of ['first', 'second']) await (await Checkpointer.open(store, { regions: { a }, branch })).close();
      await store.close();
      a.close();
      b.close();
    });
  });

  it('a branch that has the name of a label', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      await makeStore(path, 1);
      const heap = Region.allocate(8 * PAGE);
      await assert.rejects(Checkpointer.open(path, { regions: { heap }, branch: 'one' }), code('TIDEMARK_NAME_TAKEN'));
      const good = await Checkpointer.open(path, { regions: { heap } });
      await good.close();
      heap.close();
    });
  });

  it('a checkpoint while a restore is running', async () => {
    await withCheckpointer(async ({ checkpointer }) => {
      await checkpointer.checkpoint();
      const restoring = checkpointer.restore();
      await assert.rejects(checkpointer.checkpoint(), code('TIDEMARK_REGION_BUSY'));
      await restoring;
      assert.equal((await checkpointer.checkpoint()).id, 2);
    });
  });

  it('lengths beyond a region that is a part of its memory', async () => {
    await withFolder(async (folder) => {
      const source = Region.allocate(8 * PAGE);
      const { buffer } = source;
      source.close();
      const heap = Region.of(new Uint8Array(buffer, PAGE, 2 * PAGE));
      const checkpointer = await Checkpointer.open(join(folder, 'store'), { regions: { heap } });
      await assert.rejects(checkpointer.checkpoint({ lengths: { heap: 2 * PAGE + 1 } }), RangeError);
      assert.equal((await checkpointer.checkpoint({ lengths: { heap: 2 * PAGE } })).regions.heap!.length, 2 * PAGE);
      await checkpointer.close();
      heap.close();
    });
  });
});
