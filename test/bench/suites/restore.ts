import { join } from 'node:path';
import { Checkpointer, Region } from '../../../lib/index.js';
import { Records } from '../support/data.js';
import { PAGE_BYTES, RestoreLimit, type RestoreTimes } from '../support/limits.js';
import { collect } from '../support/memory.js';
import { engineFor } from '../support/pair.js';
import { spread } from '../support/spread.js';
import type { Suite } from '../support/suite.js';

/** Eager restore into fresh memory: of one full checkpoint, and of one with deltas on it. */
export const suite: Suite = async ({ report, quick, scratch, cores }) => {
  const mib = quick ? 128 : 1024;
  const rounds = quick ? 3 : 7;
  const region = Region.allocate(mib << 20);
  const memory = new Uint8Array(region.buffer);
  const records = new Records();
  records.fill(memory);
  const checkpointer = await Checkpointer.open(join(scratch, 'store'), {
    regions: { memory: region },
    engine: engineFor(memory.length),
  });
  const full = await checkpointer.checkpoint();
  const whole = memory.slice();
  const limit = new RestoreLimit(whole, cores, scratch);
  for (let k = 0; k < 10; k++) {
    records.touch(memory, Math.floor(memory.length / PAGE_BYTES / 100));
    await checkpointer.checkpoint();
  }
  const head = checkpointer.head!;
  await checkpointer.close();
  const restore = async (target: number, deltas: boolean, expected: Uint8Array): Promise<number> => {
    const fresh = Region.allocate(memory.length);
    const engine = engineFor(memory.length);
    const restorer = await Checkpointer.open(join(scratch, 'store'), { regions: { memory: fresh }, engine, deltas });
    const { ms } = (await restorer.restore(target)).stats();
    if (Buffer.compare(new Uint8Array(fresh.buffer), expected) !== 0) throw new Error('restored other bytes');
    await restorer.close();
    await engine.close();
    fresh.close();
    await collect();
    return ms;
  };
  // In turn: what the machine does besides changes within minutes.
  const limits: RestoreTimes[] = [];
  const times: { shadows: number; none: number; behind: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    limits.push(limit.measure());
    const shadows = await restore(full.id, true, whole);
    const none = await restore(full.id, false, whole);
    times.push({ shadows, none, behind: await restore(head.id, true, memory) });
  }
  const both = spread(limits.map((one) => one.both));
  const budget = (what: string, name: keyof (typeof times)[number]): void => {
    const ms = times.map((one) => one[name]);
    report.budget({
      what,
      measured: spread(ms),
      against: `zstd decompression + UFFDIO_COPY on ${cores} cores, C++`,
      limit: both,
      unit: 'ms',
      kind: 'speed',
      must: 0.6,
      aim: 0.8,
      ratios: spread(ms.map((one, k) => limits[k]!.both / one)),
    });
  };
  budget(`eager restore of ${mib} MiB into a fresh region`, 'shadows');
  budget('the same, without shadows (deltas: false)', 'none');
  const decompression = spread(limits.map((one) => one.decompress)).median;
  const fills = spread(limits.map((one) => one.fill)).median;
  const behind = spread(times.map((one) => one.behind)).median;
  report.note(
    `Of the limit, decompression alone takes ${decompression.toFixed(0)} ms, UFFDIO_COPY alone ${fills.toFixed(0)} ms. ` +
      `A checkpoint with 10 times D on it, with shadows, is restored in ${behind.toFixed(0)} ms: its pages are put together of versions, in staging.`,
  );
  region.close();
};
