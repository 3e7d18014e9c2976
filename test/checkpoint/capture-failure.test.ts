import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { hashOf, restoredFresh } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

describe('a capture that fails', () => {
  const folder = storeFolders();

  it('while scanning: the dirty set is unknown, so the whole region is stored, and after that it is exact again', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'capture.scan:2' },
      async ({ Checkpointer, Region, PAGE, stamp, range, hashOf }, path) => {
        const region = Region.allocate(64 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, range(0, 50), 1);
        await c.checkpoint();
        stamp(region, [3, 4, 60], 2);
        const second = await c.checkpoint();
        const hashes = [hashOf(region)];
        stamp(region, [5, 6], 3);
        const third = await c.checkpoint();
        hashes.push(hashOf(region));
        const fourth = await c.checkpoint();
        await c.close();
        return { counts: [second, third, fourth].map(({ kind, regions: { r } }) => [kind, r!.pages, r!.unchangedPages]), hashes };
      },
      path,
    );
    assert.deepEqual(result.counts, [
      // Found to be what is stored already.
      ['incremental', 3, 61],
      ['incremental', 2, 0],
      ['incremental', 0, 0],
    ]);
    assert.equal(hashOf(await restoredFresh(path, 2)), result.hashes[0]);
    assert.equal(hashOf(await restoredFresh(path, 3)), result.hashes[1]);
  });

  it('while scanning for dirtyRanges(): everything counts as written, for the next checkpoint too', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'capture.scan:2' },
      async ({ Checkpointer, Region, PAGE, stamp, range, hashOf }, path) => {
        const region = Region.allocate(64 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, range(0, 64), 1);
        await c.checkpoint();
        stamp(region, 3, 2);
        const dirty = [...region.dirtyRanges()];
        const { pages, unchangedPages } = (await c.checkpoint()).regions.r!;
        const clean = [...region.dirtyRanges()];
        await c.close();
        return { dirty, pages, unchangedPages, clean, hash: hashOf(region) };
      },
      path,
    );
    assert.deepEqual([result.dirty, result.pages, result.unchangedPages, result.clean], [[0, 64], 1, 63, []]);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });

  it('while copying: its pages are in the next; those before and after it stand', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'capture.copy:3' },
      async ({ Checkpointer, Region, PAGE, stamp, range, hashOf, outcome }, path) => {
        const region = Region.allocate(64 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, range(0, 64), 1);
        await c.checkpoint();
        stamp(region, [1, 2, 3], 2);
        const before = c.checkpoint();
        stamp(region, [3, 10, 11], 3);
        const failed = outcome(c.checkpoint());
        stamp(region, 20, 4);
        const next = c.checkpoint();
        const hash = hashOf(region);
        stamp(region, 21, 5);
        const after = c.checkpoint();
        const counts = [(await before).regions.r!.pages, (await next).regions.r!.pages, (await after).regions.r!.pages];
        await c.close();
        return { failed: await failed, counts, parents: [(await next).parent, (await after).parent], hash, id: (await next).id };
      },
      path,
    );
    assert.notEqual(result.failed, 'ok');
    // 3, 10, 11 come back, 20 is new.
    assert.deepEqual(result.counts, [3, 4, 1]);
    assert.deepEqual(result.parents, [2, 3]);
    assert.equal(hashOf(await restoredFresh(path, result.id)), result.hash);
    await assertSound(path);
  });

  it('while copying the second region: the pages of the first come back as well', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'capture.copy:4' },
      async ({ Checkpointer, Region, PAGE, stamp, range, hashOf, outcome }, path) => {
        const [a, b] = [Region.allocate(64 * PAGE), Region.allocate(64 * PAGE)];
        const c = await Checkpointer.open(path, { regions: { a, b } });
        stamp(a, range(0, 64), 1);
        stamp(b, range(0, 64), 2);
        await c.checkpoint();
        stamp(a, [1, 2], 3);
        stamp(b, [5], 4);
        const failed = await outcome(c.checkpoint());
        const { regions } = await c.checkpoint();
        await c.close();
        return { failed, counts: [regions.a!.pages, regions.b!.pages], hashes: [hashOf(a), hashOf(b)] };
      },
      path,
    );
    assert.notEqual(result.failed, 'ok');
    assert.deepEqual(result.counts, [2, 1]);
    assert.equal(hashOf(await restoredFresh(path, 2, 'a')), result.hashes[0]);
    assert.equal(hashOf(await restoredFresh(path, 2, 'b')), result.hashes[1]);
  });

  it('in the middle of more than staging holds: what was sent ahead of it does not stay in the store', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'capture.copy:6' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, hashOf, outcome }, path) => {
        const region = Region.allocate(6144 * PAGE);
        const engine = new Engine({ maxStagingBytes: 4 << 20 });
        const c = await Checkpointer.open(path, { regions: { r: region }, engine });
        stamp(region, 6000, 1);
        await c.checkpoint();
        stamp(region, range(0, 5000), 2);
        const failed = await outcome(c.checkpoint());
        const { parent, regions } = await c.checkpoint();
        await c.close();
        return { failed, parent, pages: regions.r!.pages, hash: hashOf(region) };
      },
      path,
    );
    assert.notEqual(result.failed, 'ok');
    assert.deepEqual([result.parent, result.pages], [1, 5000]);
    assert.deepEqual(await assertSound(path), [1, 2]);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });

  it('when its jobs cannot be sent to the codec threads: its pages are in the next one, which waits for none of them', async () => {
    const path = folder();
    const result = await inChild(
      { limitMs: 20_000 },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, hashOf, outcome }, path) => {
        const { Worker } = await import('node:worker_threads');
        const region = Region.allocate(16 * PAGE);
        const engine = new Engine({ maxStagingBytes: 4 << 20 });
        const c = await Checkpointer.open(path, { regions: { r: region }, engine });
        stamp(region, [0, 1, 2], 1);
        await c.checkpoint();
        stamp(region, [1, 2], 2);
        // As where there is no memory for the message.
        const { postMessage } = Worker.prototype;
        Worker.prototype.postMessage = function (message, ...rest) {
          if ('jobs' in message) throw new Error('cannot be cloned');
          return postMessage.call(this, message, ...rest);
        };
        const failed: string[] = [];
        // More often than there are segments: each gives its own back.
        for (let k = 0; k < 6; k++) failed.push(await outcome(c.checkpoint()));
        Worker.prototype.postMessage = postMessage;
        const dirty = [...region.dirtyRanges()];
        const { regions } = await c.checkpoint();
        await c.close();
        return { failed, dirty, pages: regions.r!.pages, hash: hashOf(region) };
      },
      path,
    );
    assert.deepEqual(result.failed, new Array(6).fill('TIDEMARK_TRACKING_LOST'));
    assert.deepEqual([result.dirty, result.pages], [[1, 2], 2]);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });

  it('does not where one codec thread can be told of its jobs and another cannot', async () => {
    const path = folder();
    const result = await inChild(
      { limitMs: 20_000 },
      async ({ Checkpointer, Engine, Region, PAGE, range, stamp, hashOf }, path) => {
        const { Worker } = await import('node:worker_threads');
        const region = Region.allocate(1024 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region }, engine: new Engine({ workers: 3 }) });
        const { postMessage } = Worker.prototype;
        let told = 0;
        Worker.prototype.postMessage = function (message, ...rest) {
          // Of three threads the first is always told, the others now and then.
          if ('jobs' in message && told++ % 3 > 0 && told % 7 > 2) throw new Error('cannot be cloned');
          return postMessage.call(this, message, ...rest);
        };
        for (let k = 1; k <= 20; k++) {
          stamp(region, range(0, 1024), k);
          await c.checkpoint();
        }
        await c.close();
        return { told, hash: hashOf(region) };
      },
      path,
    );
    assert.equal(result.told, 60);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });

  it('is a TidemarkError', async () => {
    const error = await inChild(
      { faults: 'capture.copy' },
      async ({ Checkpointer, Region, PAGE, stamp, outcome }, path) => {
        const region = Region.allocate(PAGE);
        stamp(region, 0, 1);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        return outcome(c.checkpoint());
      },
      folder(),
    );
    assert.match(error, /^TIDEMARK_/);
  });
});
