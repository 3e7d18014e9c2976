import assert from 'node:assert/strict';
import { RegionTable, Version } from '../../lib/chain/page-table.js';
import { SEGMENT_PAGES } from '../../lib/kernel/addon.js';
import { groupByExtent } from '../../lib/restore/plan.js';
import { code } from '../chain/support.js';

const FAR = 2 ** 33;

/** A page table whose pages lie in the given records, in slots that count down in each. */
function tableOf(records: readonly number[]): RegionTable {
  const table = new RegionTable(0, 'memory', records.length * 4096, records.length * 4096, records.length);
  const used = new Map<number, number>();
  for (const [page, record] of records.entries()) {
    const slot = used.get(record) ?? 0;
    used.set(record, slot + 1);
    table.setStored(page, Version.full, record, (SEGMENT_PAGES - 1 - slot) & 0xff, 0, 0);
  }
  return table;
}

const all = (table: RegionTable): Uint32Array => Uint32Array.from({ length: table.pageCount }, (_, page) => page);

describe('pages to be restored, by the extents that hold them', () => {
  it('each extent once, in the order of the records, with its pages ascending and their slots', () => {
    const table = tableOf([FAR + 2, FAR + 2, 7, FAR + 2, 2, 7, 7]);
    const uses = groupByExtent(table, all(table));
    assert.deepEqual(
      [...uses].map(([record, use]) => [record, use.record, [...use.pages], [...use.slots]]),
      [
        [2, 2, [4], [255]],
        [7, 7, [2, 5, 6], [255, 254, 253]],
        [FAR + 2, FAR + 2, [0, 1, 3], [255, 254, 253]],
      ],
    );
    for (const { pages } of uses.values())
      assert.equal(pages.buffer.byteLength, pages.byteLength, 'a message takes no more along');
  });

  it('a full extent is none too many; one page more is damage', () => {
    const full = tableOf(new Array<number>(SEGMENT_PAGES).fill(9));
    assert.equal(groupByExtent(full, all(full)).get(9)!.pages.length, SEGMENT_PAGES);
    const over = tableOf(new Array<number>(SEGMENT_PAGES + 1).fill(9));
    assert.throws(() => groupByExtent(over, all(over)), code('TIDEMARK_DAMAGED'));
  });

  it('a table that names two extents in turn is refused at the first page too many', () => {
    const pages = 2 * SEGMENT_PAGES + 1;
    const table = tableOf(Array.from({ length: 1 << 20 }, (_, page) => 4 + (page & 1)));
    let seen = 0;
    const watched = new Proxy(all(table), {
      get(target, name) {
        if (name === 'subarray') seen++;
        const value: unknown = Reflect.get(target, name);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    assert.throws(() => groupByExtent(table, watched), code('TIDEMARK_DAMAGED'));
    assert.ok(seen <= pages, `${seen} rows were made`);
  });
});
