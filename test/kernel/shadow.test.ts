import assert from 'node:assert/strict';
import { addon, PAGE_SIZE } from '../../lib/kernel/addon.js';
import { type EncodedPage, encode, jobOf, kindsOf, pageOf, withShadows, xor } from './shadow-support.js';
import { code, random } from './support.js';

const [WRITTEN, WHOLE, AHEAD] = [0, 1, 2];
const crcOf = (page: Uint8Array): number => addon().crc32c(page);

describe('kernel: shadows', () => {
  it('make deltas of pages that were encoded before', () =>
    withShadows(64, (shadows, table) => {
      const [one, two, three] = [pageOf(1), pageOf(2), pageOf(3)];
      assert.equal(addon().shadowsUsed(shadows), 0);
      const first = encode(shadows, jobOf(table), [
        [7, one],
        [9, two],
      ]);
      assert.deepEqual(
        first.map(({ kind, base }) => [kind, base]),
        [
          ['full', 0],
          ['full', 0],
        ],
      );
      assert.equal(addon().shadowsUsed(shadows), 2 * PAGE_SIZE);
      // A delta, a page that changed entirely, one that did not, a new one, a delta: packed by kind.
      const changed = pageOf(1, 99);
      const second = encode(shadows, jobOf(table), [
        [7, changed],
        [9, three],
      ]);
      assert.deepEqual(kindsOf(second), ['delta', 'full']);
      assert.deepEqual([second[0]!.base, second[1]!.base], [crcOf(one), 0]);
      assert.ok(second[0]!.stored!.equals(xor(one, changed)));
      const last = [pageOf(1, 100), pageOf(3, 1)] as const;
      const third = encode(shadows, jobOf(table), [
        [8, two],
        [9, last[1]],
        [600, pageOf(600)],
        [7, last[0]],
        [70_000, pageOf(70_000)],
      ]);
      assert.deepEqual(kindsOf(third), ['full', 'delta', 'full', 'delta', 'full']);
      assert.ok(third[1]!.stored!.equals(xor(three, last[1])) && third[3]!.stored!.equals(xor(changed, last[0])));
      const fourth = encode(shadows, jobOf(table), [
        [8, two],
        [9, pageOf(3, 2)],
        [70_000, pageOf(70_000)],
      ]);
      assert.deepEqual(kindsOf(fourth), ['unchanged', 'delta', 'unchanged']);
      assert.deepEqual([fourth[0]!.base, fourth[1]!.base, fourth[2]!.base], [crcOf(two), crcOf(last[1]), crcOf(pageOf(70_000))]);
    }));

  it('do what a plain model does', () =>
    withShadows(1024, (shadows, table) => {
      const pick = random(12);
      const model = new Map<number, { bytes: Buffer; depth: number }>();
      const seen = { full: 0, delta: 0, unchanged: 0 };
      const content = (page: number): Buffer => {
        const old = model.get(page)?.bytes;
        const kind = pick(6);
        if (old === undefined || kind === 0) return pageOf(pick(1000));
        const next = Buffer.from(old);
        // A few bytes, as many words as there may be or one more, or nothing.
        if (kind < 3) next[pick(PAGE_SIZE)]! += 1 + pick(255);
        else if (kind < 5) for (let word = 255 + pick(3); word > 0; word--) next[word * 8 + pick(8)]! ^= 1;
        return next;
      };
      for (let turn = 0; turn < 400; turn++) {
        const numbers = [...new Set(Array.from({ length: pick(40) }, () => pick(500)))];
        const zeros = Array.from({ length: pick(4) }, () => pick(500)).filter((page) => !numbers.includes(page));
        const mode = [WRITTEN, WRITTEN, WRITTEN, WRITTEN, WHOLE, AHEAD][pick(6)]!;
        const maxDepth = [2, 5, 64][pick(3)]!;
        const pages = numbers.map((page) => [page, content(page)] as const);
        const encoded = encode(shadows, jobOf(table, { turn, mode, maxDepth, sequence: turn }), pages, zeros);
        for (const page of zeros) model.delete(page);
        for (const [k, [page, bytes]] of pages.entries()) {
          const found = encoded[k]!;
          const old = mode === WRITTEN ? model.get(page) : undefined;
          const words = old === undefined ? 512 : changedWords(old.bytes, bytes);
          const kind = words === 0 ? 'unchanged' : words <= 256 && old!.depth < maxDepth ? 'delta' : 'full';
          assert.equal(found.kind, kind, `page ${page} of job ${turn}, ${words} words`);
          assert.equal(found.base, kind === 'full' ? 0 : crcOf(old!.bytes));
          if (kind === 'delta')
            assert.ok(found.stored!.equals(xor(old!.bytes, bytes)), `the delta of page ${page} of job ${turn}`);
          if (mode === AHEAD) model.delete(page);
          else if (kind !== 'unchanged') model.set(page, { bytes, depth: kind === 'delta' ? old!.depth + 1 : 0 });
          seen[kind]++;
        }
        assert.equal(addon().shadowsUsed(shadows), model.size * PAGE_SIZE);
      }
      assert.ok(Math.min(...Object.values(seen)) > 300, JSON.stringify(seen));
    }));

  it('make no delta of more words than are worth it', () =>
    withShadows(4, (shadows, table) => {
      for (const maxWords of [0, 1, 63, 64, 65, 511, 512, 4294967295]) {
        const most = Math.min(maxWords, 512);
        encode(shadows, jobOf(table, { mode: WHOLE }), [[1, pageOf(1)]]);
        const kinds = [most, most + 1].map((words) => {
          const page = pageOf(1);
          for (let word = 0; word < Math.min(words, 512); word++) page[word * 8 + 5]! ^= 0x80;
          const [{ kind }] = encode(shadows, jobOf(table, { maxWords }), [[1, page]]) as [EncodedPage];
          encode(shadows, jobOf(table, { mode: WHOLE }), [[1, pageOf(1)]]);
          return kind;
        });
        const least = most === 0 ? 'unchanged' : 'delta';
        assert.deepEqual(kinds, [least, most === 512 ? 'delta' : 'full'], `${maxWords}`);
      }
    }));

  it('make so many deltas on a full page, then a full one', () =>
    withShadows(4, (shadows, table) => {
      for (const maxDepth of [0, 1, 3, 64]) {
        encode(shadows, jobOf(table, { mode: WHOLE }), [[1, pageOf(1)]]);
        const kinds: string[] = [];
        for (let k = 1; k < 2 * maxDepth + 4; k++) {
          kinds.push(...kindsOf(encode(shadows, jobOf(table, { maxDepth }), [[1, pageOf(1, k)]])));
          // What did not change does not count.
          assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { maxDepth }), [[1, pageOf(1, k)]])), ['unchanged']);
        }
        const expected = kinds.map((_, k) => ((k + 1) % (maxDepth + 1) === 0 ? 'full' : 'delta'));
        assert.deepEqual(kinds, expected, `${maxDepth}`);
      }
    }));

  it('are not believed when they are not what they were', () =>
    withShadows(8, (shadows, table) => {
      const other = addon().shadowOpen(shadows);
      const pages = [1, 2, 3].map((page) => [page, pageOf(page)] as const);
      encode(shadows, jobOf(table), pages);
      encode(shadows, jobOf(other), pages);
      addon().shadowCorrupt(shadows, table);
      const encoded = encode(shadows, jobOf(table), [pages[0]!, [2, pageOf(2, 2)], [3, pageOf(3, 3)]]);
      assert.deepEqual(
        encoded.map(({ kind, base }) => [kind, base]),
        [1, 2, 3].map(() => ['full', 0]),
      );
      // Good again, and those of the other table have never been touched.
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table), [[2, pageOf(2, 3)]])), ['delta']);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(other), [[2, pageOf(2, 3)], pages[0]!])), ['delta', 'unchanged']);
    }));

  it('are none of what is taken ahead, and of what is taken whole none are compared with', () =>
    withShadows(8, (shadows, table) => {
      encode(shadows, jobOf(table), [[1, pageOf(1)]]);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { mode: WHOLE }), [[1, pageOf(1)]])), ['full']);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { mode: AHEAD }), [[1, pageOf(1)]])), ['full']);
      assert.equal(addon().shadowsUsed(shadows), 0);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table), [[1, pageOf(1)]])), ['full']);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table), [[1, pageOf(1)]])), ['unchanged']);
    }));

  it('of a table go with it, and those of others stay', () =>
    withShadows(8, (shadows, table) => {
      const other = addon().shadowOpen(shadows);
      encode(shadows, jobOf(table), [[1, pageOf(1)]]);
      encode(shadows, jobOf(other), [[1, pageOf(2)]]);
      addon().shadowClose(shadows, table);
      addon().shadowClose(shadows, table);
      assert.equal(addon().shadowsUsed(shadows), PAGE_SIZE);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(other), [[1, pageOf(2, 5)]])), ['delta']);
      // A job that comes too late.
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table), [[1, pageOf(1)]])), ['full']);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { turn: 9 }), [[1, pageOf(1)]])), ['full']);
      assert.equal(addon().shadowsUsed(shadows), PAGE_SIZE);
      addon().shadowClose(shadows, other);
      assert.equal(addon().shadowsUsed(shadows), 0);
      const third = addon().shadowOpen(shadows);
      encode(shadows, jobOf(third), [[1, pageOf(1)]]);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(third), [[1, pageOf(1, 4)]])), ['delta']);
      assert.ok(![table, other].includes(third));
    }));

  it('are dropped for what a failed checkpoint wrote, and what came after it', () =>
    withShadows(16, (shadows, table) => {
      for (const sequence of [3, 4, 5, 6]) encode(shadows, jobOf(table, { sequence }), [[sequence, pageOf(sequence)]]);
      // Found as it was: it is still the version that 4 has stored.
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { sequence: 6 }), [[4, pageOf(4)]])), ['unchanged']);
      assert.equal(addon().shadowFail(shadows, table, 5), 1);
      const again = [3, 4, 5, 6].map((page) => [page, pageOf(page, 1)] as const);
      const generation = 1;
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { generation, sequence: 7 }), again)), [
        'delta',
        'delta',
        'full',
        'full',
      ]);
      assert.equal(addon().shadowFail(shadows, table, 0), 2);
      assert.equal(addon().shadowsUsed(shadows), 0);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { generation: 2 }), again)), ['full', 'full', 'full', 'full']);
    }));

  it('are neither used nor left by a job of an old generation', () =>
    withShadows(16, (shadows, table) => {
      encode(shadows, jobOf(table, { sequence: 1 }), [[1, pageOf(1)]]);
      addon().shadowFail(shadows, table, 2);
      // Whatever its turn, which is of another order; and the pages that it found zero are not zero now.
      const old = jobOf(table, { generation: 0, turn: 1000, sequence: 2 });
      assert.deepEqual(kindsOf(encode(shadows, old, [[2, pageOf(2)]], [1])), ['full']);
      const later = encode(shadows, old, [[1, pageOf(1, 1)]]);
      assert.deepEqual([later[0]!.kind, later[0]!.base], ['full', 0]);
      const now = jobOf(table, { generation: 1, turn: 0, sequence: 3 });
      assert.deepEqual(
        kindsOf(
          encode(shadows, now, [
            [1, pageOf(1, 1)],
            [2, pageOf(2)],
          ]),
        ),
        ['delta', 'full'],
      );
      assert.equal(addon().shadowsUsed(shadows), 2 * PAGE_SIZE);
    }));

  it('are dropped for what one checkpoint wrote, or will, when its capture fails', () =>
    withShadows(16, (shadows, table) => {
      encode(
        shadows,
        jobOf(table, { sequence: 4 }),
        [1, 2, 3, 6].map((page) => [page, pageOf(page)] as const),
      );
      encode(shadows, jobOf(table, { sequence: 5 }), [
        [1, pageOf(1, 1)],
        [3, pageOf(3)],
      ]);
      addon().shadowDrop(shadows, table, 5);
      // Sent before it failed: all its pages will be in the next checkpoint, on the version that 4 has stored. It leaves none that others could take for that.
      assert.deepEqual(
        kindsOf(
          encode(
            shadows,
            jobOf(table, { sequence: 5 }),
            [
              [2, pageOf(2, 1)],
              [5, pageOf(5)],
            ],
            [6],
          ),
        ),
        ['full', 'full'],
      );
      const next = [1, 2, 3, 5, 6].map((page) => [page, pageOf(page, 2)] as const);
      const encoded = encode(shadows, jobOf(table, { sequence: 6 }), next);
      assert.deepEqual(kindsOf(encoded), ['full', 'full', 'delta', 'full', 'full']);
      assert.equal(encoded[2]!.base, crcOf(pageOf(3)));
    }));

  it('are given to restored pages and taken from zeroed ones', () =>
    withShadows(4, (shadows, table) => {
      const put = (pages: number[], value: number, depths: number[]): void => {
        const contents = pages.map((page) => pageOf(page, value));
        const [bytes, crcs] = [Buffer.concat(contents), Uint32Array.from(contents, crcOf)];
        addon().shadowPut(shadows, table, Uint32Array.from(pages), bytes, crcs, Uint8Array.from(depths));
      };
      encode(shadows, jobOf(table), [
        [1, pageOf(1)],
        [2, pageOf(2)],
      ]);
      // Replaced, new, new, and no room.
      put([2, 3, 4, 5], 8, [2, 31, 32, 0]);
      assert.equal(addon().shadowsUsed(shadows), 4 * PAGE_SIZE);
      const encoded = encode(
        shadows,
        jobOf(table, { maxDepth: 32 }),
        [2, 3, 4, 1].map((page) => [page, pageOf(page, 9)] as const),
      );
      assert.deepEqual(kindsOf(encoded), ['delta', 'delta', 'full', 'delta']);
      assert.deepEqual([encoded[0]!.base, encoded[3]!.base], [crcOf(pageOf(2, 8)), crcOf(pageOf(1))]);
      assert.ok(encoded[0]!.stored!.equals(xor(pageOf(2, 8), pageOf(2, 9))));
      // The depths go on from what was given: 2 has 3 deltas below it, 3 has 32.
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { maxDepth: 4 }), [[2, pageOf(2, 10)]])), ['delta']);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { maxDepth: 32 }), [[3, pageOf(3, 10)]])), ['full']);
      addon().shadowForget(shadows, table, Uint32Array.of(0, 2, 3, 1, 100, 1_000_000));
      assert.equal(addon().shadowsUsed(shadows), 2 * PAGE_SIZE);
      assert.deepEqual(
        kindsOf(
          encode(
            shadows,
            jobOf(table),
            [1, 2, 3].map((page) => [page, pageOf(page, 11)] as const),
          ),
        ),
        ['full', 'delta', 'full'],
      );
      // A CRC32C that does not fit is noticed when it counts.
      addon().shadowPut(shadows, table, Uint32Array.of(1), pageOf(1), Uint32Array.of(1), Uint8Array.of(0));
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table), [[1, pageOf(1)]])), ['full']);
    }));

  it('are closed once, and closed ids are no crash', async () => {
    const shadows = addon().shadowsCreate(PAGE_SIZE);
    const table = addon().shadowOpen(shadows);
    assert.throws(() => addon().shadowFail(shadows, 4711, 0), code('ERR_CLOSED'));
    addon().shadowClose(shadows, 4711);
    addon().shadowDrop(shadows, 4711, 1);
    addon().shadowForget(shadows, 4711, Uint32Array.of(0, 1));
    addon().shadowPut(shadows, 4711, Uint32Array.of(0), pageOf(1), Uint32Array.of(1), Uint8Array.of(0));
    addon().shadowCorrupt(shadows, 4711);
    assert.equal(addon().shadowsUsed(shadows), 0);
    addon().shadowsClose(shadows);
    addon().shadowsClose(shadows);
    addon().shadowsClose(4294967295);
    for (const call of [
      () => addon().shadowsJoin(shadows),
      () => addon().shadowsUsed(shadows),
      () => addon().shadowOpen(shadows),
      () => addon().shadowClose(shadows, table),
      () => addon().shadowFail(shadows, table, 0),
      () => addon().shadowDrop(shadows, table, 0),
      () => addon().shadowCorrupt(shadows, table),
      () => encode(shadows, jobOf(table), [[1, pageOf(1)]]),
    ])
      assert.throws(call, code('ERR_CLOSED'), String(call));
    // A restore goes on without them.
    addon().shadowForget(shadows, table, Uint32Array.of(0, 1));
    addon().shadowPut(shadows, table, Uint32Array.of(0), pageOf(1), Uint32Array.of(1), Uint8Array.of(0));
  });

  it('check what a job is made of', () =>
    withShadows(4, (shadows, table) => {
      const call = (
        sizes: Partial<Record<'bytes' | 'deltas' | 'kinds' | 'crcs' | 'bases', number>>,
        job = jobOf(table),
      ): void => {
        const { bytes = 2 * PAGE_SIZE, deltas = 2 * PAGE_SIZE, kinds = 2, crcs = 2, bases = 2 } = sizes;
        const [b, d] = [new Uint8Array(bytes), new Uint8Array(deltas)];
        const words = [new Uint32Array(crcs), new Uint32Array(bases)] as const;
        addon().shadowEncode(shadows, job, Uint32Array.of(5, 6), new Uint32Array(), b, d, new Uint8Array(kinds), ...words);
      };
      call({});
      assert.throws(() => call({ bytes: 2 * PAGE_SIZE - 1 }), RangeError);
      assert.throws(() => call({ deltas: 2 * PAGE_SIZE - 1 }), RangeError);
      for (const name of ['kinds', 'crcs', 'bases']) assert.throws(() => call({ [name]: 1 }), RangeError, name);
      assert.throws(() => call({}, jobOf(table).subarray(1)), RangeError);
      assert.throws(() => call({}, Uint32Array.of(...jobOf(table), 0)), RangeError);
      assert.throws(() => call({}, jobOf(table, { mode: 3 })), RangeError);
      const put = ([bytes, crcs, depths]: readonly [number, number, number]): void =>
        addon().shadowPut(
          shadows,
          table,
          Uint32Array.of(1, 2),
          new Uint8Array(bytes),
          new Uint32Array(crcs),
          new Uint8Array(depths),
        );
      put([2 * PAGE_SIZE, 2, 2]);
      for (const wrong of [
        [8191, 2, 2],
        [8192, 1, 2],
        [8192, 2, 1],
      ] as const)
        assert.throws(() => put(wrong), RangeError);
      for (const wrong of [[0, 0], [1], [2, 2, 3, 1]])
        assert.throws(() => addon().shadowForget(shadows, table, Uint32Array.from(wrong)), RangeError);
      for (const wrong of [-1, 0.5, 2 ** 43 + 1, NaN]) assert.throws(() => addon().shadowsCreate(wrong), RangeError);
      for (const wrong of [-1, 0.5, 2 ** 32]) {
        assert.throws(() => addon().shadowFail(shadows, table, wrong), RangeError);
        assert.throws(() => addon().shadowDrop(shadows, table, wrong), RangeError);
        assert.throws(() => addon().shadowClose(shadows, wrong), RangeError);
      }
      // A page twice in a job, and the highest number there is: strange, and no crash.
      const strange = encode(shadows, jobOf(table), [
        [4294967295, pageOf(1)],
        [3, pageOf(2)],
        [3, pageOf(3)],
      ]);
      assert.deepEqual(kindsOf(strange), ['full', 'full', 'full']);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table), [[4294967295, pageOf(1, 1)]])), ['delta']);
    }));
});

function changedWords(a: Buffer, b: Buffer): number {
  let words = 0;
  for (let at = 0; at < PAGE_SIZE; at += 8) if (a.readBigUInt64LE(at) !== b.readBigUInt64LE(at)) words++;
  return words;
}
