import { execFileSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Checkpointer, CheckpointStore, Engine, Region } from '../../../lib/index.js';
import { fillQuickly } from '../support/data.js';
import { PAGE_BYTES } from '../support/limits.js';
import { Sampler, statusBytes, threadCount } from '../support/memory-usage.js';
import { digits, spread } from '../support/spread.js';
import type { Suite } from '../support/suite.js';

const STAGING = 64 << 20;
const SHADOWS = 256 << 20;
const MIB = 2 ** 20;

interface Peak {
  regions: number;
  peak: number;
  before: number;
}

/** Promise 7: memory in use while all of a large region is dirty; and a thousand checkpointers. Each in a process of its own. */
export const suite: Suite = async ({ report, quick, scratch }) => {
  const mib = quick ? 512 : 4096;
  const rows = [1, 2, 4].map((workers) => {
    const { regions, peak, before } = child<Peak>('dirty', join(scratch, `dirty-${workers}`), workers, mib);
    const budget = STAGING + SHADOWS + regions / 100;
    const beyond = peak - before - budget;
    const inMib = (bytes: number): string => `${digits(bytes / MIB)} MiB`;
    return [`${workers}`, inMib(regions), inMib(before), inMib(peak), inMib(peak - before), inMib(budget), inMib(beyond)];
  });
  report.table({
    title: `${mib} MiB dirty at once, twice: RssAnon`,
    columns: ['workers', 'region', 'before the first', 'peak', 'more than before', 'staging + shadows + 1 %', 'beyond that'],
    rows,
  });
  report.note(
    'What is beyond is the constant of promise 7: LevelDB (two write buffers of 32 MiB, and copies of the batch that is written), and the heaps of the threads.',
  );
  const count = quick ? 100 : 1000;
  const many = child<Many>('many', join(scratch, 'many'), count);
  report.budget({
    what: `${count} checkpointers of 30 MiB: memory beyond regions and budgets`,
    measured: spread([many.beyond / MIB]),
    against: 'the bound',
    limit: spread([300]),
    unit: 'MiB',
    kind: 'cost',
    must: 1,
    aim: 0.5,
  });
  report.budget({
    what: 'the same: threads',
    measured: spread([many.threads]),
    against: 'cores + 6',
    limit: spread([availableParallelism() + 6]),
    unit: '',
    kind: 'cost',
    must: 1,
    aim: 1,
  });
};

function child<T>(what: string, folder: string, ...options: number[]): T {
  const output = execFileSync(process.execPath, [import.meta.filename, what, folder, ...options.map(String)], {
    encoding: 'utf8',
  });
  return JSON.parse(output) as T;
}

async function dirty(folder: string, workers: number, mib: number): Promise<Peak> {
  const region = Region.allocate(mib * MIB);
  const memory = new Uint8Array(region.buffer);
  fillQuickly(memory);
  const engine = new Engine({ workers, maxStagingBytes: STAGING, maxShadowBytes: SHADOWS });
  const checkpointer = await Checkpointer.open(folder, { regions: { memory: region }, engine, durability: 'relaxed' });
  const sampler = await Sampler.start();
  const before = statusBytes('RssAnon');
  for (let round = 0; round < 2; round++) {
    for (let at = 64; at < memory.length; at += PAGE_BYTES) memory[at]!++;
    await checkpointer.checkpoint();
  }
  const peak = sampler.peakBytes();
  await sampler.stop();
  await checkpointer.close();
  return { regions: region.byteLength, peak, before };
}

interface Many {
  beyond: number;
  threads: number;
}

/** Of their 30 MiB each has one populated: 1,000 times 30 MiB are more than many machines have, and what is not there takes no memory. */
async function many(folder: string, count: number): Promise<Many> {
  const threads = threadCount();
  const before = statusBytes('RssAnon');
  const engine = new Engine({ maxStagingBytes: STAGING, maxShadowBytes: SHADOWS });
  const store = await CheckpointStore.open(folder, { createIfMissing: true, engine });
  const members: { memory: Uint8Array; checkpointer: Checkpointer<'memory'> }[] = [];
  for (let k = 0; k < count; k++) {
    const region = Region.allocate(30 * MIB);
    const memory = new Uint8Array(region.buffer);
    fillQuickly(memory.subarray(0, MIB));
    members.push({ memory, checkpointer: await Checkpointer.open(store, { regions: { memory: region }, branch: `b${k}` }) });
  }
  let most = 0;
  let mostThreads = 0;
  for (let round = 0; round < 5; round++) {
    await Promise.all(
      members.map(({ memory, checkpointer }) => {
        for (let page = 0; page < 16; page++) memory[((page * 7 + round) % 256) * PAGE_BYTES]!++;
        return checkpointer.checkpoint();
      }),
    );
    most = Math.max(most, statusBytes('RssAnon') - engine.stats().shadowUsedBytes);
    mostThreads = Math.max(mostThreads, threadCount());
  }
  await store.close();
  return { beyond: most - before - count * MIB - STAGING, threads: mostThreads - threads };
}

if (process.argv[1] === import.meta.filename) {
  const [, , what, folder, ...options] = process.argv;
  const [first, second] = options.map(Number);
  const result = what === 'dirty' ? await dirty(folder!, first!, second!) : await many(folder!, first!);
  console.log(JSON.stringify(result));
}
