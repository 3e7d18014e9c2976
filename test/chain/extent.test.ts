import assert from 'node:assert/strict';
import { ExtentReader, encodeExtent, FRAME_PAGES, scratchSize } from '../../lib/chain/extent.js';
import { zstd } from '../../lib/chain/zstd.js';
import { addon } from '../../lib/kernel/addon.js';
import { code, PAGE, random } from './support.js';

const HEADROOM = 4096;
const context = new (zstd().CCtx)();
context.setParameter(zstd().CParameter.compressionLevel, 1);
const scratch = new Uint8Array(scratchSize());

type Content = 'noise' | 'text' | 'mixed' | 'zero';

function makePages(count: number, content: Content, seed: number): Uint8Array {
  const pick = random(seed);
  const pages = new Uint8Array(count * PAGE);
  for (let page = 0; page < count; page++) {
    const kind = content === 'mixed' ? (['noise', 'text', 'zero'] as const)[pick(3)]! : content;
    if (kind === 'zero') continue;
    for (let at = page * PAGE; at < (page + 1) * PAGE; at++) pages[at] = kind === 'noise' ? pick(256) : 97 + (at % 23);
    pages[page * PAGE] = page;
  }
  return pages;
}

/** As a codec thread does it: in place, the payload beginning in the headroom before the pages. */
function encode(pages: Uint8Array): Uint8Array {
  const segment = new Uint8Array(HEADROOM + pages.length);
  segment.set(pages, HEADROOM);
  const target = segment.subarray(56);
  return target.subarray(0, encodeExtent(target, segment.subarray(HEADROOM), pages.length / PAGE, context, scratch)).slice();
}

function crcsOf(pages: Uint8Array): Uint32Array {
  const crcs = new Uint32Array(pages.length / PAGE);
  addon().crc32cPages(pages, crcs);
  return crcs;
}

describe('chain: extent', () => {
  it('gives back 1 to 256 pages of any content, encoded in place', () => {
    for (const count of [1, 2, 15, 16, 17, 31, 32, 33, 100, 255, 256]) {
      for (const content of ['noise', 'text', 'mixed', 'zero'] as const) {
        const pages = makePages(count, content, count);
        const payload = encode(pages);
        const reader = new ExtentReader(payload, 1);
        assert.equal(reader.count, count);
        const target = new Uint8Array(pages.length);
        reader.gather(
          Uint8Array.from({ length: count }, (_, k) => k),
          crcsOf(pages),
          target,
        );
        assert.ok(Buffer.from(target).equals(pages), `${count} pages of ${content}`);
        // Never longer than the pages and the directory.
        assert.ok(payload.length <= 8 + 4 * Math.ceil(count / FRAME_PAGES) + pages.length);
      }
    }
  });

  it('has its directory where docs/format.md says', () => {
    const noise = encode(makePages(17, 'noise', 1));
    const view = new DataView(noise.buffer);
    assert.deepEqual([view.getUint8(0), view.getUint8(1), view.getUint16(2, true), view.getUint32(4, true)], [0, 16, 17, 2]);
    // Stored as they are: the high bit is set.
    assert.deepEqual([view.getUint32(8, true), view.getUint32(12, true)], [0x8000_0000 + 16 * PAGE, 0x8000_0000 + PAGE]);
    assert.equal(noise.length, 16 + 17 * PAGE);
    const text = encode(makePages(17, 'text', 1));
    const lengths = new DataView(text.buffer);
    assert.equal(16 + lengths.getUint32(8, true) + lengths.getUint32(12, true), text.length);
  });

  it('finds single pages in any order', () => {
    const pages = makePages(100, 'mixed', 3);
    const reader = new ExtentReader(encode(pages), 1);
    const pick = random(4);
    for (let k = 0; k < 300; k++) {
      const slot = pick(100);
      assert.ok(Buffer.from(reader.page(slot)).equals(pages.subarray(slot * PAGE, (slot + 1) * PAGE)));
    }
  });

  it('says DAMAGED for a slot it has not, and for a page that is not what was stored', () => {
    const pages = makePages(20, 'text', 5);
    const reader = new ExtentReader(encode(pages), 321);
    assert.throws(() => reader.page(20), code('TIDEMARK_DAMAGED'));
    const crcs = crcsOf(pages);
    crcs[19]! ^= 1;
    const slots = Uint8Array.from({ length: 20 }, (_, k) => k);
    assert.throws(() => reader.gather(slots, crcs, new Uint8Array(pages.length)), /extent 321.*slot 19/);
  });

  it('is refused with a directory that cannot be', () => {
    const payload = encode(makePages(40, 'mixed', 6));
    const changes: [string, (view: DataView) => void][] = [
      ['kind', (view) => view.setUint8(0, 2)],
      ['no pages in a frame', (view) => view.setUint8(1, 0)],
      ['other pages in a frame', (view) => view.setUint8(1, 8)],
      ['more pages', (view) => view.setUint16(2, 65535, true)],
      ['fewer pages', (view) => view.setUint16(2, 1, true)],
      ['more frames', (view) => view.setUint32(4, 0xffff_ffff, true)],
      ['longer frame', (view) => view.setUint32(8, view.getUint32(8, true) + 1, true)],
      ['huge frame', (view) => view.setUint32(8, 0x7fff_ffff, true)],
    ];
    for (const [what, change] of changes) {
      const changed = payload.slice();
      change(new DataView(changed.buffer));
      assert.throws(() => new ExtentReader(changed, 1), code('TIDEMARK_DAMAGED'), what);
    }
    assert.throws(() => new ExtentReader(Uint8Array.from([...payload, 0]), 1), code('TIDEMARK_DAMAGED'));
  });

  it('gives right pages of other frames after one that does not decompress', () => {
    const pages = makePages(32, 'text', 7);
    const payload = encode(pages);
    const first = new DataView(payload.buffer).getUint32(8, true);
    // The last byte of the second frame: most of it decompresses before that is noticed.
    payload.fill(0xff, 16 + first + 12);
    const reader = new ExtentReader(payload, 1);
    assert.ok(Buffer.from(reader.page(3)).equals(pages.subarray(3 * PAGE, 4 * PAGE)));
    assert.throws(() => reader.page(20), code('TIDEMARK_DAMAGED'));
    assert.ok(Buffer.from(reader.page(3)).equals(pages.subarray(3 * PAGE, 4 * PAGE)));
  });
});
