import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { hashOf, restoredFresh } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

interface Course {
  /** What precopy, then each checkpoint until one succeeded, came to. */
  outcomes: string[];
  /** After each failure: pages that are dirty according to the kernel, and those that really are. */
  reported: [number, number][];
  pages: number;
  expected: number;
  parent: number | null;
  hash: string;
  staging: [number, number];
}

/**
 * A small checkpoint, then 1,500 pages that are taken ahead with 3 segments of staging, some of them again, and a checkpoint, until one
 * succeeds. Each thread counts the passages of a fault point for itself, so there is one codec thread. Then the process dies.
 */
function course(faults: string, path: string): Promise<Course> {
  return inChild(
    { faults, limitMs: 50_000 },
    async ({ Checkpointer, Engine, Region, PAGE, stamp, range, outcome, hashOf, noMoreFaults, crash }, path) => {
      const region = Region.allocate(2048 * PAGE);
      const engine = new Engine({ workers: 1, maxStagingBytes: 4 << 20 });
      const c = await Checkpointer.open(path, { regions: { r: region }, engine });
      stamp(region, 0, 1);
      await c.checkpoint();
      noMoreFaults();
      const touched = new Set<number>();
      const write = (pages: number[], value: number) => {
        stamp(region, pages, value);
        for (const page of pages) touched.add(page);
      };
      const reported: [number, number][] = [];
      const look = (result: string) => {
        if (result === 'ok') return;
        const runs = region.dirtyRanges();
        let pages = 0;
        for (let k = 1; k < runs.length; k += 2) pages += runs[k]!;
        reported.push([pages, touched.size]);
      };
      write(range(0, 1500), 2);
      const outcomes = [await outcome(c.precopy())];
      look(outcomes[0]!);
      write(range(1400, 150), 3);
      let committed: Awaited<ReturnType<typeof c.checkpoint>> | undefined;
      // Threads that replace others need a while to start.
      const deadline = performance.now() + 15_000;
      for (let k = 0; committed === undefined && performance.now() < deadline; k++) {
        write([1600 + (k % 400)], 4);
        const call = c.checkpoint();
        const result = await outcome(call);
        look(result);
        // While threads are replaced it says so, as often as it is asked.
        if (result !== outcomes.at(-1) || outcomes.length === 1) outcomes.push(result);
        if (result === 'ok') committed = await call;
        else await new Promise((resolve) => setTimeout(resolve, 10));
      }
      if (committed === undefined) throw new Error(`no checkpoint succeeded: ${outcomes.join()}`);
      const { stagingBytes, stagingFreeBytes } = engine.stats();
      return crash({
        outcomes,
        reported,
        pages: committed.regions.r!.pages,
        expected: touched.size,
        parent: committed.parent,
        hash: hashOf(region),
        staging: [stagingBytes, stagingFreeBytes] as [number, number],
      });
    },
    path,
  );
}

const WRITE = 'TIDEMARK_WRITE_FAILED';
const STALLED = 'TIDEMARK_STALLED';
const LOST = 'TIDEMARK_TRACKING_LOST';

