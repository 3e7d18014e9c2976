import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { Region } from '../../lib/index.js';
import { PAGE } from './support.js';

const PAGES = 2048;
const THREADS = 4;
const ROUNDS = 1000;
/** Every so many rounds the writers are held still, and everything is compared: a page that was missed is seen unless it was written again meanwhile. */
const COMPARE_EVERY = 25;

/** Words that writers and owner share: 0 go on, 1 wait, 2 end; how many wait; how many additions were made. */
const HOLD = 0;
const WAITING = 1;
const MADE = 2;

/**
 * Adds to words of pages at random: one that all threads share, with Atomics.add, or one of its own, as plain memory. Most additions are the first write to
 * their page since it was armed.
 */
const WRITER = `
  const { memory, control, thread } = require('node:worker_threads').workerData;
  const words = new Int32Array(memory), state = new Int32Array(control);
  let seed = thread + 1;
  for (;;) {
    for (let k = 0; k < 32; k++) {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      const page = ((seed >>> 8) % ${PAGES}) * ${PAGE / 4};
      if (seed >>> 31) Atomics.add(words, page, 1);
      else words[page + 1 + thread] = words[page + 1 + thread] + 1;
    }
    Atomics.add(state, ${MADE}, 32);
    if (Atomics.load(state, ${HOLD}) === 0) continue;
    Atomics.add(state, ${WAITING}, 1);
    Atomics.notify(state, ${WAITING});
    Atomics.wait(state, ${HOLD}, 1);
    Atomics.sub(state, ${WAITING}, 1);
    if (Atomics.load(state, ${HOLD}) === 2) break;
  }`;

describe('many threads that write while scans arm their pages again', () => {
  it(`have each write reported, in ${ROUNDS} rounds`, async () => {
    const region = Region.allocate(PAGES * PAGE, { shared: true });
    const memory = Buffer.from(region.buffer);
    /** What the memory is, as far as was reported. */
    const known = Buffer.alloc(memory.length);
    const control = new SharedArrayBuffer(12);
    const state = new Int32Array(control);
    const writers = Array.from({ length: THREADS }, (_, thread) => {
      const writer = new Worker(WRITER, { eval: true, execArgv: [], workerData: { memory: region.buffer, control, thread } });
      return new Promise<void>((resolve, reject) => writer.on('error', reject).on('exit', () => resolve()));
    });
    let reported = 0;
    let most = 0;
    const take = (): void => {
      const ranges = region.takeDirtyRanges();
      for (let k = 0; k < ranges.length; k += 2) {
        // What is written from here on, or was since it was armed, is reported again.
        const [first, count] = [ranges[k]! * PAGE, ranges[k + 1]! * PAGE];
        memory.copy(known, first, first, first + count);
        reported += ranges[k + 1]!;
      }
      most = Math.max(most, ranges.length / 2);
    };
    /** All writers wait, or `how` they end. */
    const hold = (): void => {
      Atomics.store(state, HOLD, 1);
      for (let waiting = 0; waiting < THREADS; waiting = Atomics.load(state, WAITING)) Atomics.wait(state, WAITING, waiting, 100);
    };
    const letGo = (how: 0 | 2): void => {
      Atomics.store(state, HOLD, how);
      Atomics.notify(state, HOLD);
      while (Atomics.load(state, WAITING) > 0);
    };
    const compare = (round: number): void => {
      take();
      if (memory.equals(known)) return;
      const missed: number[] = [];
      for (let at = 0; at < memory.length; at += PAGE)
        if (memory.compare(known, at, at + PAGE, at, at + PAGE) !== 0) missed.push(at / PAGE);
      assert.fail(`round ${round}: pages ${missed} were written, which was not reported`);
    };
    while (Atomics.load(state, MADE) < THREADS * 1000) await new Promise((resolve) => setTimeout(resolve, 5));
    try {
      for (let round = 1; round <= ROUNDS; round++) {
        take();
        if (round % COMPARE_EVERY !== 0) continue;
        hold();
        compare(round);
        letGo(0);
      }
    } finally {
      hold();
      letGo(2);
      await Promise.all(writers);
    }
    compare(ROUNDS);
    assert.deepEqual([...region.takeDirtyRanges()], [], 'nobody writes any more');
    const words = new Int32Array(region.buffer);
    assert.equal(
      words.reduce((sum, word) => sum + word, 0),
      Atomics.load(state, MADE),
      'each addition is in the memory',
    );
    assert.ok(
      reported > 50 * ROUNDS && most > 100,
      `${reported} pages in all, ${most} ranges at most: hardly anything was tried`,
    );
    region.close();
  });
});
