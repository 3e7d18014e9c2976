import assert from 'node:assert/strict';
import { constants } from 'node:buffer';
import { Worker } from 'node:worker_threads';
import { toPages } from '../../lib/chain/runs.js';
import { PAGE } from '../support/kit.js';
import { endKinds, KINDS, withMade } from './kinds.js';
import { SCAN_CASES, Scanned } from './scan-cases.js';

const PAGES = 1024;
const GIB = 2 ** 30 / PAGE;

/** Counts up in pages at random, as fast as it can, until it is told to stop. */
const COUNTER = `
const { workerData, parentPort } = require('node:worker_threads');
const words = new Uint32Array(workerData.buffer, 0, ${(PAGES * PAGE) / 4});
const state = new Int32Array(workerData.state);
let seed = workerData.seed;
for (let count = 1; Atomics.load(state, 0) === 0; count++) {
  for (let k = 0; k < 50; k++) {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    words[((seed >>> 8) % ${PAGES}) * 1024 + workerData.seed] = count;
  }
  Atomics.add(state, 1, 1);
}
parentPort.postMessage('done');
`;

describe('scan and arm', () => {
  after(endKinds);

  for (const kind of KINDS) {
    describe(kind.name, () => {
      for (const { what, pages = PAGES, suits, run } of SCAN_CASES) {
        if (suits?.(kind) === false) continue;
        it(what, () => withMade(kind, pages, (made) => run(new Scanned(kind, made, pages))));
      }

      // Huge pages are populated at once.
      if (kind.populated !== true)
        it('4 GiB that are mostly holes, or as much as there can be of it', async () => {
          const pages = kind.mostPages ?? Math.min(constants.MAX_LENGTH / PAGE, 5 * GIB);
          await withMade(kind, pages, (made) => {
            const memory = new Scanned(kind, made, pages);
            const last = memory.pages - 1;
            const some = [0, GIB / 2, GIB - 1, GIB, 2 * GIB, 4 * GIB - 1, 4 * GIB, last].filter((page) => page <= last);
            const expected = [...new Set(some)].sort((a, b) => a - b);
            for (let round = 0; round < 2; round++) {
              memory.touch(...expected);
              const runs = [...made.region.takeDirtyRanges()];
              assert.deepEqual([...toPages(Uint32Array.from(runs))], expected);
              memory.expect([]);
            }
            assert.deepEqual([...toPages(made.region.populated())], expected);
          });
        });

      if (kind.shared === true)
        it('reports every write of threads that go on while it scans', () =>
          withMade(kind, PAGES, async ({ region, bytes }) => {
            const view = bytes();
            const state = new SharedArrayBuffer(8);
            const flags = new Int32Array(state);
            const workers = [1, 2].map(
              (seed) => new Worker(COUNTER, { eval: true, workerData: { buffer: view.buffer, state, seed } }),
            );
            const done = workers.map((worker) => new Promise((resolve) => worker.once('message', resolve)));
            // What the scans have reported, as it was after each of them: a copy that is brought up to date by nothing else.
            const copy = view.slice();
            const deadline = performance.now() + 20_000;
            for (let scans = 0; scans < 400 || Atomics.load(flags, 1) < 200; scans++) {
              assert.ok(performance.now() < deadline, 'the writers are not getting on');
              for (const page of toPages(region.takeDirtyRanges()))
                copy.set(view.subarray(page * PAGE, (page + 1) * PAGE), page * PAGE);
              if (scans % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
            }
            Atomics.store(flags, 0, 1);
            await Promise.all(done);
            for (const page of toPages(region.takeDirtyRanges()))
              copy.set(view.subarray(page * PAGE, (page + 1) * PAGE), page * PAGE);
            assert.equal(Buffer.compare(copy, view), 0);
            await Promise.all(workers.map((worker) => worker.terminate()));
          }));
    });
  }
});
