import assert from 'node:assert/strict';
import { addon, PAGE_SIZE, SEGMENT_HEADROOM, SEGMENT_PAGES, SEGMENT_STRIDE } from '../../lib/kernel/addon.js';
import { Helper, Memory, peek, random, scan, toRuns, tracked, withRegion } from './support.js';

const page = (view: Uint8Array, number: number): Uint8Array => view.subarray(number * PAGE_SIZE, (number + 1) * PAGE_SIZE);

describe('kernel: fill and zero', () => {
  it('fills fresh, present, dirty, read and zeroed pages: content right, nothing dirty, everything armed', () => {
    const pages = 2048;
    withRegion(pages, (id, view) => {
      const below = random(3);
      for (let round = 0; round < 12; round++) {
        for (let i = 0; i < 60; i++) view[below(pages) * PAGE_SIZE + 9] = round + 1;
        let sum = 0;
        for (let i = 0; i < 60; i++) sum += view[below(pages) * PAGE_SIZE] as number;
        assert.ok(sum >= 0);
        const dirtyBefore = new Set<number>();
        const runs = peek(id, view);
        for (let i = 0; i < runs.length; i += 2)
          for (let k = 0; k < (runs[i + 1] as number); k++) dirtyBefore.add((runs[i] as number) + k);
        const chosen = [
          ...new Set(
            Array.from({ length: 300 }, () => below(pages)).flatMap((p) =>
              p % 3 === 0 ? [p, Math.min(p + 1, pages - 1), Math.min(p + 2, pages - 1)] : [p],
            ),
          ),
        ].sort((a, b) => a - b);
        const source = new Uint8Array(chosen.length * PAGE_SIZE);
        for (let k = 0; k < chosen.length; k++)
          source.fill((chosen[k] as number) * 7 + round + 1, k * PAGE_SIZE, (k + 1) * PAGE_SIZE);
        addon().regionFill(id, source, Uint32Array.from(chosen));
        for (const p of chosen) dirtyBefore.delete(p);
        assert.deepEqual(peek(id, view), [...toRuns([...dirtyBefore].sort((a, b) => a - b))]);
        for (let k = 0; k < chosen.length; k++) assert.equal(Buffer.compare(page(view, chosen[k] as number), page(source, k)), 0);
        // Armed: a write to each of them is seen.
        scan(id, view);
        for (const p of chosen) view[p * PAGE_SIZE] = 255;
        assert.deepEqual(scan(id, view), [...toRuns(chosen)]);
        const zeroed = toRuns([...new Set(Array.from({ length: 100 }, () => below(pages)))].sort((a, b) => a - b));
        addon().regionZero(id, zeroed);
        assert.deepEqual(scan(id, view), []);
        for (let i = 0; i < zeroed.length; i += 2)
          for (let k = 0; k < (zeroed[i + 1] as number); k++)
            assert.ok(page(view, (zeroed[i] as number) + k).every((byte) => byte === 0));
        view[(zeroed[0] as number) * PAGE_SIZE] = 1;
        assert.deepEqual(scan(id, view), [zeroed[0], 1]);
      }
    });
  });

  it('leaves the neighbours as dirty as they were', () => {
    withRegion(8, (id, view) => {
      view.fill(1, 0, 3 * PAGE_SIZE);
      addon().regionFill(id, new Uint8Array(2 * PAGE_SIZE).fill(5), Uint32Array.of(1, 4));
      assert.deepEqual(scan(id, view), [0, 1, 2, 1]);
    });
  });

  it('fills and zeroes memory of WebAssembly, before and after it grew', () => {
    const memory = new Memory({ initial: 2, maximum: 8 });
    const id = addon().regionOpen(new Uint8Array(memory.buffer));
    memory.grow(2);
    const view = new Uint8Array(memory.buffer);
    assert.throws(() => addon().regionFill(id, new Uint8Array(PAGE_SIZE), Uint32Array.of(32)), RangeError);
    addon().regionExtend(id, view);
    const all = Uint32Array.from({ length: 64 }, (_, k) => k);
    view[0] = 1;
    addon().regionFill(id, new Uint8Array(64 * PAGE_SIZE).fill(3), all);
    assert.deepEqual(scan(id, view), []);
    assert.ok(view.every((byte) => byte === 3));
    addon().regionZero(id, Uint32Array.of(0, 64));
    assert.deepEqual(scan(id, view), []);
    assert.ok(view.every((byte) => byte === 0));
    addon().regionClose(id);
  });

  it('fills from other threads while this one scans', async () => {
    const pages = 4096;
    const { id, view } = tracked(pages);
    const helpers = [0, 1].map(
      (part) =>
        new Helper(
          `const { id, part, pages } = workerData; const source = new Uint8Array(64 * PAGE);
           for (let round = 1; round <= 4; round++) for (let first = part * 64; first < pages; first += 128) {
             source.fill(round + part); addon.regionFill(id, source, Uint32Array.from({ length: 64 }, (_, k) => first + k)); }
           parentPort.postMessage('done');`,
          { id, part, pages },
        ),
    );
    const done = Promise.all(helpers.map((helper) => helper.next()));
    let finished = false;
    void done.finally(() => {
      finished = true;
    });
    while (!finished) {
      addon().regionScan(id, view, true);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await done;
    scan(id, view);
    assert.deepEqual(scan(id, view), []);
    for (let p = 0; p < pages; p++) assert.equal(view[p * PAGE_SIZE + 1], 4 + (Math.floor(p / 64) % 2));
    addon().regionClose(id);
    await Promise.all(helpers.map((helper) => helper.exited));
  });

  it('checks pages and source', () => {
    withRegion(8, (id, view) => {
      const source = new Uint8Array(3 * PAGE_SIZE).fill(1);
      for (const wrong of [[8], [1, 1], [2, 1], [0, 1, 2, 3], [4294967295]])
        assert.throws(() => addon().regionFill(id, source, Uint32Array.from(wrong)), RangeError);
      for (const wrong of [[8, 1], [7, 2], [0, 0], [1], [2, 2, 3, 1], [5, 1, 4, 1], [4294967295, 4294967295]]) {
        assert.throws(() => addon().regionZero(id, Uint32Array.from(wrong)), RangeError);
        assert.throws(() => addon().regionGiveBack(id, view, Uint32Array.from(wrong)), RangeError);
      }
      assert.ok(view.every((byte) => byte === 0));
      assert.deepEqual(scan(id, view), []);
    });
  });
});

describe('kernel: copyPages', () => {
  interface Copied {
    consumed: number;
    segments: Array<{ segment: number; pages: number[]; zeros: number[]; bytes: Uint8Array }>;
  }
  function copy(
    id: number,
    view: Uint8Array,
    runs: Uint32Array,
    skip: number,
    staging: Uint8Array,
    segments: Int32Array,
    threads: number,
  ): Copied {
    const pages = new Uint32Array(segments.length * SEGMENT_PAGES).fill(0xdeadbeef);
    const counts = new Uint32Array(segments.length * 2).fill(0xdeadbeef);
    const consumed = addon().copyPages(id, view, runs, skip, staging, segments, pages, counts, threads);
    return {
      consumed,
      segments: [...segments].map((segment, k) => {
        const [copied, zero] = [counts[2 * k] as number, counts[2 * k + 1] as number];
        const at = segment * SEGMENT_STRIDE + SEGMENT_HEADROOM;
        const first = k * SEGMENT_PAGES;
        return {
          segment,
          pages: [...pages.subarray(first, first + copied)],
          zeros: [...pages.subarray(first + copied, first + copied + zero)],
          bytes: staging.subarray(at, at + copied * PAGE_SIZE),
        };
      }),
    };
  }

  const aligned = (length: number) => new Uint8Array(new SharedArrayBuffer(length, { maxByteLength: length }));
  const LARGE = 12_000;
  const models: [string, { total: number; segments: number; rounds: number; staging: (length: number) => Uint8Array }][] = [
    ['', { total: 6000, segments: 24, rounds: 40, staging: aligned }],
    [', past the caches', { total: LARGE, segments: 44, rounds: 12, staging: aligned }],
    [
      ', as much into staging that is not aligned',
      { total: LARGE, segments: 44, rounds: 6, staging: (length) => new Uint8Array(new ArrayBuffer(length + 8), 8) },
    ],
  ];
  for (const [how, model] of models) it(`does what a plain model does${how}`, () => compareWithModel(model));

  function compareWithModel({ total, segments: most, rounds, staging: allocate }: (typeof models)[number][1]): void {
    withRegion(total, (id, view) => {
      const below = random(11);
      for (let p = 0; p < total; p++) {
        const kind = below(4);
        if (kind === 0) continue;
        // A single byte anywhere, the last one of the page often.
        view[p * PAGE_SIZE + (kind === 1 ? PAGE_SIZE - 1 : kind === 2 ? 0 : below(PAGE_SIZE))] = 1 + below(255);
      }
      const staging = allocate(most * SEGMENT_STRIDE);
      for (let round = 0; round < rounds; round++) {
        const dirty: number[] = [];
        const isDense = total === LARGE && round % 2 === 0;
        for (let p = below(50); p < total; p += 1 + (!isDense && below(3) === 0 ? below(200) : 0)) dirty.push(p);
        const skip = below(3) === 0 ? below(isDense ? 2000 : dirty.length + 10) : below(4) * 256;
        const segments = Int32Array.from(
          Array.from({ length: most }, (_, k) => k)
            .sort(() => below(3) - 1)
            .slice(0, isDense ? most : below(most + 1)),
        );
        staging.fill(0xee);
        const result = copy(id, view, toRuns(dirty), skip, staging, segments, 1 + below(4));
        const expected = dirty.slice(skip, skip + segments.length * SEGMENT_PAGES);
        assert.equal(result.consumed, expected.length);
        result.segments.forEach((segment, k) => {
          const chunk = expected.slice(k * SEGMENT_PAGES, (k + 1) * SEGMENT_PAGES);
          const isZero = (p: number): boolean => Buffer.compare(page(view, p), new Uint8Array(PAGE_SIZE)) === 0;
          assert.deepEqual(
            segment.pages,
            chunk.filter((p) => !isZero(p)),
          );
          assert.deepEqual(segment.zeros, chunk.filter(isZero));
          segment.pages.forEach((p, i) => {
            assert.equal(Buffer.compare(page(segment.bytes, i), page(view, p)), 0);
          });
          assert.equal(staging[segment.segment * SEGMENT_STRIDE], 0xee, 'headroom is left alone');
          const end = segment.segment * SEGMENT_STRIDE + SEGMENT_HEADROOM + segment.pages.length * PAGE_SIZE;
          if (end < staging.length) assert.equal(staging[end], 0xee, 'nothing behind the pages');
        });
      }
    });
  }

  it('copies as much from several threads at once', async () => {
    const { id, view } = tracked(8192);
    view.fill(7);
    const staging = new Uint8Array(new SharedArrayBuffer(32 * SEGMENT_STRIDE));
    for (let round = 0; round < 20; round++) {
      const result = copy(
        id,
        view,
        Uint32Array.of(0, 8192),
        0,
        staging,
        Int32Array.from({ length: 32 }, (_, k) => k),
        8,
      );
      assert.equal(result.consumed, 8192);
      assert.ok(result.segments.every((segment) => segment.pages.length === 256));
    }
    addon().regionClose(id);
  });

  it('checks segments, arrays and runs', () => {
    withRegion(1024, (id, view) => {
      const staging = new Uint8Array(2 * SEGMENT_STRIDE);
      const call = (runs: number[], segments: number[], pages: number, counts: number, skip = 0, bytes = staging): number =>
        addon().copyPages(
          id,
          view,
          Uint32Array.from(runs),
          skip,
          bytes,
          Int32Array.from(segments),
          new Uint32Array(pages),
          new Uint32Array(counts),
          2,
        );
      assert.equal(call([0, 1024], [0, 1], 512, 4), 512);
      assert.equal(call([0, 1024], [], 0, 0), 0);
      assert.equal(call([], [0], 256, 2), 0);
      assert.equal(call([0, 4], [0], 256, 2, 9), 0);
      assert.throws(() => call([0, 1025], [0], 256, 2), RangeError);
      assert.throws(() => call([1024, 1], [0], 256, 2), RangeError);
      assert.throws(() => call([0, 1], [2], 256, 2), RangeError);
      assert.throws(() => call([0, 1], [-1], 256, 2), RangeError);
      assert.throws(() => call([0, 1], [2147483647], 256, 2), RangeError);
      assert.throws(() => call([0, 1], [1, 1], 512, 4), RangeError);
      assert.throws(() => call([0, 1], [0, 1], 511, 4), RangeError);
      assert.throws(() => call([0, 1], [0, 1], 512, 3), RangeError);
      assert.throws(() => call([0, 1], [1], 256, 2, 0, staging.subarray(1)), RangeError);
      assert.throws(() => call([0, 1], [0], 256, 2, -1), RangeError);
      assert.throws(() => call([0, 1], [0], 256, 2, 0.5), RangeError);
    });
  });
});
