import assert from 'node:assert/strict';
import { open, readFile } from 'node:fs/promises';
import { addon, PAGE_SIZE } from '../../lib/kernel/addon.js';
import { storeFolders } from '../support/folders.js';
import { outcome } from '../support/kit.js';
import { resizable } from '../support/memories.js';
import { code, Helper, peek, random, scan, toRuns } from './support.js';

const PAGES = 128;

/** Source pages that are filled with `value`, a byte each; supplied. @returns how many were missing */
function supply(lazy: number, pages: number[], value: number, byFault = false): number {
  const source = new Uint8Array(pages.length * PAGE_SIZE).fill(value);
  const [crcs, depths] = [new Uint32Array(pages.length), new Uint8Array(pages.length)];
  return addon().regionSupply(lazy, source, Uint32Array.from(pages), byFault, 0, 0, crcs, depths);
}

const numbers = (first: number, count: number): number[] => Array.from({ length: count }, (_, k) => first + k);
const missing = (lazy: number): number[] => [...addon().regionMissing(lazy, 0, 100_000)];

/** What one supplies again and again, whatever is missing, until nothing is known of the region. Tells how many pages were its own. */
const SUPPLIER = `
  const { current, value, most } = workerData;
  const source = new Uint8Array(most * PAGE).fill(value);
  const [crcs, depths] = [new Uint32Array(most), new Uint8Array(most)];
  let filled = 0;
  parentPort.postMessage('ready');
  for (let from = 0, lazy = Atomics.load(current, 0); lazy !== 0; from = (from + 37) % 128, lazy = Atomics.load(current, 0)) {
    try {
      const pages = addon.regionMissing(lazy, from, most);
      filled += addon.regionSupply(lazy, source, pages, false, 0, 0, crcs, depths);
    } catch (error) {
      if (!['ERR_CLOSED', 'ERR_NOT_LAZY'].includes(error.code)) throw error;
    }
  }
  parentPort.postMessage(filled);`;

