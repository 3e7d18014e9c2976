import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { hashOf, restoredFresh } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

describe('the index cannot be written', () => {
  const folder = storeFolders();

  for (const [faults, ending] of [
    ['index.write:2', 'crash'],
    ['index.write:3:2', 'crash'],
    ['index.write:2:99', 'crash'],
    ['index.write:2:99', 'close'],
  ] as const) {
    it(`${faults}, then ${ending}: checkpoints are acknowledged, found, and there after the next start`, async () => {
      const path = folder();
      const hashes = await inChild(
        { faults },
        async ({ Checkpointer, CheckpointStore, Region, PAGE, stamp, hashOf, stored, crash }, path, ending) => {
          const store = await CheckpointStore.open(path, { createIfMissing: true });
          const region = Region.allocate(32 * PAGE);
          const c = await Checkpointer.open(store, { regions: { r: region } });
          const hashes: string[] = [];
          for (let k = 0; k < 5; k++) {
            stamp(region, [k, 20], k);
            const { id } = await c.checkpoint({ label: `step${k}` });
            hashes.push(hashOf(region));
            if (id !== k + 1) throw new Error(`id ${id}`);
            // It may not be able to read them, but that must not disturb what is written.
            if (k === 2 && ending === 'close') await stored(store, 'step2').catch(() => {});
          }
          if (ending === 'crash') return crash(hashes);
          await c.close();
          await store.close();
          return hashes;
        },
        path,
        ending,
      );
      assert.deepEqual(await assertSound(path), [1, 2, 3, 4, 5]);
      for (const [k, hash] of hashes.entries()) {
        assert.equal(hashOf(await restoredFresh(path, `step${k}`)), hash, `checkpoint ${k + 1}`);
      }
      assert.equal(hashOf(await restoredFresh(path)), hashes[4]);
    });
  }

  it('once: reading makes up for it', async () => {
    const found = await inChild(
      { faults: 'index.write:3' },
      async ({ Checkpointer, CheckpointStore, Region, PAGE, stamp, hashOf, stored }, path) => {
        const store = await CheckpointStore.open(path, { createIfMissing: true });
        const region = Region.allocate(32 * PAGE);
        const c = await Checkpointer.open(store, { regions: { r: region } });
        const same: boolean[] = [];
        for (let k = 0; k < 4; k++) {
          stamp(region, [k, 20], k);
          const { uid } = await c.checkpoint();
          same.push((await store.find('main'))?.uid === uid && hashOf(await stored(store, uid)) === hashOf(region));
        }
        await c.close();
        await store.close();
        return same;
      },
      folder(),
    );
    assert.deepEqual(found, [true, true, true, true]);
  });
});
