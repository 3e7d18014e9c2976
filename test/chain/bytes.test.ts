import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ByteReader, ByteWriter } from '../../lib/chain/bytes.js';
import { code } from './support.js';

const reader = (...bytes: number[]) => new ByteReader(Uint8Array.from(bytes), 'the test');

describe('chain: bytes', () => {
  it('reads any sequence of fields that was written', () => {
    const field = fc.oneof(
      fc.record({ type: fc.constant('u8' as const), value: fc.integer({ min: 0, max: 255 }) }),
      fc.record({ type: fc.constant('u32' as const), value: fc.integer({ min: 0, max: 0xffff_ffff }) }),
      fc.record({ type: fc.constant('u64' as const), value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) }),
      fc.record({ type: fc.constant('varint' as const), value: fc.maxSafeNat() }),
      fc.record({ type: fc.constant('signed' as const), value: fc.integer({ min: -(2 ** 52), max: 2 ** 52 - 1 }) }),
      fc.record({ type: fc.constant('text' as const), value: fc.string({ unit: 'grapheme' }) }),
    );
    fc.assert(
      fc.property(fc.array(field), fc.integer({ min: 1, max: 64 }), (fields, capacity) => {
        const out = new ByteWriter(capacity);
        for (const { type, value } of fields) (out[type] as (value: unknown) => void).call(out, value);
        assert.equal(out.bytes().length, out.length);
        // Somewhere inside a larger buffer, as records are.
        const inside = new Uint8Array(out.length + 5);
        inside.set(out.bytes(), 3);
        const read = new ByteReader(inside.subarray(3, 3 + out.length), 'the test');
        for (const { type, value } of fields) assert.deepEqual(read[type](), value);
        read.end();
      }),
      { numRuns: 300, seed: 1 },
    );
  });

  it('writes little endian and LEB128', () => {
    const out = new ByteWriter(1);
    out.u32(0x01020304);
    out.u64(0x1112131415161718n);
    for (const value of [0, 127, 128, 300, Number.MAX_SAFE_INTEGER]) out.varint(value);
    for (const value of [0, -1, 1, -64, 64]) out.signed(value);
    assert.deepEqual(
      [...out.bytes()],
      [4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]
        .concat([0, 127, 128, 1, 0xac, 2])
        .concat([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 15])
        .concat([0, 1, 2, 127, 128, 1]),
    );
  });

  it('refuses to write what cannot be a varint', () => {
    for (const value of [-1, 1.5, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY])
      assert.throws(() => new ByteWriter().varint(value), RangeError);
  });

  it('ends with DAMAGED outside the bytes, whatever is asked for', () => {
    for (const read of [
      () => reader().u8(),
      () => reader(1, 2, 3).u32(),
      () => reader(1, 2, 3, 4, 5, 6, 7).u64(),
      () => reader(0x80).varint(),
      () => reader(1, 2).raw(3),
      () => reader(1, 2).raw(Number.MAX_SAFE_INTEGER),
      () => reader(1, 2, 3, 4).u32s(2),
      () => reader(1, 2, 3, 4).u32s(2 ** 40),
      () => reader(5, 65).text(),
      () => reader(1).end(),
    ])
      assert.throws(read, code('TIDEMARK_DAMAGED'));
  });

  it('refuses numbers beyond 2^53 and text that is not UTF-8', () => {
    assert.throws(() => reader(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 16).varint(), code('TIDEMARK_DAMAGED'));
    assert.throws(() => reader(...new Array(8).fill(0x80), 1).varint(), code('TIDEMARK_DAMAGED'));
    for (const bytes of [
      [1, 0xff],
      [2, 0xc0, 0x80],
      [3, 0xed, 0xa0, 0x80],
    ])
      assert.throws(() => reader(...bytes).text(), code('TIDEMARK_DAMAGED'));
  });
});
