import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { describeWithKernelFaults } from '../support/kernel-faults.js';
import { makeSample } from '../support/kit.js';
import { damageExtent } from '../support/log-files.js';

const HOLD = 'lazy.hold:1:1000000';
const limitMs = 30_000;

describeWithKernelFaults('a lazy restore and what goes on beside it', () => {
  const folder = storeFolders();
  let path: string;
  beforeEach(async () => {
    path = folder();
    await makeSample(path);
  });

  it('who only reads while it begins makes no page zero', async () => {
    const wrong = await inChild(
      { limitMs },
      async (kit, path) => {
        const { Worker } = await import('node:worker_threads');
        const store = await kit.CheckpointStore.open(path);
        const model = kit.sampleMemory();
        let wrong = 0;
        for (let round = 0; round < 20; round++) {
          const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE, { shared: true });
          const code = `const { workerData, parentPort } = require('node:worker_threads'); const bytes = new Uint8Array(workerData);
            let sum = 0; parentPort.postMessage('reads'); for (let page = 0; ; page = (page + 7) % 4096) sum += bytes[page * 4096];`;
          const workers = [0, 1].map(() => new Worker(code, { eval: true, execArgv: [], workerData: region.buffer }));
          await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))));
          const c = await kit.Checkpointer.open(store, { regions: { r: region } });
          const { done } = await c.restore(undefined, { lazy: true });
          await done;
          await Promise.all(workers.map((worker) => worker.terminate()));
          if (Buffer.compare(kit.bytesOf(region), model) !== 0) wrong++;
          if ((await c.checkpoint()).regions.r!.pages !== 0) wrong++;
          await c.close();
          region.close();
        }
        await store.close();
        return wrong;
      },
      path,
    );
    assert.equal(wrong, 0);
  });

  it('a region that goes to another checkpointer meanwhile is what that one restores', async () => {
    const other = folder();
    const result = await inChild(
      { limitMs, faults: 'lazy.hold:1:10' },
      async (kit, path, other) => {
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
        kit.stamp(region, kit.range(1000, 3000), 9);
        const model = kit.copyOf(region);
        await kit.withCheckpointer(other, { regions: { r: region } }, (c) => c.checkpoint());
        const first = await kit.sampleRestoring(path);
        const d = await kit.Checkpointer.open(other, { regions: { r: first.c.detach('r') } });
        const second = await d.restore(undefined, { lazy: true });
        const done = await Promise.all([first.restoration.done, second.done].map(kit.outcome));
        const whole = Buffer.compare(first.bytes, model);
        await d.close();
        await first.c.close();
        return { done, whole };
      },
      path,
      other,
    );
    assert.deepEqual(result, { done: ['ok', 'ok'], whole: 0 });
  });

  it('process.exit() ends as it was to end while workers read, whichever thread is ended first', async () => {
    const kit = new URL('../support/kit.js', import.meta.url).href;
    const source = `import * as kit from ${JSON.stringify(kit)};
      import { Worker } from 'node:worker_threads';
      const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE, { shared: true });
      // Made before the threads of the engine: Node.js ends them after these.
      const workers = [0, 1, 2].map((k) => new Worker(\`const { workerData, parentPort } = require('node:worker_threads'); const bytes = new Uint8Array(workerData.buffer);
        parentPort.once('message', () => { let sum = 0; parentPort.postMessage('reads'); for (let page = \${k}; ; page = (page + 31) % 3000) sum += bytes[page * 4096]; });\`,
        { eval: true, execArgv: [], workerData: { buffer: region.buffer } }));
      await kit.sampleRestoring(${JSON.stringify(path)}, region);
      await Promise.all(workers.map((worker) => new Promise((resolve) => { worker.once('message', resolve); worker.postMessage(0); })));
      process.exit(7);`;
    for (let round = 0; round < 4; round++) {
      const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
        stdio: ['ignore', 'inherit', 'inherit'],
        env: { ...process.env, TIDEMARK_FAULTS: round % 2 === 0 ? HOLD : '' },
      });
      const timer = setTimeout(() => child.kill('SIGKILL'), limitMs);
      const ended = await new Promise((resolve) => child.on('close', (code, signal) => resolve(code ?? signal)));
      clearTimeout(timer);
      assert.equal(ended, 7);
    }
  });

  it('a capture of everything, of what cannot all be restored, is an error and not the end', async () => {
    const other = folder();
    await damageExtent(path, 3);
    const result = await inChild(
      { limitMs, faults: HOLD },
      async (kit, path, other) => {
        const { c, bytes } = await kit.sampleRestoring(path);
        const region = c.detach('r');
        const d = await kit.Checkpointer.open(other, { regions: { r: region } });
        const first = await kit.outcome(d.checkpoint());
        const second = await kit.outcome(d.checkpoint());
        return kit.crash({ first, second, byte: bytes[0] === kit.sampleMemory()[0] });
      },
      path,
      other,
    );
    assert.deepEqual(result, { first: 'TIDEMARK_DAMAGED', second: 'TIDEMARK_DAMAGED', byte: true });
  });

  it('a rejected write does not wait until everything is there, and faults are answered meanwhile', async () => {
    const result = await inChild(
      { limitMs, faults: `${HOLD},log.write` },
      async (kit, path) => {
        const { c, region, bytes, missing } = await kit.sampleRestoring(path);
        kit.edit(region, 100, 5);
        const failed = kit.outcome(c.checkpoint());
        let sum = 0;
        for (let page = 0; page < 2000; page += 100) sum += bytes[page * kit.PAGE]!;
        const first = await failed;
        const second = await kit.outcome(c.checkpoint());
        const model = kit.sampleMemory();
        kit.edit(model, 100, 5);
        const left = missing();
        return kit.crash({ first, second, left: left > 2000, whole: Buffer.compare(bytes, model), sum: sum > 0 });
      },
      path,
    );
    assert.deepEqual(result, { first: 'TIDEMARK_WRITE_FAILED', second: 'ok', left: true, whole: 0, sum: true });
  });

  it('reading holes takes no memory', async () => {
    const result = await inChild(
      { limitMs },
      async (kit, path) => {
        const region = kit.Region.allocate(256 << 20);
        kit.stamp(region, 7, 1);
        await kit.withCheckpointer(path, { regions: { r: region } }, (c) => c.checkpoint());
        region.close();
        const fresh = kit.Region.allocate(256 << 20);
        const c = await kit.Checkpointer.open(path, { regions: { r: fresh } });
        const { done } = await c.restore(undefined, { lazy: true });
        await done;
        const anonymous = () => Number(/RssAnon:\s+(\d+)/.exec(kit.fs.readFileSync('/proc/self/status', 'utf8'))![1]) / 1024;
        const bytes = kit.bytesOf(fresh);
        const before = anonymous();
        let sum = 0;
        for (let at = 0; at < bytes.length; at += kit.PAGE) sum += bytes[at]!;
        const grown = anonymous() - before;
        const read = (await c.checkpoint()).regions.r!.pages;
        kit.stamp(fresh, [100, 60_000], 2);
        const written = (await c.checkpoint()).regions.r!.pages;
        await c.close();
        return { grown, read, written, sum: sum > 0 };
      },
      folder(),
    );
    assert.ok(result.grown < 64, `${result.grown} MiB for 256 MiB of holes`);
    assert.deepEqual([result.read, result.written], [0, 2]);
  });
});
