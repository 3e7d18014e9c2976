import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { addon, PAGE_SIZE } from '../../lib/kernel/addon.js';
import { inChild } from '../support/in-child.js';
import { asRoot } from '../support/nobody.js';
import { addonPath, code, Helper, Memory, scan } from './support.js';

const descriptors = (): number => readdirSync('/proc/self/fd').length;
/** For child processes. */
const ADDON = new URL('../../lib/kernel/addon.js', import.meta.url).href;

describe('kernel: lifetimes', () => {
  it('closes the regions of a worker that ends, and its descriptors', async () => {
    const run = async (round: number): Promise<void> => {
      const helper = new Helper(
        `const view = new Uint8Array(addon.allocate(64 * PAGE, false)); globalThis.keep = view; const id = addon.regionOpen(view); view[PAGE] = 1;
         addon.regionOpen(new Uint8Array(addon.allocate(64 * PAGE, false)));
         addon.regionScan(id, view, true); parentPort.postMessage(id); parentPort.on('message', () => parentPort.close());`,
      );
      const id = (await helper.next()) as number;
      if (round % 2 === 0) await helper.worker.terminate();
      else helper.worker.postMessage('end');
      await helper.exited;
      assert.throws(() => addon().regionFill(id, new Uint8Array(PAGE_SIZE), Uint32Array.of(0)), code('ERR_CLOSED'));
    };
    await run(0);
    const before = descriptors();
    for (let round = 0; round < 50; round++) await run(round);
    assert.ok(descriptors() <= before, `${before} descriptors before, ${descriptors()} after`);
  });

  it('closes a region of shared memory that another thread opened, and lets it be opened again', async () => {
    const shared = new Memory({ initial: 4, maximum: 4, shared: true });
    const view = new Uint8Array(shared.buffer);
    const helper = new Helper(
      `const id = addon.regionOpen(new Uint8Array(workerData)); parentPort.postMessage(id); parentPort.on('message', () => {});`,
      shared.buffer,
    );
    const id = (await helper.next()) as number;
    view[PAGE_SIZE] = 1;
    assert.deepEqual(scan(id, view), [1, 1]);
    assert.throws(() => addon().regionOpen(view), code('EBUSY'));
    await helper.worker.terminate();
    assert.throws(() => addon().regionScan(id, view, true), code('ERR_CLOSED'));
    const again = addon().regionOpen(view);
    view[0] = 1;
    assert.deepEqual(scan(again, view), [0, 1]);
    addon().regionClose(again);
  });

  it('waits for what other threads do to a region', async () => {
    for (let round = 0; round < 10; round++) {
      const owner = new Helper(
        `const view = new Uint8Array(addon.allocate(4096 * PAGE, false)); globalThis.keep = view; parentPort.postMessage(addon.regionOpen(view)); parentPort.on('message', () => {});`,
      );
      const id = (await owner.next()) as number;
      const fillers = [0, 1].map(
        () =>
          new Helper(
            `const source = new Uint8Array(256 * PAGE).fill(1); const pages = Uint32Array.from({ length: 256 }, (_, k) => k * 16); parentPort.postMessage('ready');
             try { for (;;) { addon.regionFill(workerData, source, pages); addon.regionZero(workerData, Uint32Array.of(0, 4096)); } } catch (error) { parentPort.postMessage(error.code === "ERR_CLOSED" ? error.code : error.message); }`,
            id,
          ),
      );
      for (const filler of fillers) assert.equal(await filler.next(), 'ready');
      await new Promise((resolve) => setTimeout(resolve, 5));
      await owner.worker.terminate();
      for (const filler of fillers) assert.equal(await filler.next(), 'ERR_CLOSED');
      await Promise.all(fillers.map((filler) => filler.exited));
    }
  });

  it('unmaps memory that was collected, and tells V8 of it', async () => {
    // In a process of its own: what other tests have left is let go of meanwhile, and what they have mapped comes and goes.
    const { external, grown, length, before, after } = await inChild(
      { flags: ['--expose-gc'] },
      async ({ fs }, url) => {
        const { addon }: typeof import('../../lib/kernel/addon.js') = await import(url);
        const { gc } = globalThis as unknown as { gc: () => void };
        const mappedKiB = (): number => Number(/VmSize:\s+(\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))?.[1]);
        // What is left of starting goes first: allocating makes V8 collect it, too. Finalizers run later and let go of more.
        let { external } = process.memoryUsage();
        for (let steady = 0; steady < 3; ) {
          gc();
          await new Promise((resolve) => setImmediate(resolve));
          const left = process.memoryUsage().external;
          steady = left < external ? 0 : steady + 1;
          external = left;
        }
        let view: Uint8Array | undefined = new Uint8Array(addon().allocate(256 << 20, false));
        const before = mappedKiB();
        const grown = process.memoryUsage().external - external;
        const { length } = view;
        view = undefined;
        // V8 frees it on a thread of its own.
        const deadline = performance.now() + 10_000;
        while (mappedKiB() > before - (200 << 10) && performance.now() < deadline) {
          gc();
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
        return { external, grown, length, before, after: mappedKiB() };
      },
      ADDON,
    );
    assert.ok(grown >= 200 << 20, `${grown} bytes more than ${external}`);
    assert.equal(length, 256 << 20);
    assert.ok(after <= before - (200 << 10), `${before} KiB before, ${after} KiB after`);
  });

  it('survives the end of a process in every state', () => {
    const script = `const { Worker, isMainThread } = require('node:worker_threads'); const addon = require(${JSON.stringify(addonPath)});
      const view = new Uint8Array(addon.allocate(16384 * 4096, false)).fill(1); const id = addon.regionOpen(view);
      const staging = new Uint8Array(64 * 1052672); const segments = Int32Array.from({ length: 64 }, (_, k) => k);
      const copy = () => addon.copyPages(id, view, Uint32Array.of(0, 16384), 0, staging, segments, new Uint32Array(16384), new Uint32Array(128), 4);
      copy(); const ring = addon.ringCreate(1); addon.ringJoin(ring);
      if (isMainThread) { new Worker(__filename); setTimeout(() => { console.log('end'); HOW }, 150); } else { for (;;) copy(); }`;
    for (const how of ['process.exit(0)', 'process.reallyExit(0)', 'process.kill(process.pid, "SIGTERM")']) {
      let output: string;
      const file = `/tmp/tidemark-exit-${process.pid}.cjs`;
      execFileSync('/bin/sh', ['-c', 'cat > "$0"', file], { input: script.replace('HOW', how) });
      try {
        output = execFileSync(process.execPath, [file], { encoding: 'utf8', timeout: 20000 });
      } catch (error) {
        const { signal, status, stdout } = error as { signal: string | null; status: number | null; stdout: string };
        assert.equal(signal, how.includes('SIGTERM') ? 'SIGTERM' : null, `${how}: status ${status}`);
        assert.equal(status, null);
        output = stdout;
      } finally {
        execFileSync('rm', ['-f', file]);
      }
      assert.equal(output, 'end\n');
    }
  });

  it('may be loaded and unloaded in workers only, while the copy threads live on', () => {
    const script = `const { Worker } = require('node:worker_threads');
      const source = 'const addon = require(' + JSON.stringify(${JSON.stringify(addonPath)}) + '); const view = new Uint8Array(addon.allocate(16384 * 4096, false)).fill(1); const id = addon.regionOpen(view); addon.copyPages(id, view, Uint32Array.of(0, 1024), 0, new Uint8Array(4 * 1052672), Int32Array.of(0, 1, 2, 3), new Uint32Array(1024), new Uint32Array(8), 4);';
      (async () => { for (let i = 0; i < 5; i++) { await new Promise((resolve, reject) => { const worker = new Worker(source, { eval: true }); worker.on('error', reject); worker.on('exit', resolve); }); await new Promise((r) => setTimeout(r, 20)); } console.log('end'); })();`;
    assert.equal(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' }), 'end\n');
  });
});

describe('kernel: probe and allocate', () => {
  it('finds what this suite needs', () => {
    const found = addon().probe();
    for (let i = 0; i < 20; i++) assert.deepEqual(addon().probe(), found);
    assert.match(found.kernel, /^\d+\.\d+/);
    assert.notEqual(found.descriptor, '');
    assert.equal(typeof found.features, 'bigint');
    assert.equal(found.hostPageSize >= PAGE_SIZE, true);
    for (const key of ['pagemapScan', 'tracksWrites', 'reportsDropped', 'fillsArmed', 'givesBack'] as const)
      assert.equal(found[key], true, key);
  });

  it('leaves nothing behind', async () => {
    // In a process of its own: a thread of another test that starts maps 64 MiB for its heap.
    const { descriptors, mappedKiB } = await inChild(
      {},
      async ({ fs }, url) => {
        const { addon }: typeof import('../../lib/kernel/addon.js') = await import(url);
        const look = () => ({
          descriptors: fs.readdirSync('/proc/self/fd').length,
          mappedKiB: Number(/VmSize:\s+(\d+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))?.[1]),
        });
        addon().probe();
        const before = look();
        for (let i = 0; i < 20; i++) addon().probe();
        const after = look();
        return { descriptors: after.descriptors - before.descriptors, mappedKiB: after.mappedKiB - before.mappedKiB };
      },
      ADDON,
    );
    assert.equal(descriptors, 0);
    assert.ok(mappedKiB < 64 << 10, `${mappedKiB} KiB`);
  });

  asRoot('to become another user', () => {
    it('works without privilege, too', () => {
      const script = `const addon = require(${JSON.stringify(addonPath)}); process.setgid(65534); process.setgroups([]); process.setuid(65534); const found = addon.probe();
      console.log(JSON.stringify([found.descriptor, found.deviceError, found.syscallError, found.userModeError, found.kernelFaults, found.tracksWrites]));`;
      const result = JSON.parse(execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' })) as unknown[];
      assert.notEqual(result[0], 'device');
      assert.equal(result[1], 'EACCES');
    });
  });

  it('allocates zeroed memory of the length asked for, at a page boundary', () => {
    for (const hugePages of [false, true]) {
      for (const length of [1, 4096, 5000, 3 << 20]) {
        const buffer = addon().allocate(length, hugePages);
        assert.equal(buffer.byteLength, length);
        assert.ok(new Uint8Array(buffer).every((byte) => byte === 0));
      }
    }
    const view = new Uint8Array(addon().allocate(PAGE_SIZE, true));
    addon().regionClose(addon().regionOpen(view));
  });
});
