import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { describeWithKernelFaults } from '../support/kernel-faults.js';
import { assertSame, makeSample, restoredFresh, sampleMemory } from '../support/kit.js';
import { damageExtent } from '../support/log-files.js';
import { type Change, mappingsHelper } from '../support/mappings.js';

const limitMs = 30_000;
/** Nothing is filled ahead, ever or for a while. */
const HELD = { faults: 'lazy.hold:1:1000000', limitMs };
const HELD_SOON = { faults: 'lazy.hold:1:10', limitMs };

describeWithKernelFaults('a lazy restore whose memory is not tracked any more', () => {
  const folder = storeFolders();
  const helper = mappingsHelper();
  let path: string;
  beforeEach(async () => {
    path = folder();
    await makeSample(path);
  });

  for (const how of ['replace', 'replace-shared', 'move-away-and-back', 'unregister', 'close'] as const) {
    it(`${how}: nothing that was missing is stored, or read any more, and another restore makes it whole`, async () => {
      const result = await inChild(
        HELD_SOON,
        async (kit, path, helper, how) => {
          const change = kit.loadMappings(helper);
          const { c, region, bytes, restoration } = await kit.sampleRestoring(path);
          kit.edit(region, [10, 1050], 9);
          if (how === 'close') kit.closeUserfaults();
          else change(how as Change, bytes.subarray(1000 * kit.PAGE, 1100 * kit.PAGE));
          const file = kit.fs.openSync(`${path}-file`, 'w+');
          const codeOf = (page: number): string => {
            try {
              kit.fs.writeSync(file, bytes, page * kit.PAGE, kit.PAGE, 0);
              return bytes[page * kit.PAGE] === 0 ? 'zero' : 'there';
            } catch (error) {
              return (error as { code: string }).code;
            }
          };
          // Read before anybody has noticed: it is zero by then, and is not left so.
          codeOf(1020);
          const first = await kit.outcome(c.checkpoint());
          const second = await kit.outcome(c.checkpoint());
          const codes = [10, 1020, 1080, 2000, 4000].map(codeOf);
          const done = await kit.outcome(restoration.done);
          const ensured = await kit.outcome(restoration.ensureResident('r', 1080 * kit.PAGE, 1));
          await c.restore();
          const whole = Buffer.compare(bytes, kit.sampleMemory());
          kit.edit(region, 1080, 9);
          const { pages } = (await c.checkpoint()).regions.r!;
          return kit.crash({ first, second, codes, done, ensured, whole, pages });
        },
        path,
        helper(),
        how,
      );
      assert.deepEqual(result, {
        first: 'TIDEMARK_TRACKING_LOST',
        second: 'TIDEMARK_REGION_TORN',
        codes: ['there', 'EFAULT', 'EFAULT', 'EFAULT', 'zero'],
        done: 'TIDEMARK_TRACKING_LOST',
        ensured: 'TIDEMARK_DAMAGED',
        whole: 0,
        pages: 1,
      });
      const model = sampleMemory();
      const { edit } = await import('../support/kit.js');
      edit(model, 1080, 9);
      assertSame(await restoredFresh(path), model);
    });
  }

  it('before anybody has noticed: done says which pages were not filled', async () => {
    const result = await inChild(
      HELD_SOON,
      async (kit, path, helper) => {
        const change = kit.loadMappings(helper);
        const { c, bytes, restoration } = await kit.sampleRestoring(path);
        change('replace', bytes.subarray(1000 * kit.PAGE, 1010 * kit.PAGE));
        const done = await restoration.done.then(
          () => '',
          (error: { code: string; message: string }) => `${error.code} ${error.message}`,
        );
        const first = await kit.outcome(c.checkpoint());
        const before = Buffer.compare(bytes.subarray(0, 1000 * kit.PAGE), kit.sampleMemory().subarray(0, 1000 * kit.PAGE));
        await c.restore();
        return kit.crash({ done, first, before, whole: Buffer.compare(bytes, kit.sampleMemory()) });
      },
      path,
      helper(),
    );
    assert.match(result.done, /^TIDEMARK_TRACKING_LOST region r, pages 1000-1009: the kernel did not track/);
    assert.deepEqual({ ...result, done: '' }, { done: '', first: 'TIDEMARK_TRACKING_LOST', before: 0, whole: 0 });
  });

  it('a restore that follows at once makes it whole, lazy or not', async () => {
    const results = await inChild(
      HELD_SOON,
      async (kit, path, helper) => {
        const change = kit.loadMappings(helper);
        const results: [number, number][] = [];
        for (const lazy of [false, true]) {
          const { c, region, bytes } = await kit.sampleRestoring(path);
          kit.edit(region, [1010, 2000], 9);
          change('replace', bytes.subarray(1000 * kit.PAGE, 1100 * kit.PAGE));
          kit.edit(region, 1020, 9);
          await (await c.restore(2, { lazy })).done;
          const whole = Buffer.compare(bytes, kit.sampleMemory());
          kit.edit(region, [7, 1030], 10);
          results.push([whole, (await c.checkpoint()).regions.r!.pages]);
          await c.restore(2);
          await c.checkpoint();
          await c.close();
        }
        return results;
      },
      path,
      helper(),
    );
    assert.deepEqual(results, [
      [0, 2],
      [0, 2],
    ]);
  });

  it('a thread that waits for a page goes on when another mapping is placed over it', async () => {
    const result = await inChild(
      { faults: 'lazy.hold:1:20,lazy.serve:1:1000000', limitMs },
      async (kit, path, helper) => {
        const { Worker } = await import('node:worker_threads');
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE, { shared: true });
        const { bytes, restoration } = await kit.sampleRestoring(path, region);
        const code = `const { workerData, parentPort } = require('node:worker_threads');
          parentPort.postMessage(new Uint8Array(workerData)[1050 * 4096]);`;
        const worker = new Worker(code, { eval: true, execArgv: [], workerData: region.buffer });
        const seen = new Promise<number>((resolve) => worker.once('message', resolve));
        while (restoration.stats().lazy!.faults === 0) await new Promise((resolve) => setTimeout(resolve, 5));
        kit.loadMappings(helper)('replace', bytes.subarray(1000 * kit.PAGE, 1100 * kit.PAGE));
        return kit.crash({ done: await kit.outcome(restoration.done), seen: await seen });
      },
      path,
      helper(),
    );
    assert.deepEqual(result, { done: 'TIDEMARK_TRACKING_LOST', seen: 0 });
  });

  for (const how of ['unmap', 'move-away', 'inaccessible', 'replace-inaccessible'] as const) {
    it(`${how}: no checkpoint, and what is missing elsewhere is served`, async () => {
      const result = await inChild(
        HELD,
        async (kit, path, helper, how) => {
          const { c, bytes, region } = await kit.sampleRestoring(path);
          kit.edit(region, 1050, 9);
          kit.loadMappings(helper)(how, bytes.subarray(1000 * kit.PAGE, 1100 * kit.PAGE));
          const codes = [await kit.outcome(c.checkpoint()), await kit.outcome(c.checkpoint())];
          const same = [900, 1100, 2999].every(
            (page) =>
              Buffer.compare(
                bytes.subarray(page * kit.PAGE, (page + 1) * kit.PAGE),
                kit.sampleMemory().subarray(page * kit.PAGE, (page + 1) * kit.PAGE),
              ) === 0,
          );
          return kit.crash({ codes, same });
        },
        path,
        helper(),
        how,
      );
      assert.deepEqual(result, { codes: ['TIDEMARK_TRACKING_LOST', 'TIDEMARK_TRACKING_LOST'], same: true });
      assertSame(await restoredFresh(path), sampleMemory());
    });
  }

  // Copying over the border of two mappings is ENOENT, as where there is none: these pages were taken for gone, and were zero.
  for (const how of ['not-for-children', 'read-only', 'inaccessible'] as const) {
    it(`${how}: the parts of a mapping that was split are filled`, async () => {
      const result = await inChild(
        HELD_SOON,
        async (kit, path, helper, how) => {
          const change = kit.loadMappings(helper);
          const { c, bytes, region, restoration } = await kit.sampleRestoring(path);
          const part = bytes.subarray(1001 * kit.PAGE, 1005 * kit.PAGE);
          change(how, part);
          await restoration.done;
          change('accessible', part);
          const whole = Buffer.compare(bytes, kit.sampleMemory());
          kit.edit(region, 1002, 9);
          const { pages } = (await c.checkpoint()).regions.r!;
          return kit.crash({ whole, pages });
        },
        path,
        helper(),
        how,
      );
      assert.deepEqual(result, { whole: 0, pages: 1 });
    });
  }

  it('what is missing in the parts of a mapping that was split is poisoned when nobody serves it any more', async () => {
    const result = await inChild(
      HELD,
      async (kit, path, helper) => {
        const { c, bytes } = await kit.sampleRestoring(path);
        kit.loadMappings(helper)('not-for-children', bytes.subarray(1001 * kit.PAGE, 1005 * kit.PAGE));
        c.detach('r').close();
        const file = kit.fs.openSync(`${path}-file`, 'w');
        let unread = 0;
        for (let page = 0; page < kit.SAMPLE_STORED; page++) {
          try {
            kit.fs.writeSync(file, bytes, page * kit.PAGE, kit.PAGE, 0);
          } catch (error) {
            if ((error as { code: string }).code === 'EFAULT') unread++;
          }
        }
        return kit.crash(unread);
      },
      path,
      helper(),
    );
    assert.equal(result, 3000);
  });

  it('all of it, for another store, is not taken while some of it cannot be read', async () => {
    const other = folder();
    await damageExtent(path, -1);
    const result = await inChild(
      { limitMs },
      async (kit, path, other) => {
        const { c, restoration } = await kit.sampleRestoring(path);
        const done = await kit.outcome(restoration.done);
        const d = await kit.Checkpointer.open(other, { regions: { r: c.detach('r') } });
        const codes = [await kit.outcome(d.precopy()), await kit.outcome(d.checkpoint())];
        return kit.crash({ done, codes, head: d.head?.id ?? null });
      },
      path,
      other,
    );
    assert.deepEqual(result, { done: 'TIDEMARK_DAMAGED', codes: ['TIDEMARK_DAMAGED', 'TIDEMARK_DAMAGED'], head: null });
  });
});
