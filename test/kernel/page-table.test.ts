import assert from 'node:assert/strict';
import { ByteWriter } from '../../lib/chain/bytes.js';
import { OlderVersions } from '../../lib/chain/older-versions.js';
import { Version } from '../../lib/chain/page-table.js';
import { VersionColumns } from '../../lib/chain/version-columns.js';
import { addon, type LoadingColumns, NO_ROOM } from '../../lib/kernel/addon.js';

const FULL = Version.full;
const DELTA = Version.delta;
const words = (...values: number[]) => Uint32Array.from(values);
const bytes = (...values: number[]) => Uint8Array.from(values);

/** Room for some pages, with lists for as many, and for nodes. */
function columns(pages: number, nodes: number): LoadingColumns {
  const lists = new Uint32Array(pages);
  return [
    new VersionColumns(pages).bytes,
    new VersionColumns(nodes).bytes,
    lists,
    lists.slice(),
    new Uint8Array(pages),
    words(1, 0, 0),
  ];
}

/** Adds versions of these pages, each a run of its own. */
function add(to: LoadingColumns, kind: number, record: number, pages: number[]): number | undefined {
  const ones = new Uint32Array(pages.length).fill(1);
  const kinds = new Uint8Array(pages.length).fill(kind);
  const records = new Float64Array(pages.length).fill(record);
  return addon().tableAddRuns(...to, 0, kinds, records, Uint32Array.from(pages), ones, new Uint8Array(pages.length), bytes());
}

function addRun(to: LoadingColumns, first: number, length: number, kind: number, crcs = bytes()): number | undefined {
  return addon().tableAddRuns(...to, 5, bytes(kind), Float64Array.of(2 ** 40 + 9), words(first), words(length), bytes(3), crcs);
}

