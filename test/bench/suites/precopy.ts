import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Checkpointer, Engine, Region } from '../../../lib/index.js';
import { fillQuickly } from '../support/data.js';
import { PAGE_BYTES } from '../support/limits.js';
import { collect } from '../support/memory.js';
import { Sampler } from '../support/memory-usage.js';
import { digits, spread } from '../support/spread.js';
import type { Suite } from '../support/suite.js';

/** Pages that the program writes in each millisecond in which it gets to run. */
const PAGES_PER_MS = 5;

interface Run {
  captureMs: number;
  /** The longest time in which the program could not run, the capture included. */
  blockedMs: number;
  totalMs: number;
  peakBytes: number;
}

/** The first checkpoint of much memory, while the program goes on writing: with `precopy()` and without. */
export const suite: Suite = async ({ report, quick, scratch }) => {
  const mib = quick ? 256 : 4096;
  const runs: Record<'without' | 'with', Run[]> = { without: [], with: [] };
  for (let round = 0; round < (quick ? 1 : 3); round++) {
    for (const how of ['without', 'with'] as const) {
      const folder = join(scratch, `${how}-${round}`);
      runs[how].push(await firstCheckpoint(mib, folder, how === 'with'));
      rmSync(folder, { recursive: true });
      await collect();
    }
  }
  const of = (how: 'without' | 'with', what: (run: Run) => number) => spread(runs[how].map(what));
  report.budget({
    what: `precopy(): first checkpoint of ${mib} MiB with a writer, the caller is blocked`,
    measured: of('with', ({ captureMs }) => captureMs),
    against: 'without precopy()',
    limit: of('without', ({ captureMs }) => captureMs),
    unit: 'ms',
    kind: 'cost',
    must: 1 / 50,
    aim: 1 / 100,
  });
  report.budget({
    what: 'the same: peak memory (RssAnon)',
    measured: of('with', ({ peakBytes }) => peakBytes / 2 ** 20),
    against: 'without precopy()',
    limit: of('without', ({ peakBytes }) => peakBytes / 2 ** 20),
    unit: 'MiB',
    kind: 'cost',
    must: 1.02,
    aim: 1,
  });
  report.note(
    `The longest time in which the event loop did not turn, precopy() included: ${digits(of('with', ({ blockedMs }) => blockedMs).median)} ms, ` +
      `without ${digits(of('without', ({ blockedMs }) => blockedMs).median)} ms. From the first call until the checkpoint was durable: ` +
      `${digits(of('with', ({ totalMs }) => totalMs).median / 1000)} s, without ${digits(of('without', ({ totalMs }) => totalMs).median / 1000)} s.`,
  );
};

async function firstCheckpoint(mib: number, folder: string, ahead: boolean): Promise<Run> {
  const region = Region.allocate(mib * 2 ** 20);
  const memory = new Uint8Array(region.buffer);
  fillQuickly(memory);
  const engine = new Engine({ maxShadowBytes: 256 << 20 });
  const checkpointer = await Checkpointer.open(folder, { regions: { memory: region }, engine, durability: 'relaxed' });
  let seed = 1;
  const writer = setInterval(() => {
    for (let k = 0; k < PAGES_PER_MS; k++) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      memory[(seed % (memory.length / PAGE_BYTES)) * PAGE_BYTES + 64]!++;
    }
  }, 1);
  const sampler = await Sampler.start();
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  // It tells how late a turn was, from the first one on.
  await sleep(20);
  const start = performance.now();
  if (ahead) await checkpointer.precopy();
  const { timings } = await checkpointer.checkpoint();
  const totalMs = performance.now() - start;
  await sleep(20);
  delay.disable();
  clearInterval(writer);
  await sampler.stop();
  await checkpointer.close();
  await engine.close();
  region.close();
  return { captureMs: timings.captureMs, blockedMs: delay.max / 1e6, totalMs, peakBytes: sampler.peakBytes() };
}
