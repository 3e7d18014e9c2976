import assert from 'node:assert/strict';
import { totalmem } from 'node:os';
import { Engine } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';

const MIB = 1 << 20;

describe('memory in use', () => {
  const folder = storeFolders();

  it('stays below regions + staging + shadows + 1 % + a constant, with 512 MiB dirty and changing, 16 MiB of staging, 64 of shadows', async function () {
    // 2 GiB are written and synced: on a slow disk that takes a while.
    this.timeout(240_000);
    const { before, peak, pages, deltaPages, samples } = await inChild(
      { limitMs: 200_000 },
      async ({ Checkpointer, Engine, Region }, path) => {
        const { randomFillSync } = await import('node:crypto');
        const { Worker } = await import('node:worker_threads');
        const region = Region.allocate(512 << 20);
        const bytes = new Uint8Array(region.buffer);
        randomFillSync(bytes.subarray(0, 16 << 20));
        // Random, and different from page to page.
        for (let at = 16 << 20; at < bytes.length; at += 16 << 20) bytes.copyWithin(at, 0, 16 << 20);
        for (let at = 0; at < bytes.length; at += 4096) bytes[at] = at >>> 12;
        // A thread that samples, because the capture blocks this one. [peak, samples, stop]
        const seen = new Int32Array(new SharedArrayBuffer(12));
        const sampler = new Worker(
          `const { workerData } = require('node:worker_threads'); const { readFileSync } = require('node:fs');
          const seen = new Int32Array(workerData);
          while (seen[2] === 0) {
            const kib = Number(/RssAnon:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))[1]);
            if (kib > seen[0]) seen[0] = kib;
            Atomics.add(seen, 1, 1);
            Atomics.wait(seen, 2, 0, 3);
          }`,
          { eval: true, workerData: seen.buffer, execArgv: [] },
        );
        const engine = new Engine({ maxStagingBytes: 16 << 20, maxShadowBytes: 64 << 20 });
        const c = await Checkpointer.open(path, { regions: { r: region }, engine });
        while (Atomics.load(seen, 1) < 3) await new Promise((resolve) => setTimeout(resolve, 10));
        const before = seen[0]!;
        const { regions } = await c.checkpoint();
        let deltaPages = 0;
        for (let round = 1; round < 4; round++) {
          for (let at = 64; at < bytes.length; at += 4096) bytes[at]! += round;
          deltaPages += (await c.checkpoint()).regions.r!.deltaPages;
        }
        await c.close();
        Atomics.store(seen, 2, 1);
        Atomics.notify(seen, 2);
        await new Promise((resolve) => sampler.on('exit', resolve));
        await engine.close();
        return { before: before * 1024, peak: seen[0]! * 1024, pages: regions.r!.pages, deltaPages, samples: seen[1]! };
      },
      folder(),
    );
    assert.equal(pages, 131_072);
    // Those that there is room for.
    assert.ok(deltaPages > 10_000, `${deltaPages} deltas`);
    assert.ok(samples > 50, `${samples} samples`);
    assert.ok(before >= 512 * MIB, `${before / MIB} MiB before`);
    const beyond = (peak - before) / MIB - 16 - 64 - 5;
    // Measured: 118. LevelDB has two write buffers of 32 MiB, and copies a batch of 8 MiB twice.
    assert.ok(beyond < 190, `${beyond.toFixed(0)} MiB beyond region, staging, shadows and what the process had before`);
  });

  it('the default for staging follows what the container may use, or else the machine', () => {
    const { constrainedMemory } = process;
    const staging = (limit: number | undefined): number => {
      process.constrainedMemory = () => limit!;
      return new Engine().stats().stagingBytes / MIB;
    };
    // Whole segments, which are somewhat larger than 1 MiB.
    const near = (actual: number, expected: number) =>
      assert.ok(actual > expected - 2 && actual <= expected, `${actual}, not ${expected}`);
    try {
      near(staging(512 * MIB), 64);
      near(staging(64 * MIB), 16);
      near(staging(2 ** 40), staging(0));
      // Without a limit: 0, or a number that no machine has (cgroup v1 says 2^63 - 4096, libuv 2^64 - 1).
      const all = Math.min(256, totalmem() / 8 / MIB);
      for (const none of [0, 2 ** 63 - 4096, 2 ** 64]) near(staging(none), all);
    } finally {
      process.constrainedMemory = constrainedMemory;
    }
  });
});
