import { join } from 'node:path';
import { Checkpointer, Engine, Region } from '../../../lib/index.js';
import { Records } from '../support/data.js';
import { copyLimits, PAGE_BYTES } from '../support/limits.js';
import { spread } from '../support/spread.js';
import type { Bench, Suite } from '../support/suite.js';

/** How long the caller is blocked, and what tracking costs who writes. */
export const suite: Suite = async (bench) => {
  await scattered(bench);
  await everything(bench);
};

/** Checkpoints that are not counted, in which V8 compiles what the others run. */
const COMPILING = 10;

async function scattered({ report, quick, scratch, cores }: Bench): Promise<void> {
  const mib = quick ? 128 : 1024;
  const rounds = 16;
  const captures: number[] = [];
  let touches: number[] = [];
  const limits = await copyLimits({ mib, share: 0.01, rounds, threads: cores }, scratch, async () => {
    const region = Region.allocate(mib << 20);
    const memory = new Uint8Array(region.buffer);
    const records = new Records();
    records.fill(memory);
    touches = firstWrites(region, rounds);
    const checkpointer = await Checkpointer.open(join(scratch, 'd'), { regions: { memory: region } });
    await checkpointer.checkpoint();
    for (let round = -COMPILING; round < rounds; round++) {
      records.touch(memory, Math.floor(memory.length / PAGE_BYTES / 100));
      const { captureMs } = (await checkpointer.checkpoint()).timings;
      if (round >= 0) captures.push(captureMs);
    }
    await checkpointer.close();
    region.close();
  });
  const one = { measured: spread(captures), unit: 'ms', kind: 'cost' } as const;
  report.budget({
    ...one,
    what: `capture of D, ${mib} MiB: the caller is blocked`,
    against: 'scan + memcpy of the same pages, one thread, C++',
    limit: spread(limits.scanCopy),
    must: 2,
    aim: 1.2,
  });
  report.budget({
    ...one,
    what: 'the same',
    against: 'memcpy of the whole, one thread',
    limit: spread(limits.copy),
    must: 1 / 20,
    aim: 1 / 60,
  });
  report.budget({
    what: 'write overhead of tracking: first write to a page',
    measured: spread(touches),
    against: 'the kernel fault, in C++',
    limit: spread(limits.touchNs),
    unit: 'ns',
    kind: 'cost',
    must: 1.05,
    aim: 1,
  });
  report.note(
    `The scan alone takes ${spread(limits.scan).median.toFixed(2)} ms of the ${spread(limits.scanCopy).median.toFixed(2)} ms. ${COMPILING} checkpoints before those that count are left out: V8 compiles.`,
  );
}

/** Staging large enough for all of it, and used before: memory that is there already. */
async function everything({ report, quick, scratch, cores }: Bench): Promise<void> {
  const mib = quick ? 64 : 512;
  const rounds = 8;
  const captures: number[] = [];
  const limits = await copyLimits({ mib, share: 0.01, rounds, threads: cores }, scratch, async () => {
    const engine = new Engine({ maxStagingBytes: (mib + 32) << 20, maxShadowBytes: 0 });
    const region = Region.allocate(mib << 20);
    const memory = new Uint8Array(region.buffer);
    new Records().fill(memory);
    const options = { regions: { memory: region }, engine, durability: 'relaxed' } as const;
    const checkpointer = await Checkpointer.open(join(scratch, 'all'), options);
    await checkpointer.checkpoint();
    for (let round = 0; round < rounds; round++) {
      for (let at = 0; at < memory.length; at += PAGE_BYTES) memory[at] = round;
      captures.push((await checkpointer.checkpoint()).timings.captureMs);
    }
    await checkpointer.close();
    await engine.close();
    region.close();
  });
  report.budget({
    what: `capture of ${mib} MiB with everything dirty, staging large enough`,
    measured: spread(captures),
    against: `memcpy on ${cores} cores`,
    limit: spread(limits.copyOnAll),
    unit: 'ms',
    kind: 'speed',
    must: 0.5,
    aim: 0.8,
  });
}

/** Nanoseconds for the first write to each page of a region since it was armed. */
function firstWrites(region: Region, rounds: number): number[] {
  const memory = new Uint8Array(region.buffer);
  const write = (value: number): void => {
    for (let at = 0; at < memory.length; at += PAGE_BYTES) memory[at] = value;
  };
  // So that the loop is compiled when it is timed.
  write(0);
  return Array.from({ length: rounds }, (_, round) => {
    region.takeDirtyRanges();
    const start = performance.now();
    write(round);
    return ((performance.now() - start) * 1e6) / (memory.length / PAGE_BYTES);
  });
}
