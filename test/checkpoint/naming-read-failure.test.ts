import assert from 'node:assert/strict';
import { CheckpointStore } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assertSound } from '../support/log-files.js';

describe('a name whose write is rejected, and a read fails while the log is read back', () => {
  const folder = storeFolders();

  // Every read of the reopening, and some around it.
  for (const written of ['log.write', 'log.acknowledge'])
    for (let nth = 1; nth <= 8; nth++)
      it(`${written}, read ${nth}: what was told holds, and the store is whole when it is opened again`, async () => {
        const path = folder();
        const { told, labels } = await inChild(
          // The first write is the checkpoint, the second the first name.
          { faults: `${written}:2,log.read:${nth}`, limitMs: 60_000 },
          async ({ CheckpointStore, Checkpointer, Region, PAGE, stamp, outcome, crash }, path) => {
            const region = Region.allocate(4 * PAGE);
            const store = await CheckpointStore.open(path, { createIfMissing: true });
            const c = await Checkpointer.open(store, { regions: { r: region } });
            stamp(region, 1, 1);
            await c.checkpoint();
            const told = {
              a: await outcome(store.label('a', 1)),
              b: await outcome(store.fork(1, 'b')),
              c: await outcome(store.label('c', 1)),
            };
            // The fault may be behind all of this.
            const found = await store.find(1).catch(() => store.find(1));
            return crash({ told, labels: found!.labels });
          },
          path,
        );
        assert.deepEqual(
          labels,
          (['a', 'c'] as const).filter((name) => told[name] === 'ok'),
        );
        assert.deepEqual(await assertSound(path), [1]);
        const store = await CheckpointStore.open(path);
        for (const [name, outcome] of Object.entries(told)) {
          // One that was rejected may still be there: the process may have died before it could be deleted.
          const id = (await store.find(name))?.id;
          if (outcome === 'ok') assert.equal(id, 1, name);
          else if (id === undefined) await store.label(name, 1);
        }
        // Nothing was taken for lost: names can be given.
        await store.label('later', 1);
        await store.close();
        assert.deepEqual(await assertSound(path), [1]);
      });
});
