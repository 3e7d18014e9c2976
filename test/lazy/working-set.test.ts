import assert from 'node:assert/strict';
import { CheckpointStore, Region } from '../../lib/index.js';
import { decodeWorkingSet, encodeWorkingSet, WORKING_SET } from '../../lib/restore/working-set.js';
import { code } from '../chain/support.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { describeWithKernelFaults } from '../support/kernel-faults.js';
import { makeSample, withCheckpointer } from '../support/kit.js';

/** What is not expected is not filled ahead. */
const HELD = { faults: 'lazy.hold:1:1000000', limitMs: 30_000 };

describeWithKernelFaults('the working set', () => {
  const folder = storeFolders();

  it('is the order in which pages were first touched, and the next lazy restore fills these first', async () => {
    const path = folder();
    await makeSample(path);
    const touched = [2500, 10, 700, 2501, 1200];
    const first = await inChild(
      HELD,
      async (kit, path, touched) => {
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
        const c = await kit.Checkpointer.open(path, { regions: { r: region }, workingSet: true });
        const { done } = await c.restore(undefined, { lazy: true });
        done.catch(() => {});
        let sum = 0;
        for (const page of touched) sum += kit.bytesOf(region)[page * kit.PAGE]!;
        const one = await c.checkpoint();
        const two = await c.checkpoint();
        return kit.crash({ sum, names: [one, two].map(({ attachments }) => Object.keys(attachments)), bytes: two.storedBytes });
      },
      path,
      touched,
    );
    assert.deepEqual(first.names, [[WORKING_SET], [WORKING_SET]]);
    const store = await CheckpointStore.open(path);
    const snapshot = await store.at('main');
    const order = decodeWorkingSet(await snapshot.attachment(WORKING_SET));
    await snapshot.close();
    await store.close();
    // Page 10 was there for the warm-up's frame of page 0; 2501 came with 2500.
    assert.deepEqual([...order.get('r')!], [2500, 700, 1200]);

    const second = await inChild(
      HELD,
      async (kit, path) => {
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
        const c = await kit.Checkpointer.open(path, { regions: { r: region }, workingSet: true });
        const { done, stats } = await c.restore(undefined, { lazy: true });
        done.catch(() => {});
        // The frame of the warm-up, and those of three pages.
        while (stats().lazy!.filledAhead < 4 * 16) await new Promise((resolve) => setTimeout(resolve, 5));
        const before = stats().lazy!.faults;
        let sum = 0;
        for (const page of [2500, 2501, 701, 700, 1200]) sum += kit.bytesOf(region)[page * kit.PAGE]!;
        const after = stats().lazy!.faults;
        sum += kit.bytesOf(region)[2000 * kit.PAGE]!;
        await c.checkpoint();
        return kit.crash({ before, after, sum: sum > 0 });
      },
      path,
    );
    assert.deepEqual(second, { before: 0, after: 0, sum: true });
    const again = await CheckpointStore.open(path);
    const last = await again.at('main');
    assert.deepEqual([...decodeWorkingSet(await last.attachment(WORKING_SET)).get('r')!], [2500, 700, 1200, 2000]);
    await last.close();
    await again.close();
  });

  it('is noted whole, for nothing is filled ahead while pages are touched one after the other', async () => {
    const path = folder();
    await makeSample(path);
    const { noted, frames } = await inChild(
      { limitMs: 30_000 },
      async (kit, path) => {
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
        const c = await kit.Checkpointer.open(path, { regions: { r: region }, workingSet: true });
        const { done, stats } = await c.restore(undefined, { lazy: true });
        const frames = Math.floor(kit.SAMPLE_PAGES / 16);
        let sum = 0;
        for (let k = 0; k < frames; k++) sum += kit.bytesOf(region)[((k * 89) % frames) * 16 * kit.PAGE]!;
        const noted = sum > 0 ? stats().lazy!.faults : 0;
        await done;
        await c.close();
        return { noted, frames };
      },
      path,
    );
    // Who is not let run for 20 ms finds some filled meanwhile. Otherwise it is half of them at most.
    assert.ok(noted > frames * 0.65, `${noted} of ${frames} frames`);
  });

  it('is left out where nothing is known, and its name is tidemark’s own', async () => {
    const path = folder();
    const region = Region.allocate(1 << 20);
    await withCheckpointer(path, { regions: { r: region }, workingSet: true }, async (c) => {
      assert.deepEqual((await c.checkpoint()).attachments, {});
      await c.restore();
      assert.deepEqual((await c.checkpoint()).attachments, {});
      await assert.rejects(c.checkpoint({ attachments: { [WORKING_SET]: Uint8Array.of(1) } }), RangeError);
    });
  });

  it('is written down and read again, and what is no working set is refused', () => {
    const regions = new Map([
      ['heap', Uint32Array.of(5, 4_000_000_000, 0, 7)],
      ['stack', new Uint32Array(0)],
    ]);
    assert.deepEqual(decodeWorkingSet(encodeWorkingSet(regions)), regions);
    for (const bytes of [
      [2, 1],
      [1, 1, 65, 200],
      [0, 0],
      [1, 1, 65, 3, 2, 2],
    ])
      assert.throws(() => decodeWorkingSet(Uint8Array.from(bytes)), code('TIDEMARK_DAMAGED'));
  });
});
