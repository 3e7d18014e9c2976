import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { Checkpointer, capabilities, Region } from '../../lib/index.js';
import { Records } from './support/data.js';
import { ms, spread } from './support/spread.js';

/**
 * The first figures: capture, full checkpoint and eager restore, each beside its limit, measured in the same run.
 * `npm run bench -- --mib 1024 --rounds 15`
 */
const { values } = parseArgs({
  options: { mib: { type: 'string', default: '1024' }, rounds: { type: 'string', default: '15' } },
});
const bytes = Number(values.mib) << 20;
const rounds = Number(values.rounds);
const cores = Math.min(4, availableParallelism());
const scratch = mkdtempSync(join(tmpdir(), 'tidemark-bench-'));

function row(what: string, value: string, against: string, ratio: string, wanted: string): void {
  console.log(`| ${what} | ${value} | ${against} | ${ratio} | ${wanted} |`);
}

/** Bytes that the whole process has had written to disk. */
function writtenBytes(): number {
  return Number(/write_bytes: (\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))![1]);
}

function measureLimits(): { scanMs: number; scanCopyMs: number; wholeCopyMs: number; fillGBs: number } {
  const source = join(import.meta.dirname, '../../../test/bench/native/limits.cc');
  const program = join(scratch, 'limits');
  execFileSync('c++', ['-O2', '-std=c++17', '-o', program, source]);
  return JSON.parse(execFileSync(program, [String(values.mib), '0.01', String(rounds)], { encoding: 'utf8' }));
}

/** zstd on all cores over the same bytes: seconds and stored bytes. */
async function measureZstd(memory: Uint8Array): Promise<{ compressSeconds: number; decompressSeconds: number; stored: number }> {
  const shared = new SharedArrayBuffer(memory.length);
  new Uint8Array(shared).set(memory);
  const part = memory.length / cores;
  const answer = (worker: Worker): Promise<number> => new Promise((resolve) => worker.once('message', resolve));
  const workers = Array.from(
    { length: cores },
    (_, k) =>
      new Worker(new URL('./support/zstd-limit.js', import.meta.url), {
        workerData: { memory: shared, first: k * part, end: (k + 1) * part },
      }),
  );
  await Promise.all(workers.map(answer));
  const run = async (what: string): Promise<{ seconds: number; total: number }> => {
    const start = performance.now();
    for (const worker of workers) worker.postMessage(what);
    const totals = await Promise.all(workers.map(answer));
    return { seconds: (performance.now() - start) / 1000, total: totals.reduce((a, b) => a + b) };
  };
  const compressed = await run('compress');
  const decompressed = await run('decompress');
  await Promise.all(workers.map((worker) => worker.terminate()));
  return { compressSeconds: compressed.seconds, decompressSeconds: decompressed.seconds, stored: compressed.total };
}

console.log(`# tidemark: ${values.mib} MiB, 1 % dirty, ${rounds} rounds`);
console.log(`${cpus()[0]!.model}, ${cores} cores used, Linux ${capabilities().kernel}, Node ${process.version}\n`);
console.log('| what | measured: median (min-max) | limit in the same run | ratio | must / aim |\n|---|---|---|---|---|');

const limits = measureLimits();
const region = Region.allocate(bytes);
const memory = new Uint8Array(region.buffer);
const records = new Records();
records.fill(memory);
const zstdLimit = await measureZstd(memory);
const folder = join(scratch, 'store');
const checkpointer = await Checkpointer.open(folder, { regions: { records: region } });

const written = writtenBytes();
const start = performance.now();
const full = await checkpointer.checkpoint();
const fullSeconds = (performance.now() - start) / 1000;
const rate = (seconds: number): string => `${(bytes / seconds / 1e6).toFixed(0)} MB/s`;
row(
  'full checkpoint, encode + store',
  rate(fullSeconds),
  `zstd 1 at 64 KiB, ${cores} cores: ${rate(zstdLimit.compressSeconds)}`,
  (zstdLimit.compressSeconds / fullSeconds).toFixed(2),
  '>= 0.5 / 0.65',
);
row(
  'stored, everything dirty',
  `${(full.storedBytes / 1e6).toFixed(1)} MB`,
  `zstd 1 at 64 KiB: ${(zstdLimit.stored / 1e6).toFixed(1)} MB`,
  (full.storedBytes / zstdLimit.stored).toFixed(3),
  '<= 1.04 / 1.02',
);

const captures: number[] = [];
const totals: number[] = [];
let stored = full.storedBytes;
let pages = 0;
for (let round = 0; round < rounds; round++) {
  records.touch(memory, Math.floor(bytes / 4096 / 100));
  const checkpoint = await checkpointer.checkpoint();
  captures.push(checkpoint.timings.captureMs);
  totals.push(checkpoint.timings.totalMs);
  stored += checkpoint.storedBytes;
  pages = checkpoint.regions.records!.pages;
}
const capture = spread(captures);
row(
  `capture of D (${pages} pages), caller blocked`,
  ms(capture),
  `scan + memcpy, one thread: ${limits.scanCopyMs.toFixed(2)} ms`,
  (capture.median / limits.scanCopyMs).toFixed(2),
  '<= 2.0 / 1.2',
);
row(
  'the same',
  ms(capture),
  `memcpy of the whole region: ${limits.wholeCopyMs.toFixed(1)} ms`,
  `1/${(limits.wholeCopyMs / capture.median).toFixed(0)}`,
  '<= 1/20 / 1/60',
);
row('checkpoint of D until durable', ms(spread(totals)), '', '', '');
await checkpointer.close();
const disk = writtenBytes() - written;
row(
  'bytes written to disk',
  `${(disk / 1e6).toFixed(0)} MB`,
  `stored: ${(stored / 1e6).toFixed(0)} MB`,
  (disk / stored).toFixed(2),
  '<= 2.3 / 2.05',
);
region.close();

const restores: number[] = [];
for (let round = 0; round < 3; round++) {
  const target = Region.allocate(bytes);
  const restorer = await Checkpointer.open(folder, { regions: { records: target } });
  const restoration = await restorer.restore();
  restores.push(restoration.stats().ms);
  if (Buffer.compare(new Uint8Array(target.buffer, 0, 1 << 26), memory.subarray(0, 1 << 26)) !== 0)
    throw new Error('restored other bytes');
  if (round === 2) {
    records.touch(new Uint8Array(target.buffer), Math.floor(bytes / 4096 / 100));
    const back = await restorer.restore(full.id + rounds - 1);
    row(
      'restore in place, one checkpoint back, D differs',
      `${back.stats().ms.toFixed(0)} ms`,
      `eager restore: ${spread(restores).median.toFixed(0)} ms`,
      `1/${(spread(restores).median / back.stats().ms).toFixed(1)}`,
      '<= 1/20 / 1/60',
    );
  }
  await restorer.close();
  target.close();
}
const restore = spread(restores);
const limitMs = (zstdLimit.decompressSeconds + bytes / (limits.fillGBs * 1e9 * cores)) * 1000;
row(
  'eager restore into a fresh region',
  ms(restore),
  `zstd decompression + UFFDIO_COPY, ${cores} cores: ${limitMs.toFixed(0)} ms`,
  (limitMs / restore.median).toFixed(2),
  '>= 0.6 / 0.8',
);
rmSync(scratch, { recursive: true, force: true });
