import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import type * as Sandboxes from '../support/sandboxes.js';

const SANDBOXES = 300;
const program = new URL('../support/sandboxes.js', import.meta.url).href;

describe('many checkpointers on one engine', function () {
  this.timeout(240_000);
  const folder = storeFolders();

  it(`${SANDBOXES} that step at random are killed: each is at its last acknowledged checkpoint or later, exactly`, async () => {
    const path = folder();
    const running = await inChild(
      { limitMs: 120_000 },
      async ({ crash }, program, path, count) => {
        const { run }: typeof Sandboxes = await import(program);
        return crash(await run(path, count, 4, 16));
      },
      program,
      path,
      SANDBOXES,
    );
    const { commits, before, most } = running;
    assert.ok(commits > 2 * SANDBOXES, `${commits} commits`);
    const threads = most.threads - before.threads;
    assert.ok(threads <= availableParallelism() + 6, `${threads} threads`);
    // One for each region, and what the engine and the store have.
    const descriptors = most.descriptors - before.descriptors - SANDBOXES;
    assert.ok(descriptors < 60, `${descriptors} descriptors`);
    // Measured: 115.
    const beyond = most.beyondMiB - 16;
    assert.ok(beyond < 200, `${beyond.toFixed(0)} MiB beyond regions and staging`);
    const wrong = await inChild(
      { limitMs: 60_000 },
      async (_, program, path, running) => {
        const { check }: typeof Sandboxes = await import(program);
        return check(path, running);
      },
      program,
      path,
      running,
    );
    assert.deepEqual(wrong, []);
  });

  it('opening, closing and reopening, with several stores on one engine, leaves nothing behind', async () => {
    const rounds = await inChild(
      { limitMs: 60_000 },
      async ({ Checkpointer, CheckpointStore, Engine, Region, PAGE, stamp, fs }, paths) => {
        const engine = new Engine({ workers: 1, maxStagingBytes: 4 << 20 });
        const regions = Array.from({ length: 60 }, () => Region.allocate(4 * PAGE));
        const stores = await Promise.all(paths.map((path) => CheckpointStore.open(path, { createIfMissing: true, engine })));
        const rounds: { threads: number; descriptors: number; wrong: unknown[] }[] = [];
        for (let round = 1; round <= 8; round++) {
          const wrong: unknown[] = [];
          await Promise.all(
            regions.map(async (region, k) => {
              const options = { regions: { r: region }, branch: `b${k}` };
              const c = await Checkpointer.open(stores[k % stores.length]!, options);
              if ((c.base === undefined) !== (round === 1)) wrong.push([k, 'base', c.base?.id]);
              stamp(region, k % 4, round);
              const taken = await c.checkpoint({ durability: k % 3 === 0 ? 'sync' : 'relaxed' });
              if (taken.branch !== `b${k}` || taken.regions.r!.pages !== 1) wrong.push([k, taken]);
              await c.close();
            }),
          );
          const { checkpointers, pendingCalls, stagingBytes, stagingFreeBytes } = engine.stats();
          if (checkpointers > 0 || pendingCalls > 0 || stagingFreeBytes < stagingBytes) wrong.push(engine.stats());
          rounds.push({
            threads: fs.readdirSync('/proc/self/task').length,
            descriptors: fs.readdirSync('/proc/self/fd').length,
            wrong,
          });
        }
        for (const store of stores) await store.close();
        await engine.close();
        return rounds;
      },
      [folder(), folder(), folder()],
    );
    assert.deepEqual(
      rounds.flatMap(({ wrong }) => wrong),
      [],
    );
    const [first, last] = [rounds[0]!, rounds.at(-1)!];
    assert.ok(last.threads <= first.threads + 2, `threads: ${JSON.stringify(rounds)}`);
    // LevelDB opens a table now and then; a leak would be 60 a round.
    assert.ok(last.descriptors <= first.descriptors + 20, `descriptors: ${JSON.stringify(rounds)}`);
  });
});
