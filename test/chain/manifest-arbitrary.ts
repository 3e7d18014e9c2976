import fc from 'fast-check';
import type { Manifest, RegionChange, StoredAttachment } from '../../lib/chain/manifest.js';
import { toRuns } from '../../lib/chain/runs.js';
import { allSlots, type StoredExtent, StoredExtents } from '../../lib/chain/stored-extents.js';

const PAGE = 4096;
const recordNumber = fc.oneof(fc.integer({ min: 1, max: 1000 }), fc.integer({ min: 2 ** 32 - 5, max: 2 ** 48 - 700 }));
const word = fc.integer({ min: 0, max: 0xffff_ffff });
const uid = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString('hex'));
const state = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });

/** A region with pages split over extents that are in no order, and zero pages beside them; often empty. */
const region: fc.Arbitrary<RegionChange> = fc
  .record({
    number: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
    name: fc.stringMatching(/^[A-Za-z_][\w.-]{0,20}$/),
    pageCount: fc.integer({ min: 1, max: 700 }),
    /** What becomes of each page: 0 nothing, 1 stored, 2 zero. */
    fates: fc.oneof(
      fc.constant<number[]>([]),
      fc.array(fc.constantFrom(0, 1, 2), { maxLength: 700, size: 'max' }),
      fc.array(fc.constant(2), { maxLength: 20 }),
    ),
    cuts: fc.array(fc.integer({ min: 1, max: 256 }), { minLength: 1, maxLength: 8 }),
    records: fc.array(recordNumber, { minLength: 1, maxLength: 8 }),
    crc: word,
    cut: fc.nat(PAGE),
    unchangedPages: fc.nat(10_000),
  })
  .map(({ number, name, pageCount, fates, cuts, records, crc, cut, unchangedPages }) => {
    const chosen = fates.slice(0, pageCount);
    const pages = Uint32Array.from(chosen.flatMap((fate, page) => (fate === 1 ? [page] : [])));
    const zeros = toRuns(Uint32Array.from(chosen.flatMap((fate, page) => (fate === 2 ? [page] : []))));
    const extents: StoredExtent[] = [];
    for (let at = 0, k = 0; at < pages.length; k++) {
      const live = Math.min(cuts[k % cuts.length]!, pages.length - at);
      const own = pages.slice(at, at + live);
      const record = records[k % records.length]!;
      // Some have slots that do not count.
      const slots = Uint8Array.from(own, (_, slot) => slot * (1 + (live < 86 ? k % 3 : 0)) + (live < 86 ? k % 2 : 0));
      const crcs = own.map((page) => Math.imul(page + 1, crc) >>> 0);
      const count = slots.at(-1)! + 1 + (live < 86 ? k % 2 : 0);
      extents.push({ record, count, slots, pages: own, crcs });
      at += live;
    }
    // What was taken ahead is not in the order of its pages.
    if (cut % 2 === 1) extents.reverse();
    const byteLength = pageCount * PAGE;
    // Some of them hold deltas.
    const deltas = StoredExtents.of(extents.splice(0, cut % 5));
    const length = Math.max(0, byteLength - cut);
    return { number, name, byteLength, length, zeros, extents: StoredExtents.of(extents), deltas, unchangedPages };
  });

const attachment: fc.Arbitrary<StoredAttachment> = fc
  .record({
    name: fc.stringMatching(/^[A-Za-z_][\w.-]{0,20}$/),
    byteLength: fc.nat(600 * PAGE),
    sha256: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes).toString('hex')),
    record: recordNumber,
    crc: word,
  })
  .map(({ name, byteLength, sha256, record, crc }) => {
    const extents: StoredExtent[] = [];
    const all = Math.ceil(byteLength / PAGE);
    for (let at = 0; at < all; at += 256) {
      const pages = Uint32Array.from({ length: Math.min(256, all - at) }, (_, k) => at + k);
      const crcs = pages.map((page) => Math.imul(page, crc) >>> 0);
      extents.push({ record: record + at, count: pages.length, slots: allSlots(pages.length), pages, crcs });
    }
    return { name, byteLength, sha256, extents: StoredExtents.of(extents) };
  });

export const manifest: fc.Arbitrary<Manifest> = fc
  .record({
    id: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    uid,
    full: fc.boolean(),
    parent: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    parentUid: uid,
    depth: fc.nat(),
    createdAt: fc.integer({ min: 0, max: 8.64e15 }),
    sync: fc.boolean(),
    stateBefore: state,
    stateAfter: state,
    lowWater: recordNumber,
    previousManifest: fc.oneof(fc.constant(0), recordNumber),
    tableRecord: fc.oneof(fc.constant(0), recordNumber),
    tableLevel: fc.integer({ min: 0, max: 4 }),
    extentBytes: fc.integer({ min: 0, max: 2 ** 50 }),
    tableBytes: fc.integer({ min: 0, max: 2 ** 50 }),
    info: fc.record(
      {
        branch: fc.constantFrom('main', 'a-branch', '_'),
        label: fc.constantFrom('a', 'release-1.0'),
        metadata: fc.jsonValue().map((value) => JSON.parse(JSON.stringify(value))),
        fingerprint: fc.string({ unit: 'grapheme' }),
        captureMs: fc.nat(1000),
        encodeMs: fc.nat(1000),
      },
      { requiredKeys: ['branch', 'captureMs', 'encodeMs'], noNullPrototype: true },
    ),
    regions: fc.array(region, { maxLength: 4 }),
    attachments: fc.array(attachment, { maxLength: 3 }),
    more: fc.nat(5),
  })
  .map(({ full, parent, parentUid, more, ...rest }) => ({
    ...rest,
    nextRegion: Math.max(-1, ...rest.regions.map(({ number }) => number)) + 1 + more,
    parent: full ? null : parent,
    parentUid: full ? null : parentUid,
  })) as fc.Arbitrary<Manifest>;