/** Faults, and what is to fail with what: [precopy, first failed checkpoint]. Where either may, it depends on who is faster. */
const CASES: { faults: string; codes: string[]; fails: 'precopy' | 'checkpoint' | 'either' }[] = [
  // The first write is that of the small checkpoint.
  { faults: 'log.write:2', codes: [WRITE], fails: 'precopy' },
  { faults: 'log.write:3', codes: [WRITE], fails: 'either' },
  { faults: 'log.write:2,log.reopen:1', codes: [WRITE], fails: 'precopy' },
  { faults: 'log.write:2:3,log.reopen:1:2', codes: [WRITE], fails: 'precopy' },
  { faults: 'log.acknowledge:2', codes: [WRITE], fails: 'precopy' },
  { faults: 'log.acknowledge:3,log.reopen:1', codes: [WRITE], fails: 'either' },
  // The first extent is that of the small checkpoint; 6 are taken ahead.
  { faults: 'codec.encode:2', codes: [WRITE], fails: 'precopy' },
  { faults: 'codec.encode:7', codes: [WRITE], fails: 'precopy' },
  { faults: 'codec.encode:8', codes: [WRITE], fails: 'checkpoint' },
  { faults: 'codec.exit:3', codes: [STALLED], fails: 'precopy' },
  { faults: 'codec.exit:8', codes: [STALLED], fails: 'checkpoint' },
  // A scan that fails says that everything is dirty: nothing fails.
  { faults: 'capture.copy:2', codes: [LOST], fails: 'precopy' },
  { faults: 'capture.copy:4', codes: [LOST], fails: 'either' },
];

