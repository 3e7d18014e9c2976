import assert from 'node:assert/strict';
import { Region, type RegionSource } from '../../lib/index.js';
import { code, dirty, GrowableShared, Memory, PAGE, ResizableBuffer, take, touch, WASM_PAGE, withRegion } from './support.js';

/** Tracks exactly: nothing at first, then what is written, then nothing again. */
function checkTracking(region: Region, byteOffset: number, pages: number): void {
  take(region);
  assert.deepEqual(dirty(region), []);
  touch(region, byteOffset, 0);
  touch(region, byteOffset, pages - 1);
  const expected = pages === 1 ? [0, 1] : pages === 2 ? [0, 2] : [0, 1, pages - 1, 1];
  assert.deepEqual(dirty(region), expected);
  assert.deepEqual(take(region), expected);
  assert.deepEqual(dirty(region), []);
}

describe('region: sources', () => {
  it('allocates zeroed memory in whole pages', () => {
    for (const shared of [false, true]) {
      for (const [size, expected] of [
        [1, PAGE],
        [PAGE, PAGE],
        [PAGE + 1, 2 * PAGE],
        [100 * PAGE, 100 * PAGE],
      ] as const) {
        withRegion(Region.allocate(size, { shared }), (region) => {
          assert.equal(region.byteLength, expected);
          assert.equal(region.pageSize, PAGE);
          assert.equal(region.buffer instanceof SharedArrayBuffer, shared);
          assert.ok(new Uint8Array(region.buffer).every((byte) => byte === 0));
          checkTracking(region, 0, expected / PAGE);
        });
      }
    }
  });

  it('refuses sizes and options that cannot be', () => {
    for (const size of [0, -1, 2 ** 50]) assert.throws(() => Region.allocate(size), RangeError);
    for (const size of [1.5, '4096', null, undefined, Number.NaN])
      assert.throws(() => Region.allocate(size as number), TypeError);
    for (const options of [null, 1, [], { shared: 1 }, { hugePages: 'yes' }, { size: 1 }])
      assert.throws(() => Region.allocate(PAGE, options as object), TypeError);
    assert.throws(() => Region.allocate(PAGE, { shared: true, hugePages: true } as object), TypeError);
  });

  for (const shared of [false, true]) {
    it(`takes a ${shared ? 'shared ' : ''}WebAssembly.Memory, whole and in part`, () => {
      const memory = new Memory({ initial: 3, maximum: 8, shared });
      withRegion(Region.of(memory), (region) => {
        assert.equal(region.byteLength, 3 * WASM_PAGE);
        checkTracking(region, 0, 48);
      });
      withRegion(Region.of(memory, { byteOffset: WASM_PAGE }), (region) => {
        assert.equal(region.byteLength, 2 * WASM_PAGE);
        checkTracking(region, WASM_PAGE, 32);
        touch(region, 0, 0);
        assert.deepEqual(dirty(region), [], 'a write before the part');
      });
      withRegion(Region.of(memory, { byteOffset: PAGE, byteLength: 2 * PAGE }), (region) => {
        assert.equal(region.byteLength, 2 * PAGE);
        checkTracking(region, PAGE, 2);
        touch(region, 0, 3);
        assert.deepEqual(dirty(region), [], 'a write behind the part');
      });
    });

    it(`follows a ${shared ? 'shared ' : ''}WebAssembly.Memory that grows`, () => {
      const memory = new Memory({ initial: 1, maximum: 8, shared });
      withRegion(Region.of(memory, { byteOffset: PAGE }), (region) => {
        take(region);
        touch(region, PAGE, 2);
        memory.grow(2);
        touch(region, PAGE, 20, 5);
        assert.deepEqual(dirty(region), [2, 1, 20, 1]);
        assert.equal(region.byteLength, 3 * WASM_PAGE - PAGE);
        assert.deepEqual(take(region), [2, 1, 20, 1]);
        memory.grow(1);
        assert.deepEqual(take(region), []);
        touch(region, PAGE, 61);
        assert.deepEqual(take(region), [61, 1]);
      });
    });
  }

  it('does not follow a part of fixed length', () => {
    const memory = new Memory({ initial: 1, maximum: 4 });
    withRegion(Region.of(memory, { byteLength: WASM_PAGE }), (region) => {
      memory.grow(1);
      touch(region, 0, 17);
      touch(region, 0, 3);
      assert.deepEqual(take(region), [3, 1]);
      assert.equal(region.byteLength, WASM_PAGE);
    });
  });

  it('takes buffers made with maxByteLength and follows them', () => {
    const shared = new GrowableShared(4 * PAGE, { maxByteLength: 64 * PAGE });
    const plain = new ResizableBuffer(4 * PAGE, { maxByteLength: 64 * PAGE });
    for (const [buffer, grow] of [
      [shared, (size: number) => shared.grow(size)],
      [plain, (size: number) => plain.resize(size)],
    ] as [RegionSource, (size: number) => void][]) {
      withRegion(Region.of(buffer), (region) => {
        checkTracking(region, 0, 4);
        grow(6 * PAGE + 100);
        // The last page is not whole: its bytes would be in no checkpoint without a word.
        assert.throws(() => take(region), code('TIDEMARK_UNALIGNED'));
        grow(7 * PAGE);
        touch(region, 0, 5);
        assert.deepEqual(take(region), [5, 1]);
        assert.equal(region.byteLength, 7 * PAGE);
        grow(40 * PAGE);
        touch(region, 0, 39);
        assert.deepEqual(take(region), [39, 1]);
        assert.equal(region.byteLength, 40 * PAGE);
      });
    }
  });

  it('takes page-aligned views of these', () => {
    const memory = new Memory({ initial: 1 });
    const buffers = [
      memory.buffer,
      new GrowableShared(16 * PAGE, { maxByteLength: 16 * PAGE }),
      new ResizableBuffer(16 * PAGE, { maxByteLength: 16 * PAGE }),
    ];
    const allocated = Region.allocate(16 * PAGE);
    const { buffer } = allocated;
    allocated.close();
    for (const source of [...buffers, buffer]) {
      withRegion(Region.of(new Uint8Array(source, 2 * PAGE, 3 * PAGE)), (region) => {
        assert.equal(region.byteLength, 3 * PAGE);
        assert.equal(region.buffer, source);
        checkTracking(region, 2 * PAGE, 3);
      });
    }
  });

  it('refuses all other memory with TIDEMARK_UNALIGNED and says what to do', () => {
    const memory = new Memory({ initial: 1 });
    const odd = new ResizableBuffer(4 * PAGE + 8, { maxByteLength: 8 * PAGE });
    const tries: [string, () => Region][] = [
      // The allocator may happen to begin one of these at a page; no page then ends with it, for its length is odd.
      ['ArrayBuffer', () => Region.of(new ArrayBuffer((1 << 20) + 8))],
      ['SharedArrayBuffer', () => Region.of(new SharedArrayBuffer((1 << 20) + 8))],
      ['Buffer from the pool', () => Region.of(Buffer.from('text'))],
      ['large Buffer', () => Region.of(Buffer.alloc((1 << 20) + 8))],
      ['small Uint8Array', () => Region.of(new Uint8Array(100))],
      ['empty Uint8Array', () => Region.of(new Uint8Array(memory.buffer, 0, 0))],
      ['view that begins inside a page', () => Region.of(new Uint8Array(memory.buffer, 8, PAGE))],
      ['view that ends inside a page', () => Region.of(new Uint8Array(memory.buffer, 0, PAGE - 8))],
      ['part that begins inside a page', () => Region.of(memory, { byteOffset: 100, byteLength: PAGE })],
      ['part that ends inside a page', () => Region.of(memory, { byteLength: 100 })],
      ['empty part', () => Region.of(memory, { byteOffset: WASM_PAGE })],
      ['resizable buffer of no whole pages', () => Region.of(odd)],
    ];
    for (const [what, make] of tries) {
      assert.throws(make, code('TIDEMARK_UNALIGNED'), what);
      assert.throws(make, /Region\.allocate|multiples of/, what);
    }
    for (const [, make] of tries) assert.throws(make, (error: { hint?: string }) => /Region\.allocate/.test(error.hint ?? ''));
    // The memory is free for who asks rightly.
    Region.of(memory).close();
  });

  it('refuses what is no memory', () => {
    for (const source of [
      null,
      undefined,
      1,
      'x',
      {},
      [],
      new Uint16Array(8),
      new DataView(new ArrayBuffer(8)),
      { buffer: new ArrayBuffer(8) },
    ])
      assert.throws(() => Region.of(source as unknown as Uint8Array), TypeError);
    const memory = new Memory({ initial: 1 });
    for (const range of [null, 1, { byteOffset: '0' }, { byteLength: 1.5 }, { length: 1 }])
      assert.throws(() => Region.of(memory, range as object), TypeError);
    for (const range of [{ byteOffset: -PAGE }, { byteOffset: 2 * WASM_PAGE }, { byteLength: 2 * WASM_PAGE }, { byteLength: 0 }])
      assert.throws(() => Region.of(memory, range), RangeError);
    assert.throws(() => Region.of(new Uint8Array(memory.buffer), { byteOffset: 0 }), TypeError);
  });
});
