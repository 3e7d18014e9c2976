import assert from 'node:assert/strict';
import { addon, PAGE_SIZE } from '../../lib/kernel/addon.js';
import { type EncodedPage, encode, jobOf, kindsOf, pageOf, withShadows, xor } from './shadow-support.js';
import { random } from './support.js';

const WHOLE = 1;

/** Whether a page has a shadow that holds `value`; where it has none it gets none by that. */
function has(shadows: number, table: number, page: number, value: number): boolean {
  // Found as it is: nothing is written, and only the page's own frame is used.
  const [{ kind }] = encode(shadows, jobOf(table), [[page, pageOf(page, value)]]) as [EncodedPage];
  return kind === 'unchanged';
}

const pagesOf = (pages: readonly number[], value = 0): [number, Buffer][] => pages.map((page) => [page, pageOf(page, value)]);

describe('kernel: room for shadows', () => {
  it('of 0 bytes, or less than a page: everything is full', async () => {
    for (const bytes of [0, 1, PAGE_SIZE - 1]) {
      const shadows = addon().shadowsCreate(bytes);
      const table = addon().shadowOpen(shadows);
      for (let k = 0; k < 3; k++)
        assert.deepEqual(kindsOf(encode(shadows, jobOf(table), pagesOf([1, 2]), [3])), ['full', 'full']);
      assert.equal(addon().shadowsUsed(shadows), 0);
      addon().shadowClose(shadows, table);
      addon().shadowsClose(shadows);
    }
  });

  it('is not taken from others by what is captured whole', () =>
    withShadows(4, (shadows, table) => {
      encode(shadows, jobOf(table, { mode: WHOLE }), pagesOf([1, 2, 3, 4, 5, 6]));
      assert.equal(addon().shadowsUsed(shadows), 4 * PAGE_SIZE);
      encode(shadows, jobOf(table, { mode: WHOLE }), pagesOf([7, 8]));
      const kinds = [1, 2, 3, 4].map((page) => has(shadows, table, page, 0));
      assert.deepEqual(kinds, [true, true, true, true]);
    }));

  it('is made by what was seen only by a capture of everything first', () =>
    withShadows(8, (shadows, table) => {
      encode(shadows, jobOf(table, { mode: WHOLE }), pagesOf([1, 2, 3, 4, 5, 6, 7, 8]));
      encode(shadows, jobOf(table), pagesOf([2, 3, 5, 7], 1));
      encode(shadows, jobOf(table), pagesOf([11, 12, 13, 14]));
      assert.equal(addon().shadowsUsed(shadows), 8 * PAGE_SIZE);
      const kept = encode(shadows, jobOf(table), [...pagesOf([2, 3, 5, 7], 2), ...pagesOf([11, 12, 13, 14], 2)]);
      assert.deepEqual(new Set(kindsOf(kept)), new Set(['delta']));
    }));

  it('is made by what was seen only by a capture of everything before what was written once', () =>
    withShadows(8, (shadows, table) => {
      encode(shadows, jobOf(table), pagesOf([1, 2, 3, 4]));
      encode(shadows, jobOf(table, { mode: WHOLE }), pagesOf([5, 6, 7, 8]));
      encode(shadows, jobOf(table), pagesOf([11, 12, 13, 14]));
      const kept = [1, 2, 3, 4].map((page) => has(shadows, table, page, 0));
      assert.deepEqual(kept, [true, true, true, true]);
    }));

  it('is made by what is cold, and what was written often stays longer', () =>
    withShadows(8, (shadows, table) => {
      for (let value = 0; value < 4; value++) encode(shadows, jobOf(table), pagesOf([1, 2], value));
      encode(shadows, jobOf(table), pagesOf([3, 4, 5, 6, 7, 8]));
      for (let page = 20; page < 26; page++) encode(shadows, jobOf(table), pagesOf([page]));
      assert.deepEqual(
        [1, 2].map((page) => has(shadows, table, page, 3)),
        [true, true],
      );
      // But not for ever.
      for (let page = 30; page < 90; page++) encode(shadows, jobOf(table), pagesOf([page]));
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table), pagesOf([1], 4))), ['full']);
    }));

  it('is not made by what the same job holds', () =>
    withShadows(4, (shadows, table) => {
      encode(shadows, jobOf(table), pagesOf([1, 2]));
      // 1 and 2 are held by then, and 3 and 4: 5 to 40 find nothing.
      const pages = Array.from({ length: 40 }, (_, k) => k + 1);
      const encoded = encode(shadows, jobOf(table), pagesOf(pages, 1));
      assert.deepEqual(kindsOf(encoded).slice(0, 3), ['delta', 'delta', 'full']);
      assert.equal(addon().shadowsUsed(shadows), 4 * PAGE_SIZE);
      assert.deepEqual(
        [1, 2, 3, 4].map((page) => has(shadows, table, page, 1)),
        [true, true, true, true],
      );
    }));

  it('is shared by tables; a full one is never exceeded, and whatever goes, deltas are right', () =>
    withShadows(24, (shadows, first) => {
      const tables = [first, addon().shadowOpen(shadows), addon().shadowOpen(shadows)];
      const pick = random(5);
      const turns = tables.map(() => 0);
      const model = tables.map(() => new Map<number, Buffer>());
      let [deltas, evicted] = [0, 0];
      for (let k = 0; k < 1500; k++) {
        const t = pick(3);
        const numbers = [...new Set(Array.from({ length: 1 + pick(6) }, () => (pick(2) === 0 ? pick(8) : pick(60))))];
        const pages = numbers.map((page) => [page, pageOf(page, pick(1000))] as const);
        const encoded = encode(shadows, jobOf(tables[t]!, { turn: turns[t]!++, mode: pick(5) === 0 ? WHOLE : 0 }), pages);
        for (const [j, [page, bytes]] of pages.entries()) {
          const { kind, base, stored } = encoded[j]!;
          const old = model[t]!.get(page);
          if (kind === 'full' && old !== undefined) evicted++;
          if (kind !== 'full') {
            assert.ok(old !== undefined && base === addon().crc32c(old), `job ${k}: page ${page} against something else`);
            if (kind === 'delta') assert.ok(stored!.equals(xor(old, bytes)));
            deltas++;
          }
          model[t]!.set(page, bytes);
        }
        assert.ok(addon().shadowsUsed(shadows) <= 24 * PAGE_SIZE);
        if (pick(200) === 0) {
          addon().shadowClose(shadows, tables[t]!);
          tables[t] = addon().shadowOpen(shadows);
          turns[t] = 0;
          model[t]!.clear();
        }
      }
      assert.ok(deltas > 500 && evicted > 500, `${deltas} deltas, ${evicted} evicted`);
    }));
});
