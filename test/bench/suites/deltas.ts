import { randomFillSync } from 'node:crypto';
import { type Checkpoint, Checkpointer, Region } from '../../../lib/index.js';
import { Records } from '../support/data.js';
import { PAGE_BYTES } from '../support/limits.js';
import { engineFor, Pair, type Sides, sideOf, twice } from '../support/pair.js';
import { digits, spread } from '../support/spread.js';
import type { Bench, Suite } from '../support/suite.js';

/** What deltas save, what they cost, and restores in place, which they make cheap. */
export const suite: Suite = async (bench) => {
  const mib = bench.quick ? 128 : 1024;
  await measureD(bench, mib, 'sync');
  await measureD(bench, mib, 'relaxed');
  await measureNoise(bench, mib / 4);
};

/** D: what is stored, how fast, and how long the caller is blocked. */
async function measureD(bench: Bench, mib: number, durability: 'sync' | 'relaxed'): Promise<void> {
  const { report, quick, scratch } = bench;
  const rounds = quick ? 5 : 31;
  const pair = await Pair.open(mib << 20, scratch, { durability });
  const count = Math.floor((mib << 20) / PAGE_BYTES / 100);
  const touch = twice((records, memory) => records.touch(memory, count));
  await pair.round(0, (memory) => new Records().fill(memory));
  // The first has no shadows of what it writes that are warm.
  await pair.round(1, touch);
  const taken: Sides<Checkpoint>[] = [];
  for (let round = 0; round < rounds; round++) taken.push(await pair.round(round, touch));
  const of = (what: (checkpoint: Checkpoint) => number): Sides<number>[] =>
    taken.map(({ on, off }) => ({ on: what(on), off: what(off) }));
  if (durability === 'sync') {
    const stored = of(({ storedBytes }) => storedBytes / 1e3);
    report.budget({
      what: `stored for D, ${mib} MiB, second time on`,
      measured: sideOf(stored, 'on'),
      against: 'full pages with zstd level 1',
      limit: sideOf(stored, 'off'),
      unit: 'KB',
      kind: 'cost',
      must: 1 / 25,
      aim: 1 / 34,
    });
  }
  const spent = of(({ timings }) => timings.encodeMs + timings.commitMs);
  report.budget({
    what: `encode + store of D, ${durability}`,
    measured: sideOf(spent, 'on'),
    against: 'deltas: false',
    limit: sideOf(spent, 'off'),
    unit: 'ms',
    kind: 'speed',
    must: 2.5,
    aim: 5,
    ratios: spread(spent.map(({ on, off }) => off / on)),
  });
  const captures = of(({ timings }) => timings.captureMs);
  const median = (side: 'on' | 'off'): string => sideOf(captures, side).median.toFixed(2);
  report.note(
    `The capture of these takes ${median('on')} ms with deltas and ${median('off')} ms without, ${digits(spread(captures.map(({ on, off }) => on / off)).median)} of it in pairs.`,
  );
  if (durability === 'sync') await measureInPlace(bench, pair, count);
  await pair.close();
}

/** Into a fresh region, and in place: one checkpoint back, and what was written since undone. */
async function measureInPlace({ report, quick }: Bench, pair: Pair, count: number): Promise<void> {
  const head = pair.checkpointers.on.head!.id;
  await pair.checkpointers.on.close();
  const eager: number[] = [];
  const [back, undone]: number[][] = [[], []];
  const bytes = pair.regions.on.byteLength;
  for (let round = 0; round < 5; round++) {
    const region = Region.allocate(bytes);
    const engine = engineFor(bytes);
    const checkpointer = await Checkpointer.open(pair.folders.on, { engine, regions: { memory: region } });
    eager.push((await checkpointer.restore()).stats().ms);
    const records = new Records();
    for (let k = 0; k < (quick ? 1 : 3); k++) {
      back!.push((await checkpointer.restore(head - 1)).stats().ms);
      await checkpointer.restore(head);
      records.touch(new Uint8Array(region.buffer), count);
      undone!.push((await checkpointer.restore(head)).stats().ms);
    }
    await checkpointer.close();
    await engine.close();
    region.close();
  }
  const limit = spread(eager);
  const same = { against: 'eager restore of the whole', limit, unit: 'ms', kind: 'cost' } as const;
  report.budget({
    ...same,
    what: 'restore in place, one checkpoint back, D differs',
    measured: spread(back!),
    must: 1 / 20,
    aim: 1 / 60,
  });
  report.note(
    `Undoing as much that was written since takes ${spread(undone!).median.toFixed(1)} ms: what was written is no base for deltas, so it comes from the chain.`,
  );
}

/** Every page rewritten with noise: where deltas are of no use. */
async function measureNoise({ report, quick, scratch }: Bench, mib: number): Promise<void> {
  const pair = await Pair.open(mib << 20, scratch, { durability: 'relaxed' });
  const times: Sides<number>[] = [];
  const stored: Sides<number>[] = [];
  for (let round = 0; round <= (quick ? 3 : 9); round++) {
    const { on, off } = await pair.round(round, (memory) => randomFillSync(memory));
    if (round === 0) continue;
    times.push({ on: on.wallMs, off: off.wallMs });
    stored.push({ on: on.storedBytes / 1e6, off: off.storedBytes / 1e6 });
  }
  await pair.close();
  const same = { against: 'deltas: false', kind: 'cost', aim: 1 } as const;
  report.budget({
    ...same,
    what: `all of ${mib} MiB rewritten with noise: time`,
    measured: sideOf(times, 'on'),
    limit: sideOf(times, 'off'),
    unit: 'ms',
    must: 1.05,
    ratios: spread(times.map(({ on, off }) => on / off)),
  });
  report.budget({
    ...same,
    what: 'the same: stored',
    measured: sideOf(stored, 'on'),
    limit: sideOf(stored, 'off'),
    unit: 'MB',
    must: 1.01,
  });
}
