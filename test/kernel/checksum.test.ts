import assert from 'node:assert/strict';
import { addon } from '../../lib/kernel/addon.js';
import { random } from './support.js';

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  return crc >>> 0;
});
function model(bytes: Uint8Array, crc = 0): number {
  let state = ~crc;
  for (const byte of bytes) state = (state >>> 8) ^ (table[(state ^ byte) & 255] as number);
  return ~state >>> 0;
}

describe('kernel: checksums', () => {
  it('knows the vectors of RFC 3720', () => {
    assert.equal(addon().crc32c(Buffer.from('123456789')), 0xe3069283);
    assert.equal(addon().crc32c(new Uint8Array(32)), 0x8a9136aa);
    assert.equal(addon().crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43);
    assert.equal(addon().crc32c(Uint8Array.from({ length: 32 }, (_, k) => k)), 0x46dd794e);
    assert.equal(addon().crc32c(new Uint8Array(0)), 0);
  });

  it('does what a plain model does for all lengths and offsets, in one go and continued', () => {
    const below = random(5);
    const bytes = Uint8Array.from({ length: 20000 }, () => below(256));
    for (let round = 0; round < 300; round++) {
      const from = below(64);
      const part = bytes.subarray(from, from + (round < 100 ? round : below(bytes.length - 64)));
      const expected = model(part);
      assert.equal(addon().crc32c(part), expected);
      const cut = below(part.length + 1);
      assert.equal(addon().crc32c(part.subarray(cut), addon().crc32c(part.subarray(0, cut))), expected);
    }
  });

  it('checks pages one by one', () => {
    const below = random(6);
    for (let pages = 0; pages < 8; pages++) {
      const bytes = Uint8Array.from({ length: pages * 4096 }, () => below(256));
      const out = new Uint32Array(pages + 1);
      addon().crc32cPages(bytes, out);
      for (let k = 0; k < pages; k++) assert.equal(out[k], model(bytes.subarray(k * 4096, (k + 1) * 4096)));
      assert.equal(out[pages], 0);
    }
  });

  it('sums the state as docs/format.md says', () => {
    const mask = (1n << 64n) - 1n;
    const mix = (region: number, page: number, crc: number): bigint => {
      let x = (((BigInt(page) << 32n) | BigInt(crc)) + BigInt(region + 1) * 0x9e3779b97f4a7c15n) & mask;
      x ^= x >> 30n;
      x = (x * 0xbf58476d1ce4e5b9n) & mask;
      x ^= x >> 27n;
      x = (x * 0x94d049bb133111ebn) & mask;
      return x ^ (x >> 31n);
    };
    const below = random(9);
    for (const region of [0, 1, 7, 4294967295]) {
      const pages = Uint32Array.from({ length: 100 }, () => below(2 ** 32));
      const crcs = Uint32Array.from({ length: 100 }, () => below(2 ** 32));
      let expected = 0n;
      for (let k = 0; k < 100; k++) expected = (expected + mix(region, pages[k] as number, crcs[k] as number)) & mask;
      assert.equal(addon().stateSum(region, pages, crcs), expected);
    }
    assert.equal(addon().stateSum(0, new Uint32Array(), new Uint32Array()), 0n);
  });
});
