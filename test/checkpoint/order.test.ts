import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, copyOf, outcome, PAGE, range, restoredFresh, stamp, stored, withCheckpointer } from '../support/kit.js';

/** Writes down which promise settled when, and how. */
function recorder(): { log: string[]; note(name: string, promise: Promise<unknown>): Promise<void> } {
  const log: string[] = [];
  return {
    log,
    note: async (name, promise) => {
      log.push(`${name} ${await outcome(promise)}`);
    },
  };
}

describe('the order of promises', () => {
  const folder = storeFolders();
  const rejecting = (c: Checkpointer) => c.checkpoint({ bogus: 1 } as never);

  it('they settle in the order of the calls, failures too', async () => {
    const region = Region.allocate(4096 * PAGE);
    await withCheckpointer(folder(), { regions: { r: region } }, async (c) => {
      const { log, note } = recorder();
      stamp(region, range(0, 4096), 1);
      const all = [note('large', c.checkpoint()), note('wrong', rejecting(c)), note('flush', c.flush())];
      stamp(region, 1, 2);
      all.push(note('small', c.checkpoint({ durability: 'relaxed' })), note('label', c.checkpoint({ label: 'a' })));
      all.push(note('wrong restore', c.restore(99)), note('restore', c.restore(1)), note('during', c.checkpoint()));
      all.push(note('flush 2', c.flush()), note('wrong 2', rejecting(c)));
      await Promise.all(all);
      assert.deepEqual(log, [
        'large ok',
        'wrong TypeError',
        'flush ok',
        'small ok',
        'label ok',
        'wrong restore TIDEMARK_NOT_FOUND',
        'restore ok',
        'during TIDEMARK_REGION_BUSY',
        'flush 2 ok',
        'wrong 2 TypeError',
      ]);
    });
  });

  it('a checkpoint that is refused in the commit takes those behind it along, and no page is lost', async () => {
    const path = folder();
    const region = Region.allocate(64 * PAGE);
    await withCheckpointer(path, { regions: { r: region } }, async (c) => {
      await c.checkpoint({ label: 'taken' });
      const { log, note } = recorder();
      const all: Promise<void>[] = [];
      for (const k of [1, 2, 3]) {
        stamp(region, k, k);
        all.push(note(`${k}`, c.checkpoint(k === 1 ? { label: 'taken' } : {})));
      }
      await Promise.all(all);
      assert.deepEqual(log, ['1 TIDEMARK_NAME_TAKEN', '2 TIDEMARK_NAME_TAKEN', '3 TIDEMARK_NAME_TAKEN']);
      const next = await c.checkpoint();
      assert.deepEqual([next.parent, next.regions.r!.pages], [1, 3]);
    });
    assertSame(await restoredFresh(path), copyOf(region));
  });

  it('close() waits for what is in flight, may be called twice, and ends everything', async () => {
    const path = folder();
    const region = Region.allocate(2048 * PAGE);
    stamp(region, range(0, 2048), 1);
    const c = await Checkpointer.open(path, { regions: { r: region } });
    const { log, note } = recorder();
    const all = [note('one', c.checkpoint()), note('two', c.checkpoint())];
    const closing = c.close();
    all.push(note('close', closing), note('again', c.close()));
    all.push(note('late checkpoint', c.checkpoint()), note('late flush', c.flush()), note('late restore', c.restore()));
    await Promise.all(all);
    assert.deepEqual(log.slice(0, 2), ['one ok', 'two ok']);
    assert.deepEqual(log.slice(2).toSorted(), [
      'again ok',
      'close ok',
      'late checkpoint TIDEMARK_CLOSED',
      'late flush TIDEMARK_CLOSED',
      'late restore TIDEMARK_CLOSED',
    ]);
    assert.equal(await outcome(c.close()), 'ok');
    for (const call of [() => c.checkpoint(), () => c.flush(), () => c.restore()]) {
      assert.equal(await outcome(call()), 'TIDEMARK_CLOSED');
    }
    assert.equal(c.head?.id, 2);
    // The region is free, the folder too.
    region.close();
    assertSame(await restoredFresh(path, 1), copyOf(region));
  });

  it('closing the store closes its checkpointers after what they have in flight', async () => {
    const path = folder();
    const region = Region.allocate(64 * PAGE);
    const store = await CheckpointStore.open(path, { createIfMissing: true });
    const c = await Checkpointer.open(store, { regions: { r: region } });
    stamp(region, 1, 1);
    const call = c.checkpoint();
    const closing = Promise.all([store.close(), store.close()]);
    assert.equal((await call).id, 1);
    await closing;
    assert.equal(await outcome(c.checkpoint()), 'TIDEMARK_CLOSED');
    assert.equal(await outcome(store.find(1)), 'TIDEMARK_CLOSED');
    region.close();
    assertSame(await restoredFresh(path, 1), copyOf(region));
  });

  it('they settle in the order of the calls, whatever is mixed', async () => {
    const kinds = [
      'checkpoint',
      'relaxed',
      'changed',
      'flush',
      'precopy',
      'restore',
      'missing',
      'misuse',
      'taken',
      'aborted',
      'abort',
      'abort precopy',
      'abort restore',
    ] as const;
    const region = Region.allocate(512 * PAGE);
    const store = await CheckpointStore.open(folder(), { createIfMissing: true });
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      await c.checkpoint({ label: 'taken' });
      let value = 0;
      /** Calls, and aborts at once or when the event loop has turned. */
      const aborting = <T>(call: (signal: AbortSignal) => Promise<T>): Promise<T> => {
        const controller = new AbortController();
        const promise = call(controller.signal);
        if (value % 2 === 0) controller.abort();
        else setImmediate(() => controller.abort());
        return promise;
      };
      const call: Record<(typeof kinds)[number], () => Promise<unknown>> = {
        checkpoint: () => c.checkpoint(),
        relaxed: () => c.checkpoint({ durability: 'relaxed' }),
        changed: () => c.checkpoint({ ifChanged: true }),
        flush: () => c.flush(),
        precopy: () => c.precopy(),
        restore: () => c.restore(1),
        missing: () => c.restore(999_999),
        misuse: () => rejecting(c),
        taken: () => c.checkpoint({ label: 'taken' }),
        aborted: () => c.checkpoint({ signal: AbortSignal.abort() }),
        abort: () => aborting((signal) => c.checkpoint({ signal })),
        'abort precopy': () => aborting((signal) => c.precopy({ signal })),
        'abort restore': () => aborting((signal) => c.restore(1, { signal })),
      };
      const expected: Partial<Record<(typeof kinds)[number], RegExp>> = {
        flush: /^ok$/,
        restore: /^ok$/,
        missing: /^TIDEMARK_NOT_FOUND$/,
        misuse: /^TypeError$/,
        // Unless a restore is running, or an abort of another takes it along.
        taken: /^TIDEMARK_(NAME_TAKEN|REGION_BUSY|ABORTED)$/,
        aborted: /^TIDEMARK_(ABORTED|REGION_BUSY)$/,
      };
      const steps = fc.array(fc.record({ kind: fc.constantFrom(...kinds), dirty: fc.boolean() }), {
        minLength: 2,
        maxLength: 16,
      });
      const property = fc.asyncProperty(steps, async (mix) => {
        const settled: number[] = [];
        let restoring = 0;
        const calls = mix.map(async ({ kind, dirty }, k) => {
          // Nothing else may write while a restore is running.
          if (dirty && restoring === 0) stamp(region, range((k * 7) % 500, 12), ++value);
          if (/restore|missing/.test(kind)) restoring++;
          const result = await outcome(call[kind]());
          settled.push(k);
          assert.match(result, expected[kind] ?? /^(ok|TIDEMARK_(REGION_BUSY|NAME_TAKEN|ABORTED))$/, kind);
        });
        await Promise.all(calls);
        assert.deepEqual(settled, [...mix.keys()]);
        // Nothing is left of it: no lock, no page that is missing.
        await c.checkpoint();
        assertSame(await stored(store, 'main'), copyOf(region));
      });
      await fc.assert(property, { numRuns: 25, seed: 4711, endOnFailure: true });
    });
    await store.close();
  });
});
