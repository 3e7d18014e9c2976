import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { hashOf, restoredFresh } from '../support/kit.js';
import { assertSound, extentNumbers } from '../support/log-files.js';

const PAGES = 6144;

/** A small checkpoint, one of 24 MiB that fails in the middle (several batches go before its manifest), and what comes then. */
function large(faults: string, path: string, end: 'crash at once' | 'go on' | 'close') {
  return inChild(
    { faults },
    async ({ Checkpointer, Engine, Region, PAGE, stamp, range, hashOf, outcome, crash }, path, end, count) => {
      const region = Region.allocate(count * PAGE);
      // Not as many as there are cores: threads count faults for themselves, and with two each encodes twelve segments of the large one.
      const engine = new Engine({ workers: 2 });
      const c = await Checkpointer.open(path, { regions: { r: region }, engine });
      stamp(region, [0, 1, 2], 7);
      await c.checkpoint();
      const before = hashOf(region);
      stamp(region, range(1, count - 1), 1);
      const failed = await outcome(c.checkpoint());
      const result = { before, failed, hash: hashOf(region), pages: 0, parent: 0 as number | null, storedBytes: 0 };
      if (end === 'crash at once') return crash(result);
      if (end === 'close') {
        await c.close();
        return result;
      }
      const next = await c.checkpoint();
      result.pages = next.regions.r!.pages;
      result.parent = next.parent;
      result.storedBytes = next.storedBytes;
      await c.close();
      return result;
    },
    path,
    end,
    PAGES,
  );
}

describe('a failure in the middle of a checkpoint of many batches', () => {
  const folder = storeFolders();

  for (const faults of ['log.write:2', 'log.write:3', 'log.write:4', 'log.acknowledge:3', 'codec.encode:9']) {
    it(`${faults}: the next one has all pages, and nothing of the failed one stays in the log`, async () => {
      const path = folder();
      const { failed, pages, parent, hash, storedBytes } = await large(faults, path, 'go on');
      assert.equal(failed, 'TIDEMARK_WRITE_FAILED');
      assert.deepEqual([pages, parent], [PAGES - 1, 1]);
      assert.ok(storedBytes < PAGES * 4096 * 1.01, `${storedBytes}`);
      // As it was left by close(), before anything could clear up.
      const left = await extentNumbers(path);
      assert.equal((await assertSound(path)).length, 2);
      assert.deepEqual(await extentNumbers(path), left);
      assert.equal(hashOf(await restoredFresh(path)), hash);
    });
  }

  it('a checkpoint with pages that hold what they held is not taken for one of which extents are written', async () => {
    const result = await inChild(
      { faults: 'log.write:3,log.reopen:1' },
      async ({ Checkpointer, CheckpointStore, Engine, Region, PAGE, stamp, bytesOf, outcome }, path) => {
        const store = await CheckpointStore.open(path, { createIfMissing: true, engine: new Engine({ workers: 1 }) });
        const [a, b] = [Region.allocate(4 * PAGE), Region.allocate(4 * PAGE)];
        const one = await Checkpointer.open(store, { regions: { a }, branch: 'one' });
        const two = await Checkpointer.open(store, { regions: { b }, branch: 'two' });
        stamp(a, 0, 1);
        stamp(b, 0, 1);
        await one.checkpoint();
        await two.checkpoint();
        stamp(a, 0, 2);
        const failed = await outcome(one.checkpoint());
        // Written with what it holds: the log is opened again for a checkpoint that has no extent.
        bytesOf(b)[5]! ^= 0;
        const { regions } = await two.checkpoint();
        const next = await outcome(one.checkpoint());
        await store.close();
        return { failed, unchanged: regions.b!.unchangedPages, next };
      },
      folder(),
    );
    assert.deepEqual(result, { failed: 'TIDEMARK_WRITE_FAILED', unchanged: 1, next: 'ok' });
  });

  it('closed after the failure: nothing of it stays in the log', async () => {
    const path = folder();
    const { before, failed } = await large('log.write:4', path, 'close');
    assert.equal(failed, 'TIDEMARK_WRITE_FAILED');
    assert.equal((await extentNumbers(path)).length, 1);
    assert.deepEqual(await assertSound(path), [1]);
    assert.equal(hashOf(await restoredFresh(path)), before);
  });

  for (const faults of ['log.write:4', 'log.acknowledge:4', 'log.write:4,log.reopen']) {
    it(`${faults}, and the process dies: the next start removes what is left of it`, async () => {
      const path = folder();
      const { before, failed } = await large(faults, path, 'crash at once');
      assert.equal(failed, 'TIDEMARK_WRITE_FAILED');
      assert.deepEqual(await assertSound(path), [1]);
      assert.equal(hashOf(await restoredFresh(path)), before);
    });
  }

  it('one batch of 700 pages that is written but not acknowledged stands', async () => {
    const path = folder();
    const { result, hash } = await inChild(
      { faults: 'log.acknowledge:2' },
      async ({ Checkpointer, Region, PAGE, stamp, range, outcome, hashOf }, path) => {
        const region = Region.allocate(1024 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, 0, 1);
        await c.checkpoint();
        // Fits into one batch.
        stamp(region, range(0, 700), 2);
        const result = await outcome(c.checkpoint());
        const hash = hashOf(region);
        await c.close();
        return { result, hash };
      },
      path,
    );
    assert.equal(result, 'ok');
    assert.deepEqual(await assertSound(path), [1, 2]);
    assert.equal(hashOf(await restoredFresh(path)), hash);
  });
});