describe('precopy() and the checkpoint after it, when something fails', () => {
  const folder = storeFolders();

  for (const { faults, codes, fails } of CASES) {
    it(`${faults}: nothing is lost`, async () => {
      const path = folder();
      const { outcomes, reported, pages, expected, parent, hash, staging } = await course(faults, path);
      assert.equal(outcomes.at(-1), 'ok');
      const failures = outcomes.filter((outcome) => outcome !== 'ok');
      assert.ok(failures.length > 0, 'nothing failed');
      for (const code of failures) assert.ok([...codes, STALLED].includes(code), code);
      if (fails !== 'either') assert.equal(outcomes[0] === 'ok' ? 'checkpoint' : 'precopy', fails, outcomes.join());
      for (const [told, real] of reported) assert.equal(told, real, 'pages that are reported as dirty after a failure');
      assert.deepEqual(
        [pages, parent],
        [expected, 1],
        'the checkpoint has what was written since the one before, and nothing else',
      );
      assert.equal(staging[1], staging[0], 'staging that is not free');
      assert.deepEqual((await assertSound(path)).length, 2);
      assert.equal(hashOf(await restoredFresh(path)), hash);
    });
  }

  it('capture.copy in the checkpoint gives back what was taken ahead, too', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'capture.copy:3' },
      async ({ Checkpointer, Region, PAGE, stamp, range, outcome, hashOf, crash }, path) => {
        const region = Region.allocate(512 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, 0, 1);
        await c.checkpoint();
        stamp(region, range(0, 200), 2);
        await c.precopy();
        stamp(region, [5, 300], 3);
        const failed = await outcome(c.checkpoint());
        const dirty = [...region.dirtyRanges()];
        const { regions } = await c.checkpoint();
        return crash({ failed, dirty, pages: regions.r!.pages, hash: hashOf(region) });
      },
      path,
    );
    assert.deepEqual([result.failed, result.dirty, result.pages], [LOST, [0, 200, 300, 1], 201]);
    await assertSound(path);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });

  it('a scan that fails makes everything count as written', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'capture.scan:2' },
      async ({ Checkpointer, Region, PAGE, stamp, range, outcome, hashOf, crash }, path) => {
        const region = Region.allocate(512 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, range(0, 100), 1);
        await c.checkpoint();
        stamp(region, [7, 8], 2);
        const ahead = await outcome(c.precopy());
        stamp(region, [8, 300], 3);
        const { regions } = await c.checkpoint();
        return crash({ ahead, pages: regions.r!.pages, hash: hashOf(region) });
      },
      path,
    );
    assert.deepEqual([result.ahead, result.pages], ['ok', 101]);
    await assertSound(path);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });

  it('the storage thread ends: nothing is lost to who opens again', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'storage.exit:3' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, outcome, retried, hashOf, noMoreFaults, crash }, path) => {
        const region = Region.allocate(2048 * PAGE);
        const engine = new Engine({ workers: 1, maxStagingBytes: 4 << 20 });
        let c = await Checkpointer.open(path, { regions: { r: region }, engine });
        stamp(region, 0, 1);
        await c.checkpoint();
        stamp(region, range(0, 1500), 2);
        noMoreFaults();
        // That a thread has ended is noticed before it is known which.
        const calls = [() => c.precopy(), () => c.precopy(), () => c.checkpoint()];
        const outcomes: string[] = [];
        for (const call of calls) outcomes.push(await outcome(retried<unknown>(call)));
        const dirty = [...region.dirtyRanges()];
        await outcome(c.close());
        c = await Checkpointer.open(path, { regions: { r: region }, engine });
        stamp(region, [3, 1700], 3);
        const { parent, regions } = await c.checkpoint();
        return crash({ outcomes, dirty, parent, pages: regions.r!.pages, hash: hashOf(region) });
      },
      path,
    );
    assert.deepEqual(result.outcomes, [WRITE, WRITE, WRITE]);
    assert.deepEqual([result.dirty, result.parent, result.pages], [[0, 1500], 1, 1501]);
    await assertSound(path);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });

  it('a disk that hangs: it waits for staging no longer than stallMs, and an abort ends the wait', async () => {
    const result = await inChild(
      { faults: 'storage.hang:2' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, outcome, crash }, path) => {
        const region = Region.allocate(2048 * PAGE);
        const engine = new Engine({ workers: 1, maxStagingBytes: 4 << 20, stallMs: 500 });
        const c = await Checkpointer.open(path, { regions: { r: region }, engine });
        stamp(region, 0, 1);
        await c.checkpoint();
        stamp(region, range(0, 2000), 2);
        const controller = new AbortController();
        const aborted = outcome(c.precopy({ signal: controller.signal }));
        while (engine.stats().stagingFreeBytes > 0) await new Promise((resolve) => setTimeout(resolve, 5));
        controller.abort();
        const outcomes = [await aborted, await outcome(c.precopy())];
        return crash({ outcomes, dirty: [...region.dirtyRanges()] });
      },
      folder(),
    );
    assert.deepEqual(result, { outcomes: ['TIDEMARK_ABORTED', STALLED], dirty: [0, 2000] });
  });

  it('behind a checkpoint that fails, it fails with it', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'log.write:2' },
      async ({ Checkpointer, Region, PAGE, stamp, range, outcome, hashOf, crash }, path) => {
        const region = Region.allocate(2048 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, 0, 1);
        await c.checkpoint();
        stamp(region, range(0, 300), 2);
        const failed = outcome(c.checkpoint());
        stamp(region, range(200, 1500), 3);
        await Promise.all([failed, outcome(c.precopy())]);
        const { parent, regions } = await c.checkpoint();
        return crash({ failed: await failed, parent, pages: regions.r!.pages, hash: hashOf(region) });
      },
      path,
    );
    assert.deepEqual([result.failed, result.parent, result.pages], [WRITE, 1, 1700]);
    await assertSound(path);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });

  it('what it superseded is gone although the index is marked and the process dies at that moment', async () => {
    const path = folder();
    const hash = await inChild(
      { limitMs: 50_000 },
      async ({ Checkpointer, Region, PAGE, stamp, hashOf, crash }, path) => {
        const region = Region.allocate(8 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region }, durability: 'relaxed' });
        // The index is marked with every 512th checkpoint: what lies before a mark is not looked through again.
        const calls: Promise<unknown>[] = [];
        for (let k = 1; k < 512; k++) {
          stamp(region, k % 8, k);
          calls.push(c.checkpoint());
        }
        await Promise.all(calls);
        for (let k = 0; k < 2; k++) {
          stamp(region, 3, 1000 + k);
          await c.precopy();
        }
        stamp(region, 3, 2000);
        await c.checkpoint();
        return crash(hashOf(region));
      },
      path,
    );
    assert.equal((await assertSound(path)).length, 512);
    assert.equal(hashOf(await restoredFresh(path)), hash);
  });
});
