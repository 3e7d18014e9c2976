import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Checkpointer, Engine, Region } from '../../../lib/index.js';
import { Records } from '../support/data.js';
import { PAGE_BYTES, RestoreLimit } from '../support/limits.js';
import { collect, RecordMemory } from '../support/memory.js';
import { engineFor } from '../support/pair.js';
import { digits, spread } from '../support/spread.js';
import type { Bench, Suite } from '../support/suite.js';
import { measureWorkingSet } from '../support/working-set.js';

/** Pages touched at random after each lazy restore, and the pause between two of them. */
const TOUCHES = 100;
const PAUSE_MS = 2;
const DELTA_EPOCHS = 10;

/** Lazy restore: until the first byte can be read, and what a fault costs, with deltas and without; and of a memory eight times as large. */
export const suite: Suite = async (bench) => {
  const mib = bench.quick ? 64 : 1024;
  const eager: number[] = [];
  for (const deltas of [false, true]) eager.push(...(await measure(bench, mib, deltas)));
  for (const deltas of [false, true]) await measureLarge(bench, mib * 8, deltas, eager, mib);
  await measureWorkingSet(bench);
};

interface LazyRun {
  firstMs: number;
  faults: number[];
  doneMs: number;
}

/** @returns milliseconds that eager restores took */
async function measure({ report, quick, scratch, cores }: Bench, mib: number, deltas: boolean): Promise<number[]> {
  const folder = join(scratch, `lazy-${deltas}`);
  const whole = await makeStore(folder, mib, deltas ? DELTA_EPOCHS : 0);
  const limit = new RestoreLimit(whole, cores, scratch);
  const touches = quick ? TOUCHES / 5 : TOUCHES;
  const extents: number[] = [];
  const eager: number[] = [];
  const runs: LazyRun[] = [];
  for (let round = 0; round < (quick ? 2 : 5); round++) {
    extents.push(...limit.measure().extents);
    eager.push(await withFresh(folder, whole, async (checkpointer) => (await checkpointer.restore()).stats().ms));
    runs.push(await withFresh(folder, whole, (checkpointer, memory) => lazily(checkpointer, memory, 1000 + round, touches)));
  }
  const how = deltas ? `${DELTA_EPOCHS} times D on it` : 'no deltas';
  report.budget({
    what: `lazy restore of ${mib} MiB, ${how}: until the first byte can be read`,
    measured: spread(runs.map(({ firstMs }) => firstMs)),
    against: 'eager restore of it',
    limit: spread(eager),
    unit: 'ms',
    kind: 'cost',
    must: 1 / 50,
    aim: 1 / 150,
    ratios: spread(runs.map(({ firstMs }, k) => firstMs / eager[k]!)),
  });
  const faults = runs.flatMap((run) => run.faults);
  report.budget({
    what: `the same: a fault, while the rest is filled (${faults.length} pages at random)`,
    measured: spread(faults),
    against: 'zstd and UFFDIO_COPY of an extent, one thread, C++',
    limit: spread(extents),
    unit: 'ms',
    kind: 'cost',
    must: deltas ? 4 : 2,
    aim: deltas ? 2.5 : 1.3,
  });
  const done = spread(runs.map(({ doneMs }) => doneMs));
  report.note(
    `One fault in a hundred took longer than ${digits(percentile(faults, 0.99))} ms; of the extents one in a hundred took longer than ${digits(percentile(extents, 0.99))} ms. ` +
      `Everything was there after ${digits(done.median)} ms, ${touches} faults and their pauses of ${PAUSE_MS} ms included.`,
  );
  rmSync(folder, { recursive: true });
  return eager;
}

