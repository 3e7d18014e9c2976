import assert from 'node:assert/strict';
import type { IndexCache } from '../../lib/chain/index-cache.js';
import type { Log, LogOperation } from '../../lib/chain/log.js';
import { Names } from '../../lib/chain/names.js';
import { Kind, parseKey } from '../../lib/chain/record.js';
import { type Naming, Namings, type Taken } from '../../lib/checkpoint/naming.js';
import { STORE } from '../chain/support.js';

/** As much of a log and an index as names need. */
function bench() {
  let next = 100;
  const log = { store: STORE, nextNumber: () => next++ } as unknown as Log;
  const names = new Names();
  const index = { names, durable: 0, applied: 0, lastId: 9 } as unknown as IndexCache;
  const taken = (): Taken => ({ index, isOpenBranch: () => false, inBatch: new Set() });
  /** What the committer does with a batch that was written. */
  const written = (namings: Naming[]) => {
    for (const { ref, resolve } of namings) {
      names.set(ref.name, { type: ref.type, id: ref.id, record: ref.number });
      (index as { durable: number }).durable = ref.number;
      resolve();
    }
  };
  return { log, names, taken, written };
}

const label = (name: string, id: number) => ({
  type: 'label' as const,
  name,
  id,
  uid: id.toString(16).padStart(32, '0'),
  createdAt: 1,
});

describe('checkpoint: names that wait for a batch', () => {
  it('come in batches of a bounded size, those of one name in the order of the calls', async () => {
    const { log, names, taken, written } = bench();
    const namings = new Namings();
    const calls: Promise<void>[] = [];
    // A label that moves again and again among thousands of others.
    for (let k = 0; k < 3000; k++) {
      calls.push(namings.add(label(`n${k}`, 1), false));
      if (k % 500 === 0) calls.push(namings.add(label('moving', k + 1), true));
    }
    for (let batches = 0; namings.any; batches++) {
      assert.ok(batches < 20, 'it comes to an end');
      const operations: LogOperation[] = [];
      const batch = namings.take(log, taken(), operations);
      assert.ok(operations.length <= 1024, `${operations.length} in one batch`);
      assert.deepEqual(
        operations.map(({ key }) => parseKey(key)),
        batch.map(({ ref: { number } }) => ({ number, kind: Kind.ref })),
      );
      written(batch);
    }
    await Promise.all(calls);
    assert.equal(names.get('moving')?.id, 2501);
    assert.equal(names.get('n2999')?.id, 1);
  });
});
