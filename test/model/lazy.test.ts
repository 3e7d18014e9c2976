import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';

const WORLD = new URL('./lazy-world.js', import.meta.url).href;
const THREADS = new URL('./lazy-threads.js', import.meta.url).href;
/** More of them, and others: `TIDEMARK_ROUNDS=10000 TIDEMARK_SEED=7`. */
const ROUNDS = Number(process.env.TIDEMARK_ROUNDS ?? 200);
const SEED = Number(process.env.TIDEMARK_SEED ?? 2026);
/** Of one store; each has a seed of its own, so that it can be run by itself. */
const ROUNDS_OF_A_STORE = 20;
const limitMs = 30_000 + ROUNDS * 500;

describe('model: lazy restores', function () {
  this.timeout(limitMs + 10_000);
  const folder = storeFolders();

  it(`of random checkpoints, with random readers and writers meanwhile, are what a plain model says (${ROUNDS} rounds)`, async () => {
    const path = folder();
    const trace = `${path}-trace`;
    try {
      const counts = await inChild(
        { limitMs },
        async ({ fs }, url, threads, path, rounds, most, firstSeed) => {
          const { LazyWorld }: typeof import('./lazy-world.js') = await import(url);
          const { endAll }: typeof import('./lazy-threads.js') = await import(threads);
          const sum: Record<string, number> = {};
          for (let begun = 0, seed = firstSeed; begun < rounds; begun += most, seed++) {
            let file = 0;
            const world = new LazyWorld(`${path}-${seed}`, seed, {
              begin(what) {
                fs.writeFileSync(
                  `${path}-trace`,
                  `TIDEMARK_SEED=${seed} TIDEMARK_ROUNDS=${Math.min(most, rounds - begun)}: ${what}`,
                );
                if (file !== 0) fs.closeSync(file);
                file = fs.openSync(`${path}-trace`, 'a');
              },
              add: (what) => void fs.writeSync(file, `; ${what}`),
            });
            await world.run(Math.min(most, rounds - begun));
            await world.release();
            fs.closeSync(file);
            fs.rmSync(`${path}-${seed}`, { recursive: true });
            for (const [name, count] of Object.entries(world.counts)) sum[name] = (sum[name] ?? 0) + count;
          }
          await endAll();
          return sum;
        },
        WORLD,
        THREADS,
        path,
        ROUNDS,
        ROUNDS_OF_A_STORE,
        SEED,
      );
      if (process.env.TIDEMARK_ROUNDS !== undefined) console.log(counts);
      // Each of them is what this is about.
      for (const [name, count] of Object.entries(counts))
        assert.ok(count >= ROUNDS / (name === 'failed' ? 200 : 10), `${name}: ${count}`);
    } catch (error) {
      (error as Error).message += `\n${existsSync(trace) ? readFileSync(trace, 'utf8') : 'nothing was begun'}`;
      throw error;
    }
  });
});
