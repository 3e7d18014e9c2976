import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ByteReader, ByteWriter } from '../../lib/chain/bytes.js';
import { addState, decodeManifest, encodeManifest, stateOf, storedPages, uidBytes } from '../../lib/chain/manifest.js';
import { allSlots, readExtents, StoredExtents, writeExtents } from '../../lib/chain/stored-extents.js';
import { manifest } from './manifest-arbitrary.js';
import { code } from './support.js';

const MASK = 2n ** 64n - 1n;

/** As docs/format.md defines it, one page at a time. */
function mix64(region: number, page: number, crc: number): bigint {
  let x = ((BigInt(page) << 32n) + BigInt(crc) + (BigInt(region) + 1n) * 0x9e3779b97f4a7c15n) & MASK;
  x ^= x >> 30n;
  x = (x * 0xbf58476d1ce4e5b9n) & MASK;
  x ^= x >> 27n;
  x = (x * 0x94d049bb133111ebn) & MASK;
  return x ^ (x >> 31n);
}

/** The fields of a manifest up to its regions, with one region that claims what it likes. */
function claiming(claim: { byteLength: number; slots: number; run: number }): Uint8Array {
  const out = new ByteWriter();
  out.varint(1);
  out.raw(new Uint8Array(16));
  out.varint(0);
  out.raw(new Uint8Array(16));
  out.varint(0);
  out.varint(0);
  out.u8(2);
  out.u64(0n);
  out.u64(0n);
  out.varint(1);
  out.varint(0);
  out.varint(0);
  out.u8(0);
  out.varint(0);
  out.varint(0);
  out.varint(1);
  out.text('{"branch":"main","captureMs":0,"encodeMs":0}');
  out.varint(1);
  out.varint(0);
  out.text('r');
  out.varint(claim.byteLength);
  out.varint(0);
  out.varint(0);
  out.varint(1);
  out.signed(1);
  out.varint(claim.slots);
  out.varint(0);
  out.signed(0);
  out.varint(1);
  out.varint(0);
  out.varint(claim.run);
  out.varint(0);
  out.varint(0);
  out.varint(0);
  return out.bytes().slice();
}

describe('chain: manifest', () => {
  it('is the same after encoding and decoding', () => {
    fc.assert(
      fc.property(manifest, (m) => {
        assert.deepEqual(decodeManifest(encodeManifest(m), 5), m);
      }),
      { numRuns: 400, seed: 5 },
    );
  });

  it('is refused with bytes behind its end and at every cut', () => {
    const large = fc
      .sample(manifest, { numRuns: 50, seed: 6 })
      .find(({ regions }) => regions.some((region) => storedPages(region) > 5 && region.zeros.length > 4));
    const payload = encodeManifest(large!).slice();
    assert.throws(() => decodeManifest(Uint8Array.from([...payload, 0]), 5), code('TIDEMARK_DAMAGED'));
    for (let length = 0; length < payload.length; length++)
      assert.throws(() => decodeManifest(payload.subarray(0, length), 5), code('TIDEMARK_DAMAGED'), `cut at ${length}`);
  });

  it('names the record in its errors', () => {
    assert.throws(() => decodeManifest(new Uint8Array(3), 77), /manifest 77/);
  });

  it('is refused before memory is taken for pages that it only claims', () => {
    for (const claim of [
      { byteLength: 4096, slots: 2, run: 2 },
      { byteLength: 8192, slots: 1, run: 2 },
      { byteLength: 2 ** 42, slots: 2 ** 29, run: 2 ** 29 },
      { byteLength: 2 ** 50, slots: 2 ** 33, run: 2 ** 33 },
      { byteLength: 2 ** 50, slots: 0, run: 2 ** 32 },
    ]) {
      const payload = claiming(claim);
      const before = process.resourceUsage().maxRSS;
      assert.throws(() => decodeManifest(payload, 5), code('TIDEMARK_DAMAGED'), JSON.stringify(claim));
      assert.ok(process.resourceUsage().maxRSS - before < 64 << 10, `memory for ${JSON.stringify(claim)}`);
    }
  });

  it('is refused with a region number that has no 32 bits', () => {
    const sample = fc.sample(manifest, { numRuns: 50, seed: 8 }).find(({ regions }) => regions.length > 0)!;
    const regions = sample.regions.map((region) => ({ ...region, number: 2 ** 32 }));
    const encoded = encodeManifest({ ...sample, regions, nextRegion: 2 ** 33 });
    assert.throws(() => decodeManifest(encoded, 5), code('TIDEMARK_DAMAGED'));
  });

  it('keeps nothing of the record with its attachments, which page tables keep', () => {
    const sample = fc
      .sample(manifest, { numRuns: 50, seed: 9 })
      .find(({ attachments }) => attachments.some((one) => one.byteLength > 0))!;
    for (const { extents } of decodeManifest(encodeManifest(sample).slice(), 5).attachments)
      assert.equal(extents.crcs.buffer.byteLength, extents.crcs.length);
  });

  it('is refused when its extents claim more pages together than checksums follow', () => {
    const whole = Array.from({ length: 200 }, (_, k) => ({
      record: k + 1,
      count: 256,
      slots: allSlots(256),
      pages: Uint32Array.from({ length: 256 }, (_, page) => k * 256 + page),
      crcs: new Uint32Array(256),
    }));
    const out = new ByteWriter();
    writeExtents(out, StoredExtents.of(whole));
    const encoded = out.bytes().slice();
    const read = (bytes: Uint8Array) => readExtents(new ByteReader(bytes, 'the test'), 200 * 256);
    assert.equal(read(encoded).length, 200);
    assert.throws(() => read(encoded.subarray(0, encoded.length - 200 * 128 * 4)), /claims \d+ pages/);
  });

  it('adds up states as the format says, whatever the order', () => {
    const word = fc.integer({ min: 0, max: 0xffff_ffff });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 32 - 2 }), fc.array(fc.tuple(word, word)), (region, versions) => {
        const expected = versions.reduce((sum, [page, crc]) => (sum + mix64(region, page, crc)) & MASK, 0n);
        const sum = (list: [number, number][]) =>
          stateOf(
            region,
            Uint32Array.from(list, ([page]) => page),
            Uint32Array.from(list, ([, crc]) => crc),
          );
        assert.equal(sum(versions), expected);
        assert.equal(sum([...versions].reverse()), expected);
        const half = versions.length >> 1;
        assert.equal(addState(sum(versions.slice(0, half)), sum(versions.slice(half))), expected);
        assert.equal(addState(expected, -expected), 0n);
      }),
      { seed: 7 },
    );
    assert.equal(stateOf(0, new Uint32Array(0), new Uint32Array(0)), 0n);
  });

  it('writes uids as 16 bytes', () => {
    assert.deepEqual([...uidBytes('000102030405060708090a0b0c0d0eff')], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
  });
});