describe('kernel: residence', () => {
  let buffer: ReturnType<typeof resizable>;
  let id: number;
  /** What the verbs of lazy restore are told. */
  let lazy: number;
  /** The same for suppliers; 0: they are to end. */
  const current = new Int32Array(new SharedArrayBuffer(4));
  let files = '';
  let reads = 0;
  /** Resolves when the pager says that somebody waits. */
  let waited: Promise<void>;

  /** Memory of which pages are missing. What is in it before is said by `fill`. */
  function begin(pages: number[], fill: (view: Uint8Array) => void = () => {}): number {
    buffer = resizable(PAGES * PAGE_SIZE, 2 * PAGES * PAGE_SIZE);
    id = addon().regionOpen(view());
    fill(view());
    files = folder();
    return becomeLazy(pages);
  }

  function becomeLazy(pages: number[]): number {
    let wake: () => void;
    waited = new Promise((resolve) => {
      wake = resolve;
    });
    lazy = addon().regionBecomeLazy(id, toRuns(pages), false, () => wake());
    Atomics.store(current, 0, lazy);
    return lazy;
  }

  function view(): Uint8Array {
    return new Uint8Array(buffer, 0, buffer.byteLength);
  }

  const pageOf = (page: number): Uint8Array => view().subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  /**
   * The bytes in a page, read by a thread of the pool: where nobody serves, this thread would wait for ever. Each has a file of its own, for who waits holds
   * the lock of the file.
   */
  async function read(page: number): Promise<number[]> {
    const path = `${files}-${reads++}`;
    // (Not `writeFile`: the one of Node.js 26 looks at the bytes in this thread.)
    const file = await open(path, 'w');
    try {
      await file.write(pageOf(page));
    } finally {
      await file.close();
    }
    return [...new Set(await readFile(path))];
  }

  /** Pages are dropped, and armed. */
  const zero = (first: number, count: number): void => addon().regionZero(id, Uint32Array.of(first, count));
  /** All pages behind are dropped; V8 makes them zero before, and so waits for those that are missing. */
  function shrink(pages: number): void {
    buffer.resize(pages * PAGE_SIZE);
    buffer.resize(PAGES * PAGE_SIZE);
  }

  // Before the files are removed, which waits for who holds their locks.
  afterEach(() => addon().regionClose(id));
  const folder = storeFolders();

  it('fills what is missing, and nothing else', async () => {
    begin(numbers(10, 20), (bytes) => bytes.fill(7, 5 * PAGE_SIZE, 12 * PAGE_SIZE));
    assert.deepEqual(missing(lazy), numbers(10, 20));
    assert.equal(supply(lazy, [5, 9, 10, 11, 28, 29, 30], 1), 4);
    assert.deepEqual(missing(lazy), numbers(12, 16));
    for (const [page, byte] of [
      [5, 7],
      [9, 7],
      [10, 1],
      [11, 1],
      [29, 1],
      [30, 0],
    ] as const)
      assert.deepEqual(await read(page), [byte], `page ${page}`);
    pageOf(11).fill(3);
    assert.equal(supply(lazy, numbers(10, 20), 2), 16);
    assert.equal(supply(lazy, numbers(10, 20), 4), 0);
    assert.deepEqual([await read(10), await read(11), await read(12)], [[1], [3], [2]]);
    assert.deepEqual(scan(id, view()), [11, 1], 'what was put there is clean and armed, what was there before, too');
    const { ahead, byFault, missing: left } = addon().regionResidence(lazy);
    assert.deepEqual({ ahead, byFault, left }, { ahead: 20, byFault: 0, left: 0 });
  });

  it('tells of missing pages from one on, and from the start where there are no more', async () => {
    begin([...numbers(10, 5), ...numbers(50, 5)]);
    assert.deepEqual([...addon().regionMissing(lazy, 12, 4)], [12, 13, 14, 50]);
    assert.deepEqual([...addon().regionMissing(lazy, 53, 100)], [53, 54]);
    assert.deepEqual([...addon().regionMissing(lazy, 55, 3)], [10, 11, 12]);
    assert.deepEqual([...addon().regionMissing(lazy, 4_000_000_000, 1)], [10]);
  });

  it('tells of each page that somebody waits for once', async () => {
    begin(numbers(10, 20));
    const reads = [read(12), read(25), read(40)];
    await waited;
    const faults: number[] = [];
    while (faults.length < 2) {
      faults.push(...addon().regionFaults(lazy));
      await new Promise(setImmediate);
    }
    assert.deepEqual(
      faults.sort((a, b) => a - b),
      [12, 25],
    );
    assert.deepEqual([...addon().regionFaults(lazy)], []);
    assert.equal(supply(lazy, numbers(10, 20), 9, true), 20);
    assert.deepEqual(await Promise.all(reads), [[9], [9], [0]]);
    const stats = addon().regionResidence(lazy);
    assert.deepEqual(
      { ...stats, worstWait: stats.worstWait > 0, waits: stats.waits.reduce((sum, count) => sum + count, 0) },
      {
        missing: 0,
        poisoned: 0,
        faults: 2,
        byFault: 20,
        ahead: 0,
        worstWait: true,
        waits: 2,
      },
    );
    assert.deepEqual(scan(id, view()), []);
  });

  it('never fills what was dropped', async () => {
    begin(numbers(0, PAGES));
    assert.equal(supply(lazy, numbers(60, 10), 1), 10);
    zero(64, 20);
    assert.deepEqual(missing(lazy), [...numbers(0, 60), ...numbers(84, PAGES - 84)]);
    assert.equal(supply(lazy, numbers(0, PAGES), 2), 60 + PAGES - 84);
    shrink(120);
    assert.equal(supply(lazy, numbers(0, PAGES), 3), 0);
    const found = await Promise.all([59, 63, 64, 83, 84, 119, 120].map(read));
    assert.deepEqual(found.flat(), [2, 1, 0, 0, 2, 2, 0]);
    assert.deepEqual(scan(id, view()), [120, 8], 'zeros that it was told of are clean');
  });

  it('ends the wait of who touches a page that is dropped meanwhile', async () => {
    begin(numbers(0, PAGES));
    const reading = read(100);
    await waited;
    zero(64, 64);
    assert.deepEqual(await reading, [0]);
    assert.equal(supply(lazy, [100], 1), 0);
    assert.deepEqual(await read(100), [0]);
  });

  it('of a page that was dropped since it was armed is reported when it was read, of one that was zero not', async () => {
    begin(numbers(10, 5), (bytes) => bytes.fill(7, 20 * PAGE_SIZE, 110 * PAGE_SIZE));
    assert.deepEqual([await read(5), await read(115)], [[0], [0]]);
    assert.deepEqual(peek(id, view()), []);
    shrink(100);
    assert.deepEqual([await read(6), await read(105)], [[0], [0]]);
    assert.deepEqual(scan(id, view()), [100, PAGES - 100]);
    assert.deepEqual([await read(105), await read(106)], [[0], [0]]);
    assert.deepEqual(peek(id, view()), [], 'armed by the scan');
    pageOf(105).fill(1);
    pageOf(106).fill(1);
    assert.deepEqual(scan(id, view()), [105, 2]);
    assert.equal(supply(lazy, numbers(0, PAGES), 2), 5);
  });

  it('is filled by two threads, each page by one of them', async () => {
    for (let round = 0; round < 4; round++) {
      begin(numbers(0, PAGES));
      const suppliers = [1, 2].map((value) => new Helper(SUPPLIER, { current, value, most: 5 }));
      for (const supplier of suppliers) assert.equal(await supplier.next(), 'ready');
      const found = await Promise.all(numbers(0, PAGES).map(read));
      for (const [page, bytes] of found.entries()) assert.ok(bytes.length === 1 && bytes[0]! > 0, `page ${page} has ${bytes}`);
      assert.deepEqual(scan(id, view()), []);
      const ones = found.filter(([byte]) => byte === 1).length;
      Atomics.store(current, 0, 0);
      addon().regionClose(id);
      assert.deepEqual([await suppliers[0]!.next(), await suppliers[1]!.next()], [ones, PAGES - ones]);
      await Promise.all(suppliers.map((supplier) => supplier.exited));
    }
  });

  it('is filled by two threads while pages are dropped, and those stay zero', async () => {
    begin([]);
    const pick = random(5);
    const suppliers = [1, 1].map((value) => new Helper(SUPPLIER, { current, value, most: 64 }));
    for (const supplier of suppliers) assert.equal(await supplier.next(), 'ready');
    let early = 0;
    for (let round = 0; round < 150; round++) {
      becomeLazy(numbers(0, PAGES));
      // Some have been filled, others are missing still.
      for (let spin = pick(20_000); spin > 0; spin--) Math.sqrt(spin);
      const kept = 1 + pick(PAGES - 1);
      early += missing(lazy).length > 0 ? 1 : 0;
      if (pick(2) === 0) shrink(kept);
      else zero(kept, PAGES - kept);
      const deadline = performance.now() + 10_000;
      while (addon().regionResidence(lazy).missing > 0) assert.ok(performance.now() < deadline, 'still missing');
      const expected = new Uint8Array(PAGES * PAGE_SIZE).fill(1, 0, kept * PAGE_SIZE);
      if (Buffer.compare(view(), expected) === 0) continue;
      const wrong = numbers(0, PAGES).filter((page) => pageOf(page).some((byte) => byte !== (page < kept ? 1 : 0)));
      assert.fail(`round ${round}, ${kept} kept: pages ${wrong} are wrong`);
    }
    assert.ok(early > 15, `pages were missing still in ${early} rounds`);
    Atomics.store(current, 0, 0);
    addon().regionClose(id);
    for (const supplier of suppliers) assert.equal(typeof (await supplier.next()), 'number');
    await Promise.all(suppliers.map((supplier) => supplier.exited));
  });

  it('poisoned pages cannot be read, are not reported, and not filled', async () => {
    begin(numbers(10, 20), (bytes) => bytes.fill(7, 40 * PAGE_SIZE, 50 * PAGE_SIZE));
    supply(lazy, [12], 1);
    const reading = outcome(read(14));
    await waited;
    addon().regionPoison(lazy, Uint32Array.of(5, 10, 20, 1, 40, 5));
    assert.equal(await reading, 'EFAULT', 'who waits is told');
    addon().regionPoison(lazy, Uint32Array.of(14, 2));
    assert.deepEqual([...addon().regionPoisoned(id, false)], [10, 2, 13, 3, 20, 1]);
    assert.deepEqual(peek(id, view()), []);
    assert.deepEqual(await Promise.all([10, 15, 20].map((page) => outcome(read(page)))), ['EFAULT', 'EFAULT', 'EFAULT']);
    assert.deepEqual([await read(12), await read(40)], [[1], [7]]);
    pageOf(12).fill(2);
    assert.deepEqual(scan(id, view()), [12, 1]);
    assert.equal(supply(lazy, numbers(10, 20), 3), 13);
    assert.equal(await outcome(read(13)), 'EFAULT');
    assert.equal(addon().regionResidence(lazy).poisoned, 6);
    assert.deepEqual([...addon().regionPopulated(id, view(), 0)], [12, 1, 16, 4, 21, 9, 40, 10]);
    assert.deepEqual(await read(5), [0], 'it was not missing');
    assert.deepEqual([...addon().regionPoisoned(id, true)], [10, 2, 13, 3, 20, 1]);
    assert.deepEqual([...addon().regionPoisoned(id, true)], []);
    assert.deepEqual(await read(13), [0]);
    assert.deepEqual(scan(id, view()), [10, 2, 13, 3, 20, 1], 'they are dropped, which is a change');
  });

  it('goes on over the border of two mappings', async () => {
    for (const verb of ['supplied', 'poisoned', 'left']) {
      const server = begin([]);
      addon().regionEndServing(server);
      view().fill(1);
      buffer.resize(2 * PAGES * PAGE_SIZE);
      // Written before it is tracked, what was added is never one mapping with what was there before.
      view().fill(2, PAGES * PAGE_SIZE);
      addon().regionExtend(id, view());
      const again = becomeLazy(numbers(100, 60));
      if (verb === 'supplied') assert.equal(supply(lazy, numbers(90, 80), 3), 60);
      if (verb === 'poisoned') addon().regionPoison(lazy, Uint32Array.of(0, 256));
      if (verb === 'left') addon().regionEndServing(again);
      assert.deepEqual(missing(lazy), []);
      for (const page of [99, 100, 127, 128, 159, 160]) {
        if (page === 99 || page === 160) assert.deepEqual(await read(page), [page === 99 ? 1 : 2]);
        else if (verb === 'supplied') assert.deepEqual(await read(page), [3], `page ${page}`);
        else assert.equal(await outcome(read(page)), 'EFAULT', `page ${page}`);
      }
      assert.deepEqual([...addon().regionPoisoned(id, false)], verb === 'supplied' ? [] : [100, 60]);
      assert.deepEqual(scan(id, view()), []);
      if (verb === 'left') return;
      addon().regionClose(id);
    }
  });

  it('has nothing missing in what the memory has grown by', async () => {
    begin(numbers(100, 28));
    buffer.resize(160 * PAGE_SIZE);
    addon().regionExtend(id, view());
    assert.deepEqual(scan(id, view()), []);
    assert.deepEqual(await read(130), [0]);
    pageOf(140).fill(6);
    assert.deepEqual(missing(lazy), numbers(100, 28));
    assert.equal(supply(lazy, [127, 128, 129, 140], 1), 1);
    assert.deepEqual([await read(127), await read(128), await read(140)], [[1], [0], [6]]);
    addon().regionPoison(lazy, Uint32Array.of(126, 10));
    assert.deepEqual([...addon().regionPoisoned(id, false)], [126, 1]);
    assert.deepEqual(scan(id, view()), [140, 1]);
    assert.throws(() => supply(lazy, [160], 1), RangeError);
    assert.throws(() => addon().regionPoison(lazy, Uint32Array.of(155, 6)), RangeError);
    // All of it is lazy the next time.
    becomeLazy(numbers(120, 40));
    assert.equal(supply(lazy, numbers(120, 40), 4), 40);
    assert.deepEqual([await read(127), await read(159)], [[4], [4]]);
  });

  it('refuses what makes no sense', async () => {
    const server = begin([]);
    const page = new Uint8Array(PAGE_SIZE);
    const one = [new Uint32Array(1), new Uint8Array(1)] as const;
    assert.throws(() => addon().regionSupply(lazy, page, Uint32Array.of(1, 2), false, 0, 0, ...one), RangeError);
    assert.throws(() => addon().regionSupply(lazy, page, Uint32Array.of(PAGES), false, 0, 0, ...one), RangeError);
    assert.throws(() => addon().regionBecomeLazy(id, Uint32Array.of(PAGES - 1, 2), false, () => {}), RangeError);
    assert.throws(() => addon().regionBecomeLazy(id, new Uint32Array(0), false, undefined as never), TypeError);
    assert.throws(() => addon().regionBecomeLazy(id, new Uint32Array(0), 1 as never, () => {}), TypeError);
    addon().regionEndServing(server);
    addon().regionEndServing(server);
    addon().regionEndServing(0xfffffff);
  });

  it('verbs say when the region became lazy again, and when it is closed', async () => {
    const before = begin([]);
    becomeLazy([1]);
    const verbs: [string, (one: number) => unknown][] = [
      ['regionFaults', (one) => addon().regionFaults(one)],
      ['regionMissing', (one) => addon().regionMissing(one, 0, 1)],
      ['regionStillMissing', (one) => addon().regionStillMissing(one, new Uint32Array(0))],
      ['regionExpect', (one) => addon().regionExpect(one, new Uint32Array(0))],
      ['regionTouched', (one) => addon().regionTouched(one, 1)],
      ['regionSupply', (one) => supply(one, [1], 1)],
      ['regionPoison', (one) => addon().regionPoison(one, Uint32Array.of(1, 1))],
      ['regionResidence', (one) => addon().regionResidence(one)],
    ];
    for (const [name, verb] of verbs) assert.throws(() => verb(before), code('ERR_NOT_LAZY'), name);
    addon().regionEndServing(before);
    assert.deepEqual(missing(lazy), [1], 'the end of one is none of the other');
    assert.equal(supply(lazy, [1], 1), 1);
    addon().regionClose(id);
    for (const [name, verb] of verbs) assert.throws(() => verb(lazy), code('ERR_NOT_LAZY'), name);
    assert.throws(() => addon().regionPoisoned(id, false), code('ERR_CLOSED'));
    assert.throws(() => addon().regionFetch(id, new Uint32Array(0)), code('ERR_CLOSED'));
    assert.throws(() => addon().regionBecomeLazy(id, new Uint32Array(0), false, () => {}), code('ERR_CLOSED'));
  });

  it('what is missing when the region is closed cannot be read, nor when who serves ends', async () => {
    const server = begin(numbers(0, 10), (bytes) => bytes.fill(7, 10 * PAGE_SIZE));
    const reading = outcome(read(3));
    await waited;
    addon().regionClose(id);
    assert.deepEqual([await reading, await outcome(read(4)), await read(10)], ['EFAULT', 'EFAULT', [7]]);
    addon().regionEndServing(server);
    begin([]);
    const helper = new Helper(
      `parentPort.postMessage(addon.regionBecomeLazy(workerData, Uint32Array.of(20, 5), false, () => {})); parentPort.on('message', () => {});`,
      id,
    );
    const served = (await helper.next()) as number;
    const another = outcome(read(22));
    while (addon().regionResidence(served).faults === 0) await new Promise(setImmediate);
    await helper.worker.terminate();
    assert.equal(await another, 'EFAULT');
    assert.deepEqual([...addon().regionPoisoned(id, false)], [20, 5]);
    assert.deepEqual(scan(id, view()), []);
  });
});
