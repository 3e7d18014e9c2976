import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { CheckpointStore, hashOf, noise, PAGE, restoredFresh } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

interface Step {
  outcome: string;
  id: number | null;
  storedBytes: number;
  /** What it has, as [size, value] of noise. */
  attachments: Record<string, [number, number]>;
  hash: string;
}

/**
 * Checkpoints with attachments while faults strike, `atOnce` in flight at a time. In step k attachment `a` has changed for even k, `b` has never. Then
 * the process dies.
 */
function steps(path: string, faults: string, count: number, atOnce: number): Promise<{ steps: Step[]; free: boolean }> {
  return inChild(
    { faults },
    async (
      { Checkpointer, Engine, Region, PAGE, noise, stamp, hashOf, noMoreFaults, outcome, retried, stagingFree, crash },
      path,
      count,
      atOnce,
      spared,
    ) => {
      const region = Region.allocate(64 * PAGE);
      // Room for one checkpoint, not for two: its extents are in one batch.
      const engine = new Engine({ workers: 1, maxStagingBytes: 8 << 20 });
      const c = await Checkpointer.open(path, { regions: { r: region }, engine });
      const b = noise(150_000, 1000);
      const steps: Step[] = [];
      const begin = (k: number): Promise<void> => {
        stamp(region, k, k);
        const value = k - (k % 2);
        const call = c.checkpoint({ attachments: { a: noise(1_500_000, value), b } });
        const hash = hashOf(region);
        return outcome(call).then(async (result) => {
          const checkpoint = result === 'ok' ? await call : undefined;
          const attachments: Step['attachments'] = { a: [1_500_000, value], b: [150_000, 1000] };
          const { id = null, storedBytes = 0 } = checkpoint ?? {};
          steps.push({ outcome: result, id, storedBytes, attachments, hash });
        });
      };
      // Threads that are replaced are without faults; this thread looks at its own for the first time when it captures.
      if (spared) noMoreFaults();
      for (let k = 0; k < count; k += atOnce) await Promise.all(Array.from({ length: atOnce }, (_, j) => begin(k + j)));
      await retried(() => c.checkpoint({ attachments: { b } }));
      return crash({ steps, free: await stagingFree(engine) });
    },
    path,
    count,
    atOnce,
    faults.startsWith('codec.exit'),
  );
}

async function assertKept(path: string, steps: Step[]): Promise<void> {
  await assertSound(path);
  const store = await CheckpointStore.open(path);
  for (const { outcome, id, attachments, hash } of steps) {
    if (outcome !== 'ok') continue;
    const snapshot = await store.at(id!);
    for (const [name, [size, value]] of Object.entries(attachments)) {
      const bytes = await snapshot.attachment(name);
      assert.equal(Buffer.compare(bytes, noise(size, value)), 0, `attachment ${name} of checkpoint ${id}`);
    }
    assert.equal(hashOf(await snapshot.read('r', 0, 64 * PAGE)), hash, `memory of checkpoint ${id}`);
    await snapshot.close();
  }
  const last = await store.at('main');
  assert.deepEqual(Object.keys(last.checkpoint.attachments), ['b']);
  assert.equal(Buffer.compare(await last.attachment('b'), noise(150_000, 1000)), 0);
  await store.close();
  assert.equal(hashOf(await restoredFresh(path)), steps.at(-1)!.hash, 'the head');
}