describe('kernel: page tables', () => {
  it('leaves pages behind the table alone', () => {
    const table = columns(4, 4);
    const behind = new Uint8Array(table[0].buffer).slice();
    assert.equal(add(table, FULL, 7, [4, 2 ** 32 - 1]), undefined);
    assert.equal(addRun(table, 4, 2 ** 32 - 1, FULL), undefined);
    assert.equal(addRun(table, 2 ** 32 - 1, 2 ** 32 - 1, Version.zero), undefined);
    assert.deepEqual(new Uint8Array(table[0].buffer), behind);
    assert.equal(addRun(table, 3, 2 ** 32 - 1, FULL), undefined);
    assert.deepEqual([...addon().tableStored(table[0])], [3, 1]);
  });

  it('stops where there is no room, and goes on from there', () => {
    const table = columns(3, 2);
    assert.equal(add(table, DELTA, 9, [0, 1, 2]), undefined);
    // Node 0 is none: there is room for one.
    assert.equal(add(table, DELTA, 8, [0, 1, 2]), NO_ROOM);
    assert.deepEqual([...table[5]], [2, 3, 1]);
    assert.equal(add(table, DELTA, 8, [0, 1, 2]), NO_ROOM);
    assert.deepEqual([...table[5]], [2, 3, 1]);
    const pool = new VersionColumns(10);
    pool.set(1, 8, 0, 0, DELTA);
    table[1] = pool.bytes;
    assert.equal(add(table, DELTA, 8, [0, 1, 2]), undefined);
    assert.deepEqual([pool.record(1), pool.record(2), pool.record(3), pool.record(4)], [8, 8, 8, 0]);
    table[5][2] = 0;
    assert.equal(add(table, FULL, 7, [0, 1, 2]), undefined);
    assert.deepEqual([...table[5]], [7, 0, 0]);
    // All have one: nothing is added any more.
    assert.equal(add(table, FULL, 6, [0, 1, 2]), undefined);
    assert.deepEqual([...table[5]], [7, 0, 0]);
  });

  it('needs no lists while no page has a second version', () => {
    const table = columns(3, 0);
    table[2] = table[3] = words();
    table[4] = bytes();
    assert.equal(add(table, DELTA, 9, [0, 1]), undefined);
    assert.equal(add(table, DELTA, 8, [2, 1]), NO_ROOM);
    assert.deepEqual([...table[5]], [1, 3, 1]);
  });

  it('names a page with more deltas than there may be', () => {
    const table = columns(3, 100);
    for (let k = 0; k < 65; k++) assert.equal(add(table, DELTA, 100 - k, [1]), undefined);
    assert.equal(add(table, DELTA, 1, [1]), 1);
    assert.equal(addRun(table, 0, 3, DELTA), 1);
  });

  it('goes on by itself, also where a page is in a list many times', () => {
    const newest = new VersionColumns(300);
    const older = new OlderVersions(300);
    const firsts = Uint32Array.from({ length: 300 * 40 }, (_, k) => Math.floor(k / 40));
    const kinds = new Uint8Array(firsts.length).fill(DELTA);
    const records = new Float64Array(firsts.length).fill(5);
    const lengths = new Uint32Array(firsts.length).fill(1);
    const slots = new Uint8Array(firsts.length);
    assert.equal(
      older.load(newest, (to) => addon().tableAddRuns(...to, 0, kinds, records, firsts, lengths, slots, bytes())),
      undefined,
    );
    assert.deepEqual([older.size, older.open], [300 * 39, 300]);
    assert.equal(older.count(299), 39);
  });

  it('enters a run at once or page by page alike', () => {
    const crcs = Uint8Array.from({ length: 6 * 4 + 1 }, (_, k) => 17 * k);
    const [atOnce, singly] = [columns(8, 1), columns(8, 1)];
    assert.equal(addRun(atOnce, 1, 6, FULL, crcs.subarray(1)), undefined);
    // One of them is known, so that each is looked at.
    addRun(singly, 3, 1, FULL, crcs.subarray(1 + 2 * 4, 1 + 3 * 4));
    singly[0][8 * 10 + 3] = 5;
    assert.equal(addRun(singly, 1, 6, FULL, crcs.subarray(1)), undefined);
    assert.deepEqual(singly[0], atOnce[0]);
  });

  it('checks columns', () => {
    const table = columns(4, 4);
    const runs = (count: {
      kinds?: number;
      records?: number;
      firsts?: number;
      lengths?: number;
      slots?: number;
      crcs?: number;
    }) =>
      addon().tableAddRuns(
        ...table,
        0,
        new Uint8Array(count.kinds ?? 2).fill(FULL),
        new Float64Array(count.records ?? 2),
        new Uint32Array(count.firsts ?? 2),
        new Uint32Array(count.lengths ?? 2).fill(1),
        new Uint8Array(count.slots ?? 2),
        new Uint8Array(count.crcs ?? 8),
      );
    assert.equal(runs({}), undefined);
    for (const field of ['kinds', 'records', 'firsts', 'lengths', 'slots']) {
      assert.throws(() => runs({ [field]: 1 }), RangeError, field);
      assert.throws(() => runs({ [field]: 3 }), RangeError, field);
    }
    for (const crcs of [1, 4, 7]) assert.throws(() => runs({ crcs }), RangeError);
    for (const record of [-1, NaN, Infinity, 2 ** 48]) assert.throws(() => add(table, FULL, record, [0]), RangeError);
    for (const kind of [0, 4, 255]) assert.throws(() => addRun(table, 0, 1, kind), RangeError);
    const wrong = (index: number, value: unknown) =>
      table.with(index as 0, value as Uint8Array) as unknown as ReturnType<typeof columns>;
    for (const [index, value] of [
      [0, new Uint8Array(13)],
      [0, new Uint8Array(16).subarray(1, 13)],
      [1, new Uint8Array(11)],
      [3, new Uint32Array(3)],
      [4, new Uint8Array(5)],
      [5, new Uint32Array(2)],
    ] as const)
      assert.throws(() => add(wrong(index, value), FULL, 1, [0]), RangeError, `argument ${index}`);
    assert.throws(() => addon().tableSum(0, new Uint8Array(13)), RangeError);
    const lists = columns(1, 2);
    lists[3][0] = 77;
    add(lists, DELTA, 2, [0]);
    assert.throws(() => add(lists, DELTA, 1, [0]), RangeError);
  });

  it('says what is wrong with a list of extents', () => {
    const list = (...fields: number[]) => {
      const out = new ByteWriter();
      for (const field of fields) out.varint(field);
      return out.bytes().slice();
    };
    const decode = (encoded: Uint8Array, pageCount = 100) => addon().decodeExtents(encoded, 0, pageCount);
    assert.equal(typeof decode(list(0)), 'object');
    // Signed numbers are twice as large: record 5, 3 slots of which slot 1 does not count, pages 10 and 12.
    const good = [1, 10, 3, 1, 1, 1, 20, 2, 0, 1, 1, 1];
    const decoded = decode(Uint8Array.from([...list(...good), ...new Uint8Array(8).fill(7)]));
    assert.ok(typeof decoded === 'object');
    const { firsts, lengths, slots, records, counts, ends, pageCount, next } = decoded;
    assert.deepEqual([...firsts, ...lengths, ...slots, ...records], [10, 12, 1, 1, 0, 2, 5, 5]);
    assert.deepEqual([...counts, ...ends, pageCount, next], [3, 2, 2, 12]);
    for (const [fields, why] of [
      [[9], /claims 9 extents/],
      [[1, 0, 3, 0, 0, 0, 0, 0], /names an extent of 3 pages, record 0/],
      [[1, 2, 257, 0, 0, 0, 0, 0], /names an extent of 257 pages/],
      [[1, 2, 0, 0, 0, 0, 0, 0], /names an extent of 0 pages/],
      [[1, 2, 2, 1, 0, 3, 0, 0], /names page 3 of 2/],
      [[1, 2, 2, 0, 1, 0, 0, 0], /names page -1/],
      [[1, 2, 2, 0, 0, 1, 0, 101, 0], /names page 101 of 100/],
      [[1, 2, 2, 0, 0, 1, 0, 257, 0], /names page 257 of/],
      [[1, 2, 2, 0, 0, 1, 0, 0, 0], /names page 0 of/],
      [[1, 2, 2, 0, 0, 1, 0, 3, 0], /3 pages in 2 slots/],
      [[1, 2, 2, 1, 0, 2, 0, 0, 0], /0 pages in 0 slots/],
      [[1, 2, 2, 0, 0, 1, 0, 2, 0], /claims 2 pages/],
      [[1, 2, 2, 0, 0], /ends in the middle|claims/],
    ] as const)
      assert.match(String(decode(list(...fields), 100)), why, fields.join(' '));
    assert.match(String(decode(bytes(1, 255, 255, 255, 255, 255, 255, 255, 255, 1))), /too large/);
    assert.match(String(decode(bytes(1, 255, 255, 255, 255, 255, 255, 255, 127))), /too large/);
    for (let length = 0; length < 20; length++)
      assert.equal(typeof decode(Uint8Array.from([...list(...good), ...new Uint8Array(8)]).subarray(0, length)), 'string');
    assert.throws(() => addon().decodeExtents(bytes(0), 2, 1), RangeError);
    assert.equal(typeof decode(list(...good, 0, 0, 0, 0, 0, 0, 0, 0), 2 ** 32), 'object');
  });

  it('says what is wrong with a layer', () => {
    const list = (...fields: number[]) => {
      const out = new ByteWriter();
      for (const field of fields) out.varint(field);
      return out.bytes().slice();
    };
    const decode = (encoded: Uint8Array, runs: number, mayBeZero = true) => addon().decodeLayer(encoded, 0, runs, mayBeZero);
    // Signed numbers are twice as large: pages 3 and 4 in record 5 from slot 9 on, 6 to 8 zero, 9 a delta in record 4.
    const good = list(3, 2, FULL, 10, 9, 1, 3, Version.zero, 0, 1, DELTA, 1, 7);
    const decoded = decode(good, 3);
    assert.ok(typeof decoded === 'object');
    const { firsts, lengths, kinds, slots, records, stored, next } = decoded;
    assert.deepEqual([...firsts, ...lengths, ...kinds], [3, 6, 9, 2, 3, 1, FULL, Version.zero, DELTA]);
    assert.deepEqual([...slots, ...records, stored, next], [9, 0, 7, 5, 5, 4, 3, 13]);
    assert.match(String(decode(good, 3, false)), /version of kind 1/);
    assert.match(String(decode(good, 5)), /claims 5 runs/);
    for (let length = 9; length < 13; length++) assert.equal(typeof decode(good.subarray(0, length), 3), 'string');
    for (const [fields, why] of [
      [[0, 1, 0, 0], /kind 0/],
      [[0, 1, 4, 0], /kind 4/],
      [[0, 1, FULL, 0, 0], /record 0/],
      [[0, 1, FULL, 1, 0], /record -1/],
      [[0, 1, FULL, 2 ** 49, 0], /record 281474976710656/],
      [[2 ** 32 - 1, 2, FULL, 2, 0], /page 4294967297/],
      [[0, 2 ** 32, FULL, 2, 0], /page 4294967296/],
      [[2 ** 52, 2 ** 52, FULL, 2, 0], /page/],
    ] as const)
      assert.match(String(decode(list(...fields), 1)), why, fields.join(' '));
  });
});
