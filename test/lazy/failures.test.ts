import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { describeWithKernelFaults } from '../support/kernel-faults.js';
import { makeSample } from '../support/kit.js';
import { damageExtent } from '../support/log-files.js';

const HOLD = 'lazy.hold:1:1000000';
const limitMs = 30_000;

describeWithKernelFaults('a lazy restore that cannot restore everything', () => {
  const folder = storeFolders();
  let path: string;
  beforeEach(async () => {
    path = folder();
    await makeSample(path);
  });

  for (const hold of ['', HOLD]) {
    it(`poisons the pages of a damaged extent ${hold === '' ? 'that are filled ahead' : 'when they are touched'}, and the rest is right`, async () => {
      // In the order of their arrival: some 256 pages of the first checkpoint.
      await damageExtent(path, 3);
      const result = await inChild(
        { faults: hold, limitMs },
        async (kit, path) => {
          const { c, bytes, region, restoration } = await kit.sampleRestoring(path);
          const model = kit.sampleMemory();
          const held = process.env.TIDEMARK_FAULTS !== '';
          const done = held
            ? undefined
            : await restoration.done.then(
                () => '',
                (error: Error) => `${(error as { code?: string }).code} ${error.message}`,
              );
          const file = kit.fs.openSync(`${path}-file`, 'w+');
          const lost: number[] = [];
          const wrong: number[] = [];
          for (let page = 0; page < kit.SAMPLE_PAGES; page++) {
            // A system call says EFAULT where a program would get SIGBUS.
            const view = bytes.subarray(page * kit.PAGE, (page + 1) * kit.PAGE);
            try {
              kit.fs.writeSync(file, view, 0, kit.PAGE, 0);
              if (Buffer.compare(view, model.subarray(page * kit.PAGE, (page + 1) * kit.PAGE)) !== 0) wrong.push(page);
            } catch (error) {
              if ((error as { code?: string }).code !== 'EFAULT') throw error;
              lost.push(page);
            }
          }
          const { poisonedPages } = restoration.stats().lazy!;
          kit.edit(
            region,
            [0, 2999].filter((page) => !lost.includes(page)),
            5,
          );
          const next = await c.checkpoint();
          const ensured = await kit.outcome(restoration.ensureResident('r', lost[0]! * kit.PAGE, 10));
          return kit.crash({ done, lost, wrong, poisonedPages, pages: next.regions.r!.pages, ensured });
        },
        path,
      );
      assert.deepEqual(result.wrong, []);
      assert.ok(result.lost.length >= 1 && result.lost.length <= 256, `${result.lost.length} pages were lost`);
      assert.deepEqual([result.poisonedPages, result.ensured], [result.lost.length, 'TIDEMARK_DAMAGED']);
      assert.equal(result.pages, [0, 2999].filter((page) => !result.lost.includes(page)).length);
      if (hold === '') {
        const ranges = result.done!.match(/^TIDEMARK_DAMAGED region r, pages ([^:]*): could not be restored/);
        assert.ok(ranges, result.done);
        assert.ok(ranges[1]!.startsWith(String(result.lost[0])), `${ranges[1]} begins with ${result.lost[0]}`);
      }
    });
  }

  it('and another restore makes the memory whole again', async () => {
    await damageExtent(path, -1);
    const result = await inChild(
      { limitMs },
      async (kit, path) => {
        const { c, bytes, restoration } = await kit.sampleRestoring(path);
        const done = await kit.outcome(restoration.done);
        const { poisonedPages } = restoration.stats().lazy!;
        const model = new Uint8Array(kit.SAMPLE_PAGES * kit.PAGE);
        kit.stamp(model, kit.range(0, kit.SAMPLE_STORED), 1);
        const { inPlace } = (await c.restore(1)).stats();
        const whole = Buffer.compare(bytes, model);
        const { pages } = (await c.checkpoint()).regions.r!;
        await c.close();
        return { done, poisonedPages, inPlace, whole, pages };
      },
      path,
    );
    assert.deepEqual(result, { done: 'TIDEMARK_DAMAGED', poisonedPages: 50, inPlace: true, whole: 0, pages: 0 });
  });

  it('and the memory is not stored as a whole, with zeros for what is lost', async () => {
    await damageExtent(path, -1);
    const result = await inChild(
      { limitMs },
      async (kit, path, other) => {
        const { c, restoration, region } = await kit.sampleRestoring(path);
        const done = await kit.outcome(restoration.done);
        kit.edit(region, 0, 3);
        const next = await c.checkpoint();
        const d = await kit.Checkpointer.open(other, { regions: { r: c.detach('r') } });
        const whole = await kit.outcome(d.checkpoint());
        const ahead = await kit.outcome(d.precopy());
        await d.close();
        await c.close();
        return { done, pages: next.regions.r!.pages, whole, ahead };
      },
      path,
      folder(),
    );
    const lost = 'TIDEMARK_DAMAGED';
    assert.deepEqual(result, { done: lost, pages: 1, whole: lost, ahead: lost });
  });

  it('who touches a poisoned page gets SIGBUS', async () => {
    await damageExtent(path, -1);
    const kit = new URL('../support/kit.js', import.meta.url).href;
    const source = `import * as kit from ${JSON.stringify(kit)};
      const { bytes, restoration } = await kit.sampleRestoring(${JSON.stringify(path)});
      await restoration.done.catch(() => {});
      console.log(bytes[99 * kit.PAGE]);
      console.log('read', bytes[100 * kit.PAGE]);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', (chunk) => (out += chunk));
    const signal = await new Promise((resolve) => child.on('close', (_, how) => resolve(how)));
    assert.deepEqual([signal, out.includes('read')], ['SIGBUS', false]);
  });

  it('leaves the memory as it was when it cannot begin', async () => {
    const result = await inChild(
      { limitMs, faults: 'lazy.begin' },
      async (kit, path) => {
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
        const c = await kit.Checkpointer.open(path, { regions: { r: region } });
        const first = await kit.outcome(c.restore(undefined, { lazy: true }));
        const empty = kit.bytesOf(region).every((byte) => byte === 0);
        const second = await c.restore(undefined, { lazy: true });
        await second.done;
        const whole = Buffer.compare(kit.bytesOf(region), kit.sampleMemory());
        await c.close();
        return { first: first !== 'ok', empty, whole };
      },
      path,
    );
    assert.deepEqual(result, { first: true, empty: true, whole: 0 });
  });

  it('fills page by page where filling ahead fails', async () => {
    const result = await inChild(
      { limitMs, faults: 'lazy.ahead:1:1000' },
      async (kit, path) => {
        const { c, bytes, restoration } = await kit.sampleRestoring(path);
        await restoration.done;
        await c.close();
        return Buffer.compare(bytes, kit.sampleMemory());
      },
      path,
    );
    assert.equal(result, 0);
  });

  it('goes on when a codec thread ends', async () => {
    const result = await inChild(
      { limitMs, faults: 'lazy.hold:1:20' },
      async (kit, path) => {
        const other = new kit.Engine({ workers: 1 });
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
        const c = await kit.Checkpointer.open(path, { regions: { r: region }, engine: other });
        process.env.TIDEMARK_FAULTS = 'codec.exit';
        const restoration = await c.restore(undefined, { lazy: true });
        kit.edit(region, 2000, 5);
        const failed = await kit.outcome(c.checkpoint());
        kit.noMoreFaults();
        await restoration.done;
        const model = kit.sampleMemory();
        kit.edit(model, 2000, 5);
        const whole = Buffer.compare(kit.bytesOf(region), model);
        const { pages } = (await kit.retried(() => c.checkpoint())).regions.r!;
        await c.close();
        return { failed, whole, pages };
      },
      path,
    );
    assert.equal(result.whole, 0);
    assert.ok(result.failed === 'ok' || result.pages === 1, JSON.stringify(result));
  });

  it('when the storage thread ends, what is missing cannot be read, and nothing hangs', async () => {
    const result = await inChild(
      { limitMs, faults: `${HOLD},lazy.exit:3` },
      async (kit, path) => {
        const { c, bytes, restoration, missing } = await kit.sampleRestoring(path);
        const file = await kit.fs.promises.open(`${path}-file`, 'w+');
        const page = (number: number) => bytes.subarray(number * kit.PAGE, (number + 1) * kit.PAGE);
        const codes: string[] = [];
        // All threads of the pool at once; the third fault ends the storage thread.
        await file.write(page(30));
        await file.write(page(500));
        const all = Array.from({ length: 12 }, (_, k) => kit.outcome(file.write(page(1000 + k * 50))));
        codes.push(...(await Promise.all(all)));
        const done = await kit.outcome(restoration.done);
        const again = await kit.outcome(file.write(page(2900)));
        const kept = Buffer.compare(page(30), kit.sampleMemory().subarray(30 * kit.PAGE, 31 * kit.PAGE));
        const zero = await kit.outcome(file.write(page(4000)));
        const taken = await kit.outcome(c.checkpoint());
        await file.close();
        await c.close();
        return { codes: [...new Set(codes)], done, again, kept, zero, taken, missing: missing() };
      },
      path,
    );
    assert.deepEqual(result, {
      codes: ['EFAULT'],
      done: 'TIDEMARK_WRITE_FAILED',
      again: 'EFAULT',
      kept: 0,
      zero: 'ok',
      taken: 'TIDEMARK_WRITE_FAILED',
      missing: 0,
    });
  });

  for (const how of ['process.exit(0)', 'engine.close()', 'region.close()'] as const) {
    it(`${how} ends reads that nobody answers`, async () => {
      const result = await inChild(
        { limitMs, faults: `${HOLD},lazy.serve:1:1000000` },
        async (kit, path, how) => {
          const engine = new kit.Engine();
          const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
          const c = await kit.Checkpointer.open(path, { regions: { r: region }, engine });
          const restoration = await c.restore(undefined, { lazy: true });
          const done = kit.outcome(restoration.done);
          const bytes = kit.bytesOf(region);
          const file = await kit.fs.promises.open(`${path}-file`, 'w');
          const all = Array.from({ length: 12 }, (_, k) => kit.outcome(file.write(bytes, (k + 1) * 100 * kit.PAGE, kit.PAGE)));
          // One of the pool's threads waits for the page, the others for the lock that it holds on the file.
          while (restoration.stats().lazy!.faults === 0) await new Promise((resolve) => setTimeout(resolve, 5));
          if (how === 'process.exit(0)') {
            kit.report('ended');
            process.exit(0);
          }
          if (how === 'engine.close()') await engine.close();
          else c.detach('r').close();
          return kit.crash(`${[...new Set(await Promise.all(all))].sort().join()} ${how === 'region.close()' ? '' : await done}`);
        },
        path,
        how,
      );
      assert.equal(
        result,
        { 'process.exit(0)': 'ended', 'engine.close()': 'EFAULT TIDEMARK_CLOSED', 'region.close()': 'EFAULT ' }[how],
      );
    });
  }

  it('a new region of that memory knows what cannot be read, and is not stored as zeros', async () => {
    const other = folder();
    const result = await inChild(
      { limitMs, faults: HOLD },
      async (kit, path, other) => {
        const buffer = new SharedArrayBuffer(kit.SAMPLE_PAGES * kit.PAGE, {
          maxByteLength: kit.SAMPLE_PAGES * kit.PAGE,
        } as never);
        const region = kit.Region.of(buffer);
        const { c, restoration } = await kit.sampleRestoring(path, region);
        restoration.done.catch(() => {});
        c.detach('r').close();
        const again = kit.Region.of(buffer);
        kit.stamp(again, [3500], 1);
        const d = await kit.Checkpointer.open(other, { regions: { r: again } });
        const taken = await kit.outcome(d.checkpoint());
        return kit.crash({ taken, lost: again.poisoned().length > 0 });
      },
      path,
      other,
    );
    assert.deepEqual(result, { taken: 'TIDEMARK_DAMAGED', lost: true });
  });

  it('`done` says that a region was closed before all of it was there', async () => {
    const done = await inChild(
      { limitMs, faults: 'lazy.hold:1:20' },
      async (kit, path) => {
        const { c, restoration } = await kit.sampleRestoring(path);
        c.detach('r').close();
        const done = await kit.outcome(restoration.done);
        await c.close();
        return done;
      },
      path,
    );
    assert.equal(done, 'TIDEMARK_CLOSED');
  });

  it('terminate() ends a worker that waits for a page, once that is there', async () => {
    const result = await inChild(
      { limitMs, faults: HOLD },
      async (kit, path) => {
        const { Worker } = await import('node:worker_threads');
        const shared = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE, { shared: true });
        await kit.sampleRestoring(path, shared);
        const code = `const { workerData } = require('node:worker_threads'); const bytes = new Uint8Array(workerData);
          let sum = 0; for (;;) for (let page = 0; page < 3000; page++) sum += bytes[page * 4096];`;
        const workers = [0, 1].map(() => new Worker(code, { eval: true, execArgv: [], workerData: shared.buffer }));
        await new Promise((resolve) => setTimeout(resolve, 200));
        return kit.crash(await Promise.all(workers.map((worker) => worker.terminate())));
      },
      path,
    );
    assert.deepEqual(result, [1, 1]);
  });
});