describe('a checkpoint with attachments that fails', () => {
  const folder = storeFolders();
  // What a step stores of them: all, a only, none. An extent has 256 pages: two for a, one for b.
  const kindOf = ({ outcome, storedBytes }: Step): string => {
    if (outcome !== 'ok') return outcome;
    if (storedBytes > 1_600_000) return 'a b';
    return storedBytes > 1_400_000 ? 'a' : storedBytes < 20_000 ? '-' : `${storedBytes}`;
  };
  const FAILED = 'TIDEMARK_WRITE_FAILED';

  for (const [faults, expected] of [
    ['', ['a b', '-', 'a', '-', 'a', '-']],
    ['log.write:1', [FAILED, 'a b', 'a', '-', 'a', '-']],
    ['log.write:3:2', ['a b', '-', FAILED, FAILED, 'a', '-']],
    ['log.write:3,log.reopen:1:2', ['a b', '-', FAILED, FAILED, 'a', '-']],
    ['log.acknowledge:3,log.reopen:1', ['a b', '-', FAILED, 'a', 'a', '-']],
    // Regions are encoded first, then a, then b: 4 segments for step 0, 1 for step 1, 3 for step 2.
    ['codec.encode:4', [FAILED, 'a b', 'a', '-', 'a', '-']],
    ['codec.encode:8', ['a b', '-', FAILED, 'a', 'a', '-']],
    ['capture.copy:3', ['a b', '-', 'EIO', 'a', 'a', '-']],
  ] as const) {
    it(`${faults || 'without faults'}: the next ones are by reference to what is there, and exact`, async () => {
      const path = folder();
      const result = await steps(path, faults, 6, 1);
      const codes = expected.map((kind) => (kind === 'EIO' ? 'TIDEMARK_TRACKING_LOST' : kind));
      assert.deepEqual(result.steps.map(kindOf), codes);
      assert.ok(result.free, 'segments of staging are lost');
      await assertKept(path, result.steps);
    });
  }

  for (const faults of ['log.write:3', 'log.acknowledge:4', 'codec.encode:8']) {
    it(`${faults}, with three in flight`, async () => {
      const path = folder();
      const result = await steps(path, faults, 9, 3);
      assert.ok(result.steps.slice(-3).every(({ outcome }) => outcome === 'ok'));
      if (!faults.startsWith('log.acknowledge')) assert.ok(result.steps.some(({ outcome }) => outcome === FAILED));
      assert.ok(result.free, 'segments of staging are lost');
      await assertKept(path, result.steps);
    });
  }

  for (const [faults, atOnce] of [
    ['codec.exit:4', 1],
    ['codec.exit:8', 3],
  ] as const) {
    it(`${faults}, with ${atOnce} at a time: the threads are replaced, and nothing is lost`, async () => {
      const path = folder();
      const result = await steps(path, faults, 9, atOnce);
      assert.ok(result.steps.some(({ outcome }) => outcome === 'TIDEMARK_STALLED'));
      assert.ok(result.steps.every(({ outcome }) => ['ok', 'TIDEMARK_STALLED'].includes(outcome)));
      assert.ok(result.free, 'segments of staging are lost');
      await assertKept(path, result.steps);
    });
  }

  it('because a label is taken: its attachments go, those of the checkpoints before it stay', async () => {
    const path = folder();
    const result = await inChild(
      {},
      async ({ Checkpointer, Engine, Region, PAGE, noise, outcome, stagingFree }, path) => {
        const engine = new Engine({ workers: 1, maxStagingBytes: 4 << 20 });
        const c = await Checkpointer.open(path, { regions: { r: Region.allocate(PAGE) }, engine });
        const [a, b] = [noise(100_000, 1), noise(100_000, 2)];
        await c.checkpoint({ label: 'first', attachments: { a } });
        const calls = [
          c.checkpoint({ attachments: { a } }),
          c.checkpoint({ label: 'first', attachments: { a: b } }),
          c.checkpoint({ attachments: { a: b } }),
        ];
        const outcomes = await Promise.all(calls.map(outcome));
        const sizes = [
          (await c.checkpoint({ attachments: { a } })).storedBytes,
          (await c.checkpoint({ attachments: { a: b } })).storedBytes,
        ];
        const free = await stagingFree(engine);
        await c.close();
        return { outcomes, byReference: sizes.map((size) => size < 20_000), free };
      },
      path,
    );
    assert.deepEqual(result, {
      outcomes: ['ok', 'TIDEMARK_NAME_TAKEN', 'TIDEMARK_NAME_TAKEN'],
      byReference: [true, false],
      free: true,
    });
    assert.equal((await assertSound(path)).length, 4);
  });

  it('because staging is full and nothing is written: the pages are given back, the segments free', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'storage.hang:2' },
      async ({ Checkpointer, Engine, Region, PAGE, noise, outcome, stamp, stagingFree }, path) => {
        const engine = new Engine({ workers: 1, maxStagingBytes: 4 << 20, stallMs: 300 });
        const region = Region.allocate(64 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region }, engine });
        stamp(region, 1, 1);
        await c.checkpoint();
        stamp(region, [2, 3], 2);
        const stalled = await outcome(c.checkpoint({ attachments: { a: noise(20 << 20, 1) } }));
        const dirty = [...region.dirtyRanges()];
        const free = await stagingFree(engine);
        return { stalled, dirty, free };
      },
      path,
    );
    assert.deepEqual(result, { stalled: 'TIDEMARK_STALLED', dirty: [2, 2], free: true });
  });
});
