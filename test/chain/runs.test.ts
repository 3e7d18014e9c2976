import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ByteReader, ByteWriter } from '../../lib/chain/bytes.js';
import { countPages, toPages, toRuns, union } from '../../lib/chain/runs.js';
import { readRuns, writeRuns } from '../../lib/chain/stored-extents.js';
import { code } from './support.js';

const LIMIT = 300;
const pageSet = fc.uniqueArray(fc.nat(LIMIT - 1), { maxLength: LIMIT }).map((pages) => Uint32Array.from(pages).sort());

function written(runs: Uint32Array): ByteReader {
  const out = new ByteWriter();
  writeRuns(out, runs);
  return new ByteReader(out.bytes(), 'the test');
}

describe('chain: runs', () => {
  it('are ascending, do not touch, and give the pages back', () => {
    fc.assert(
      fc.property(pageSet, (pages) => {
        const runs = toRuns(pages);
        for (let k = 2; k < runs.length; k += 2) assert.ok(runs[k]! > runs[k - 2]! + runs[k - 1]!);
        assert.equal(countPages(runs), pages.length);
        assert.deepEqual(toPages(runs), pages);
      }),
      { seed: 2 },
    );
  });

  it('unite like sets', () => {
    fc.assert(
      fc.property(pageSet, pageSet, (a, b) => {
        const expected = Uint32Array.from(new Set([...a, ...b])).sort();
        assert.deepEqual(union(toRuns(a), toRuns(b)), toRuns(expected));
      }),
      { seed: 3, numRuns: 300 },
    );
  });

  it('unite where one lies inside the other or touches it', () => {
    const runs = (...values: number[]) => Uint32Array.from(values);
    assert.deepEqual(union(runs(0, 10), runs(2, 3)), runs(0, 10));
    assert.deepEqual(union(runs(0, 2, 4, 2), runs(2, 2)), runs(0, 6));
    assert.deepEqual(union(runs(5, 1), runs(5, 1)), runs(5, 1));
    assert.deepEqual(union(runs(), runs()), runs());
    assert.deepEqual(union(runs(2 ** 32 - 2, 1), runs(0, 1)), runs(0, 1, 2 ** 32 - 2, 1));
  });

  it('are written and read', () => {
    fc.assert(
      fc.property(pageSet, (pages) => {
        const read = written(toRuns(pages));
        assert.deepEqual(toPages(readRuns(read, LIMIT, 'the test')), pages);
        read.end();
      }),
      { seed: 4 },
    );
  });

  it('are refused outside the region, when empty, and when there are more than bytes', () => {
    assert.throws(() => readRuns(written(Uint32Array.of(7, 2)), 8, 'the test'), code('TIDEMARK_DAMAGED'));
    assert.throws(() => readRuns(written(Uint32Array.of(7, 0)), 8, 'the test'), code('TIDEMARK_DAMAGED'));
    const out = new ByteWriter();
    out.varint(2 ** 40);
    assert.throws(() => readRuns(new ByteReader(out.bytes(), 'the test'), 8, 'the test'), code('TIDEMARK_DAMAGED'));
  });
});