async function measureLarge(
  { report, quick, scratch }: Bench,
  mib: number,
  deltas: boolean,
  eager: readonly number[],
  than: number,
): Promise<void> {
  const folder = join(scratch, `lazy-large-${deltas}`);
  const memory = new RecordMemory(mib * 2 ** 20);
  // Of a quarter of the pages what is written is a delta.
  const engine = new Engine({ maxShadowBytes: (mib * 2 ** 20) / 4 });
  const checkpointer = await Checkpointer.open(folder, { regions: memory.regions, engine, durability: 'relaxed' });
  await checkpointer.checkpoint();
  const random = new Records();
  for (let k = 0; deltas && k < DELTA_EPOCHS; k++) {
    memory.touch(Uint32Array.from({ length: Math.floor(memory.pages / 100) }, () => random.below(memory.pages)));
    await checkpointer.checkpoint();
  }
  await checkpointer.close();
  await engine.close();
  const sizes = Object.entries(memory.regions).map(([name, { byteLength }]) => [name, byteLength] as const);
  memory.close();
  await collect();
  const first: number[] = [];
  for (let round = 0; round < (quick ? 2 : 3); round++) {
    const regions = Object.fromEntries(sizes.map(([name, byteLength]) => [name, Region.allocate(byteLength)]));
    const own = new Engine({ maxShadowBytes: 256 << 20 });
    const restorer = await Checkpointer.open(folder, { regions, engine: own });
    const start = performance.now();
    await restorer.restore(undefined, { lazy: true });
    touch(new Uint8Array(Object.values(regions)[0]!.buffer), PAGE_BYTES + 1);
    first.push(performance.now() - start);
    // The rest is of no interest: it is given up.
    await own.close();
    await restorer.close().catch(() => {});
    for (const region of Object.values(regions)) region.close();
    await collect();
  }
  report.budget({
    what: `lazy restore of ${mib} MiB, ${deltas ? `${DELTA_EPOCHS} times a hundredth of it written` : 'no deltas'}: until the first byte can be read`,
    measured: spread(first),
    against: `eager restore of ${than} MiB`,
    limit: spread(eager),
    unit: 'ms',
    kind: 'cost',
    must: 1 / 15,
    aim: 1 / 30,
  });
  rmSync(folder, { recursive: true });
}

/** @returns what its head holds */
async function makeStore(folder: string, mib: number, epochs: number): Promise<Uint8Array> {
  const region = Region.allocate(mib << 20);
  const memory = new Uint8Array(region.buffer);
  const records = new Records();
  records.fill(memory);
  const engine = engineFor(memory.length);
  const checkpointer = await Checkpointer.open(folder, { regions: { memory: region }, engine });
  await checkpointer.checkpoint();
  for (let k = 0; k < epochs; k++) {
    records.touch(memory, Math.floor(memory.length / PAGE_BYTES / 100));
    await checkpointer.checkpoint();
  }
  const whole = memory.slice();
  await checkpointer.close();
  await engine.close();
  region.close();
  return whole;
}

async function withFresh<T>(
  folder: string,
  whole: Uint8Array,
  body: (checkpointer: Checkpointer<'memory'>, memory: Uint8Array) => Promise<T>,
): Promise<T> {
  const region = Region.allocate(whole.length);
  const engine = engineFor(whole.length);
  const checkpointer = await Checkpointer.open(folder, { regions: { memory: region }, engine });
  const memory = new Uint8Array(region.buffer);
  const result = await body(checkpointer, memory);
  if (Buffer.compare(memory, whole) !== 0) throw new Error('restored other bytes');
  await checkpointer.close();
  await engine.close();
  region.close();
  await collect();
  return result;
}

async function lazily(checkpointer: Checkpointer<'memory'>, memory: Uint8Array, seed: number, touches: number): Promise<LazyRun> {
  const start = performance.now();
  const restoration = await checkpointer.restore(undefined, { lazy: true });
  touch(memory, PAGE_BYTES + 1);
  const firstMs = performance.now() - start;
  const faults: number[] = [];
  let state = seed;
  for (let k = 0; k < touches; k++) {
    await sleep(PAUSE_MS);
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const at = Math.floor((state / 2 ** 32) * memory.length);
    const before = restoration.stats().lazy!.faults;
    const from = performance.now();
    touch(memory, at);
    const spent = performance.now() - from;
    // Some are there by now: these tell nothing.
    if (restoration.stats().lazy!.faults > before) faults.push(spent);
  }
  await restoration.done;
  return { firstMs, faults, doneMs: performance.now() - start };
}

/** Kept, or the optimizer would leave the reading out. */
const read = { sum: 0 };
function touch(memory: Uint8Array, at: number): void {
  read.sum += memory[at]!;
}

function percentile(samples: readonly number[], share: number): number {
  return samples.toSorted((a, b) => a - b)[Math.min(samples.length - 1, Math.floor(samples.length * share))]!;
}
