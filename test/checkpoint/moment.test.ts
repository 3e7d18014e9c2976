import assert from 'node:assert/strict';
import { Checkpointer, CheckpointStore, Engine, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assertSame, copyOf, hashOf, PAGE, range, restoredFresh, stamp, stored } from '../support/kit.js';

describe('checkpoint(): the memory as it is at the call', () => {
  const folder = storeFolders();

  it('leaves what is written before it resolves to the next one, with several calls overlapping', async () => {
    const path = folder();
    const region = Region.allocate(128 * PAGE);
    const store = await CheckpointStore.open(path, { createIfMissing: true });
    const checkpointer = await Checkpointer.open(store, { regions: { r: region } });
    const models: Uint8Array[] = [];
    const counts: number[] = [];
    const calls: ReturnType<typeof checkpointer.checkpoint>[] = [];
    let written = new Set<number>();
    const write = (page: number, value: number) => {
      stamp(region, page, value);
      written.add(page);
    };
    for (let k = 0; k < 8; k++) {
      for (const page of [k, k + 1, 60 + (k % 3)]) write(page, k);
      models.push(copyOf(region));
      counts.push(written.size);
      calls.push(checkpointer.checkpoint());
      written = new Set();
      // Straight after the call: pages it has just taken, and others.
      for (const page of [k, 60 + (k % 3), 100 + k]) write(page, 1000 + k);
    }
    const checkpoints = await Promise.all(calls);
    models.push(copyOf(region));
    counts.push(written.size);
    checkpoints.push(await checkpointer.checkpoint());

    for (const [k, { id, parent, regions }] of checkpoints.entries()) {
      assert.equal(parent, k === 0 ? null : checkpoints[k - 1]!.id);
      assert.equal(regions.r!.pages, counts[k], `pages of checkpoint ${k}`);
      assertSame(await stored(store, id), models[k]!, `checkpoint ${k} read`);
    }
    await checkpointer.close();
    await store.close();
    region.close();
    for (const k of [0, 3, 8]) assertSame(await restoredFresh(path, checkpoints[k]!.id), models[k]!, `checkpoint ${k} restored`);
    const hashes = await inChild(
      {},
      async ({ restoredFresh, hashOf }, path, ids) => {
        const found: string[] = [];
        for (const id of ids) found.push(hashOf(await restoredFresh(path, id)));
        return found;
      },
      path,
      checkpoints.map(({ id }) => id),
    );
    assert.deepEqual(
      hashes,
      models.map((model) => hashOf(model)),
    );
  });

  it('also when it is larger than staging, so that most of it is stored while the call waits', async () => {
    const path = folder();
    const pages = 6144;
    const region = Region.allocate(pages * PAGE);
    const engine = new Engine({ maxStagingBytes: 4 << 20 });
    const checkpointer = await Checkpointer.open(path, { regions: { r: region }, engine });
    stamp(region, range(0, pages), 1);
    const first = copyOf(region);
    const one = checkpointer.checkpoint();
    stamp(region, range(pages - 700, 700), 2);
    const second = copyOf(region);
    const two = checkpointer.checkpoint();
    stamp(region, range(0, pages), 3);
    assert.equal((await one).regions.r!.pages, pages);
    assert.equal((await two).regions.r!.pages, 700);
    await checkpointer.close();
    await engine.close();
    region.close();
    assertSame(await restoredFresh(path, 1), first);
    assertSame(await restoredFresh(path, 2), second);
  });

  it('takes metadata and lengths in the call, too', async () => {
    const path = folder();
    const region = Region.allocate(4 * PAGE);
    const checkpointer = await Checkpointer.open(path, { regions: { r: region } });
    const metadata = { step: 1, list: [1, 2] };
    const lengths = { r: 10 };
    const call = checkpointer.checkpoint({ metadata, lengths });
    metadata.step = 2;
    metadata.list.push(3);
    lengths.r = 20;
    const checkpoint = await call;
    assert.deepEqual(checkpoint.metadata, { step: 1, list: [1, 2] });
    assert.equal(checkpoint.regions.r!.length, 10);
    await checkpointer.close();
    region.close();
  });
});
