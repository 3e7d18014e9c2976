import assert from 'node:assert/strict';
import { addon, PAGE_SIZE, SEGMENT_HEADROOM, SEGMENT_PAGES, SEGMENT_STRIDE } from '../../lib/kernel/addon.js';
import { pageOf, xor } from './shadow-support.js';
import { code, Helper, Memory, random, scan, withRegion } from './support.js';

const stagingOf = (segments: number): Uint8Array => new Uint8Array(new SharedArrayBuffer(segments * SEGMENT_STRIDE));

/** Where a place is in staging. */
function at(staging: Uint8Array, segments: Int32Array, place: number): Uint8Array {
  const start =
    segments[Math.floor(place / SEGMENT_PAGES)]! * SEGMENT_STRIDE + SEGMENT_HEADROOM + (place % SEGMENT_PAGES) * PAGE_SIZE;
  return staging.subarray(start, start + PAGE_SIZE);
}

describe('kernel: pages put together in staging', () => {
  it('are copied to their places and XORed over what is there, as a plain model does it', () => {
    const staging = stagingOf(5);
    const segments = Int32Array.of(4, 0, 2);
    const pick = random(8);
    const model = new Map<number, Buffer>();
    for (let round = 0; round < 60; round++) {
      const places = [...new Set(Array.from({ length: 1 + pick(50) }, () => pick(3 * SEGMENT_PAGES)))];
      const pages = places.map(() => pageOf(pick(10_000)));
      const combine = pick(3) > 0;
      // A view that does not begin where a word does.
      const source = Buffer.concat([Buffer.alloc(3), ...pages]).subarray(3);
      addon().assemblePages(
        new Uint8Array(source.buffer, source.byteOffset, source.length),
        combine,
        Uint32Array.from(places),
        staging,
        segments,
      );
      for (const [k, place] of places.entries())
        model.set(place, combine ? xor(model.get(place) ?? Buffer.alloc(PAGE_SIZE), pages[k]!) : pages[k]!);
    }
    for (let place = 0; place < 3 * SEGMENT_PAGES; place++)
      assert.ok((model.get(place) ?? Buffer.alloc(PAGE_SIZE)).equals(at(staging, segments, place)), `place ${place}`);
    for (const segment of [1, 3])
      assert.ok(staging.subarray(segment * SEGMENT_STRIDE, (segment + 1) * SEGMENT_STRIDE).every((byte) => byte === 0));
    for (const segment of segments)
      assert.ok(
        staging.subarray(segment * SEGMENT_STRIDE, segment * SEGMENT_STRIDE + SEGMENT_HEADROOM).every((byte) => byte === 0),
      );
  });

  it('take deltas from several threads at once', async () => {
    const staging = stagingOf(1);
    const ROUNDS = 400;
    const helpers = [0, 1, 2].map(
      (part) =>
        new Helper(
          `const { staging, part, rounds } = workerData; const places = Uint32Array.from({ length: 64 }, (_, k) => k);
           for (let round = 0; round < rounds; round++) {
             addon.assemblePages(new Uint8Array(64 * PAGE).fill(1 << part), true, places, staging, Int32Array.of(0)); }
           addon.assemblePages(new Uint8Array(64 * PAGE).fill(0x10 << part), true, places, staging, Int32Array.of(0));
           parentPort.postMessage('done');`,
          { staging, part, rounds: ROUNDS },
        ),
    );
    for (const helper of helpers) assert.equal(await helper.next(), 'done');
    // An even number of times each, but for the last one.
    const pages = staging.subarray(SEGMENT_HEADROOM, SEGMENT_HEADROOM + 64 * PAGE_SIZE);
    assert.ok(pages.every((byte) => byte === 0x70));
    await Promise.all(helpers.map(({ exited }) => exited));
  });

  it('are read from a region, and nothing in it becomes present or dirty', () => {
    withRegion(1024, (id, view) => {
      const pick = random(4);
      for (let page = 0; page < 1024; page += 3) view.set(pageOf(page), page * PAGE_SIZE);
      scan(id, view);
      const populated = [...addon().regionPopulated(id, view, 0)];
      const staging = stagingOf(3);
      const segments = Int32Array.of(2, 1);
      // In no order, some twice, more than the kernel takes at once.
      const pages = Uint32Array.from({ length: 512 }, () => pick(1024));
      const places = Uint32Array.from({ length: 512 }, (_, k) => (k * 7) % 512);
      addon().regionRead(id, pages, places, staging, segments);
      for (const [k, page] of pages.entries()) {
        const expected = page % 3 === 0 ? pageOf(page) : Buffer.alloc(PAGE_SIZE);
        assert.ok(expected.equals(at(staging, segments, places[k]!)), `page ${page}`);
      }
      assert.deepEqual(scan(id, view), []);
      assert.deepEqual([...addon().regionPopulated(id, view, 0)], populated);
    });
  });

  it('are read from memory of WebAssembly', () => {
    const memory = new Memory({ initial: 1, maximum: 4 });
    const view = new Uint8Array(memory.buffer);
    const id = addon().regionOpen(view);
    view.set(pageOf(1), 15 * PAGE_SIZE);
    const staging = stagingOf(1);
    addon().regionRead(id, Uint32Array.of(15), Uint32Array.of(3), staging, Int32Array.of(0));
    assert.ok(pageOf(1).equals(at(staging, Int32Array.of(0), 3)));
    assert.throws(() => addon().regionRead(id, Uint32Array.of(16), Uint32Array.of(3), staging, Int32Array.of(0)), RangeError);
    addon().regionClose(id);
    assert.throws(
      () => addon().regionRead(id, Uint32Array.of(1), Uint32Array.of(3), staging, Int32Array.of(0)),
      code('ERR_CLOSED'),
    );
  });

  it('lie within staging, or nothing is touched', () => {
    withRegion(16, (id, view) => {
      view.fill(1);
      const staging = stagingOf(2);
      const wrong: [places: number[], segments: number[], bytes: Uint8Array][] = [
        [[0, 256], [0], staging],
        [[0, 4294967295], [0, 1], staging],
        [[0, 1], [2], staging],
        [[0, 256], [0, -1], staging],
        [[0, 1], [2147483647], staging],
        [[0, 1], [], staging],
        [[0], [0, 1], staging],
        [[0, 256], [0, 1], staging.subarray(0, SEGMENT_STRIDE + SEGMENT_HEADROOM + PAGE_SIZE - 1)],
      ];
      for (const [places, segments, bytes] of wrong) {
        const where = [Uint32Array.from(places), bytes, Int32Array.from(segments)] as const;
        const what = `places ${places} in segments ${segments}`;
        assert.throws(() => addon().regionRead(id, Uint32Array.of(1, 2), ...where), RangeError, what);
        for (const combine of [false, true])
          assert.throws(() => addon().assemblePages(new Uint8Array(2 * PAGE_SIZE).fill(1), combine, ...where), RangeError, what);
      }
      assert.throws(
        () => addon().regionRead(id, Uint32Array.of(1, 16), Uint32Array.of(0, 1), staging, Int32Array.of(0)),
        RangeError,
      );
      assert.ok(staging.every((byte) => byte === 0));
    });
  });
});
