import assert from 'node:assert/strict';
import { join } from 'node:path';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { outcome } from '../support/kit.js';
import { code, makeStore, PAGE, withCheckpointer, withFolder } from './support.js';

describe('api: what a call is given', () => {
  it('takes metadata in the call, and gives it back', async () => {
    await withCheckpointer(async ({ checkpointer }) => {
      for (const metadata of [null, 0, '', 'ä\u0000\ud800', [1, [2]], { a: { b: null }, __proto__x: 1 }, true]) {
        const taken = await checkpointer.checkpoint({ metadata });
        assert.deepEqual(taken.metadata, JSON.parse(JSON.stringify(metadata)));
      }
      const mine = { list: [1] };
      const promise = checkpointer.checkpoint({ metadata: mine });
      mine.list.push(2);
      assert.deepEqual((await promise).metadata, { list: [1] });
    });
  });

  it('takes targets and options of a restore in the call', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      await makeStore(path, 3);
      const region = Region.allocate(8 * PAGE);
      const checkpointer = await Checkpointer.open<string>(path, { regions: { heap: region } });
      await checkpointer.restore();
      const target = { branch: 'two' };
      const regions = ['heap'];
      const options = { regions };
      // Its turn comes when this one is done.
      const before = checkpointer.restore(1);
      const restoring = checkpointer.restore(target, options);
      target.branch = 'three';
      regions[0] = 'stack';
      Object.assign(options, { regions: [], lazy: true });
      await before;
      assert.equal((await restoring).checkpoint.label, 'two');
      assert.equal(new Uint8Array(region.buffer)[0], 2);
      await checkpointer.close();
      region.close();
    });
  });

  it('a restore that is misuse does not end the precopy that is under way', async () => {
    await withCheckpointer(async ({ checkpointer, region }) => {
      new Uint8Array(region.buffer).fill(1);
      const precopy = checkpointer.precopy();
      assert.equal(await outcome(checkpointer.restore(null as never)), 'TypeError');
      await precopy;
      assert.equal(region.dirtyRanges().length, 0);
      assert.equal((await checkpointer.checkpoint()).regions.heap!.pages, 8);
    });
  });

  it('names are names, also those that every object has', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      const names = ['constructor', '__proto__', 'toString', 'hasOwnProperty'];
      const regions = Object.fromEntries(names.map((name) => [name, Region.allocate(PAGE)]));
      const attachments = Object.fromEntries(names.map((name, k) => [name, Uint8Array.of(k)]));
      const metadata = JSON.parse('{ "__proto__": 1, "constructor": { "x": 2 } }');
      const store = await CheckpointStore.open(path, { createIfMissing: true });
      const checkpointer = await Checkpointer.open<string>(store, { regions, branch: '__proto__' });
      for (const [k, name] of names.entries()) new Uint8Array(regions[name]!.buffer)[0] = k + 1;
      const first = await checkpointer.checkpoint({ attachments, metadata, label: 'constructor', lengths: { ['__proto__']: 7 } });
      assert.deepEqual(Object.keys(first.regions), names);
      assert.deepEqual(
        names.map((name) => first.regions[name]!.length),
        [PAGE, 7, PAGE, PAGE],
      );
      assert.deepEqual(Object.keys(first.attachments), names);
      assert.deepEqual(first.metadata, metadata);
      // Without `lengths`, and with attachments by reference.
      assert.equal((await checkpointer.checkpoint({ attachments, ifChanged: true })).id, first.id);
      for (const name of names) new Uint8Array(regions[name]!.buffer)[0] = 99;
      const { attachment } = await checkpointer.restore('constructor', { regions: ['__proto__', 'toString'] });
      assert.deepEqual(
        names.map((name) => new Uint8Array(regions[name]!.buffer)[0]),
        [99, 2, 3, 99],
      );
      assert.deepEqual(await Promise.all(names.map(async (name) => (await attachment(name))[0])), [0, 1, 2, 3]);
      const snapshot = await store.at('__proto__');
      assert.deepEqual(await Promise.all(names.map(async (name) => (await snapshot.read(name, 0, 1))[0])), [1, 2, 3, 4]);
      await assert.rejects(snapshot.read('valueOf', 0, 1), code('TIDEMARK_NOT_FOUND'));
      await assert.rejects(snapshot.attachment('valueOf'), code('TIDEMARK_NOT_FOUND'));
      await assert.rejects(store.at('valueOf'), code('TIDEMARK_NOT_FOUND'));
      assert.deepEqual((await store.verify()).problems, []);
      await store.close();
      // As read back from the log by who opens it anew.
      const again = await CheckpointStore.open(path);
      assert.deepEqual((await again.find('__proto__'))!.regions, first.regions);
      await again.close();
      for (const region of Object.values(regions)) region.close();
    });
  });

  it('what is thrown by code of the caller that a call runs is what it rejects with', async () => {
    await withCheckpointer(async ({ checkpointer, region }) => {
      const own = new Error('of the caller');
      const options = {
        get label(): string {
          throw own;
        },
      };
      await assert.rejects(checkpointer.checkpoint(options), (error) => error === own);
      // Or closes what it is called on: what is captured after that would belong to nobody.
      const closing = {
        get label(): string {
          void checkpointer.close();
          return 'last';
        },
      };
      new Uint8Array(region.buffer)[0] = 1;
      assert.equal(await outcome(checkpointer.checkpoint(closing)), 'TIDEMARK_CLOSED');
      assert.equal(region.dirtyRanges().length, 2);
    });
  });
});
