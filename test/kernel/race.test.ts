import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { toPages } from '../../lib/chain/runs.js';
import { addon, PAGE_SIZE } from '../../lib/kernel/addon.js';
import { Region } from '../../lib/region/region.js';

const PAGES = 4096;

/** Writes a byte of its own into pages at random, as fast as it can, until it is told to stop. */
const WRITER = `
  const { workerData, parentPort } = require('node:worker_threads');
  const memory = new Uint8Array(workerData.memory);
  const stop = new Int32Array(workerData.stop);
  let seed = 1;
  for (let round = 0; Atomics.load(stop, 0) === 0; round++) {
    for (let k = 0; k < 64; k++) {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      memory[((seed >>> 8) % ${PAGES}) * ${PAGE_SIZE} + 100] = 255;
    }
    if (round === 0) parentPort.postMessage('writing');
  }
  Atomics.store(stop, 0, 2);
  Atomics.notify(stop, 0);
`;

describe('a program that writes while its memory is filled', () => {
  /** Calls `change` again and again beside a writer; every page that is not as it was left must be reported afterwards. */
  async function race(rounds: number, expected: number, change: (region: Region) => void): Promise<void> {
    const region = Region.allocate(PAGES * PAGE_SIZE, { shared: true });
    const memory = new Uint8Array(region.buffer);
    let foreign = 0;
    for (let round = 0; round < rounds; round++) {
      memory.fill(7);
      region.takeDirtyRanges();
      const stop = new SharedArrayBuffer(4);
      const writer = new Worker(WRITER, { eval: true, workerData: { memory: region.buffer, stop } });
      await new Promise((resolve) => writer.once('message', resolve));
      change(region);
      Atomics.store(new Int32Array(stop), 0, 1);
      while (Atomics.load(new Int32Array(stop), 0) !== 2) await new Promise((resolve) => setImmediate(resolve));
      await writer.terminate();
      const reported = new Set(toPages(region.dirtyRanges()));
      for (let page = 0; page < PAGES; page++) {
        const at = page * PAGE_SIZE;
        const untouched = memory[at + 100] === expected;
        if (!untouched) foreign++;
        assert.ok(untouched || reported.has(page), `round ${round}: page ${page} was written and is not reported`);
      }
    }
    assert.ok(foreign > 0, 'the writer never got between, so nothing was tried');
    region.close();
  }

  it('finds its writes reported after pages were filled in place', () => {
    const source = new Uint8Array(PAGES * PAGE_SIZE).fill(1);
    const pages = Uint32Array.from({ length: PAGES }, (_, page) => page);
    return race(12, 1, (region) => {
      for (let k = 0; k < 5; k++) addon().regionFill(region.nativeId, source, pages);
    });
  });

  it('finds its writes reported after pages were made zero', () =>
    race(12, 0, (region) => {
      for (let k = 0; k < 5; k++) addon().regionZero(region.nativeId, Uint32Array.of(0, PAGES));
    }));
});
