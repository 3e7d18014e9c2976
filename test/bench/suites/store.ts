import { randomFillSync } from 'node:crypto';
import { join } from 'node:path';
import { type Checkpoint, Checkpointer, Engine, Region } from '../../../lib/index.js';
import { Records } from '../support/data.js';
import { compressOnAll, levelDbAlone, PAGE_BYTES } from '../support/limits.js';
import { writtenBytes } from '../support/memory-usage.js';
import { spread } from '../support/spread.js';
import type { Bench, Suite } from '../support/suite.js';
import { countSyncs } from '../support/syncs.js';

/** Encoding and storing. */
export const suite: Suite = async (bench) => {
  await everything(bench);
  await commits(bench);
  await syncs(bench);
};

/** A full checkpoint, until it is durable. */
async function everything({ report, quick, scratch, cores }: Bench): Promise<void> {
  const mib = quick ? 128 : 512;
  const rounds = quick ? 2 : 5;
  const region = Region.allocate(mib << 20);
  const memory = new Uint8Array(region.buffer);
  new Records().fill(memory);
  const whole: number[] = [];
  const zstds: number[] = [];
  const databases: number[] = [];
  let checkpoint: Checkpoint | undefined;
  let stored = 0;
  for (let round = 0; round < rounds; round++) {
    const checkpointer = await Checkpointer.open(join(scratch, `full-${round}`), { regions: { memory: region } });
    const start = performance.now();
    checkpoint = await checkpointer.checkpoint();
    whole.push(performance.now() - start);
    await checkpointer.close();
    const compressed = await compressOnAll(memory, cores, 1);
    stored = compressed.stored;
    zstds.push(compressed.ms[0]!);
    databases.push(await levelDbAlone(stored, join(scratch, `level-${round}`)));
  }
  region.close();
  const zstdIsSlower = spread(zstds).median > spread(databases).median;
  const limits = zstdIsSlower ? zstds : databases;
  report.budget({
    what: `encode + store, ${mib} MiB, everything dirty`,
    measured: spread(whole),
    against: zstdIsSlower ? `zstd level 1 at 64 KiB on ${cores} cores` : 'LevelDB alone, as many bytes',
    limit: spread(limits),
    unit: 'ms',
    kind: 'speed',
    must: 0.5,
    aim: 0.65,
    ratios: spread(whole.map((ms, k) => limits[k]! / ms)),
  });
  report.budget({
    what: 'stored, everything dirty, first time',
    measured: spread([checkpoint!.storedBytes / 1e6]),
    against: 'zstd level 1 at 64 KiB',
    limit: spread([stored / 1e6]),
    unit: 'MB',
    kind: 'cost',
    must: 1.04,
    aim: 1.02,
  });
}

/** Many commits in a row, of data that does not compress: LevelDB's compaction goes on beside them. */
async function commits({ report, quick, scratch }: Bench): Promise<void> {
  const mib = 64;
  const count = quick ? 12 : 100;
  const region = Region.allocate(mib << 20);
  const memory = new Uint8Array(region.buffer);
  randomFillSync(memory);
  const engine = new Engine({ maxStagingBytes: 160 << 20, maxShadowBytes: 0 });
  const checkpointer = await Checkpointer.open(join(scratch, 'commits'), { regions: { memory: region }, engine });
  const before = writtenBytes();
  const times: number[] = [];
  let stored = 0;
  for (let k = 0; k < count; k++) {
    for (let at = 0; at < memory.length; at += PAGE_BYTES) memory[at]!++;
    const start = performance.now();
    stored += (await checkpointer.checkpoint()).storedBytes;
    times.push(performance.now() - start);
  }
  await checkpointer.close();
  await engine.close();
  region.close();
  const all = spread(times);
  report.budget({
    what: `slowest of ${count} commits of ${mib} MiB`,
    measured: spread([all.max]),
    against: 'their median',
    limit: all,
    unit: 'ms',
    kind: 'cost',
    must: 4,
    aim: 2,
  });
  report.budget({
    what: 'written to disk by them',
    measured: spread([(writtenBytes() - before) / 1e6]),
    against: 'stored',
    limit: spread([stored / 1e6]),
    unit: 'MB',
    kind: 'cost',
    must: 2.3,
    aim: 2.05,
  });
}

/** Of checkpoints that one follows the other, durable each. */
async function syncs({ report, scratch }: Bench): Promise<void> {
  const counts = await countSyncs(scratch);
  report.budget({
    what: 'syncs of a small checkpoint',
    measured: spread(counts.each),
    against: 'one',
    limit: spread([1]),
    unit: '',
    kind: 'cost',
    must: 1,
    aim: 1,
  });
  report.note(
    `${counts.together} checkpoints of as many checkpointers, called at once, took ${counts.togetherSyncs} syncs together.`,
  );
}
