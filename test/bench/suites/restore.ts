import { join } from 'node:path';
import { Checkpointer, Region } from '../../../lib/index.js';
import { Records } from '../support/data.js';
import { PAGE_BYTES, restoreLimit } from '../support/limits.js';
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
  const limits = restoreLimit(memory, rounds, cores, scratch);
  const whole = memory.slice();
  for (let k = 0; k < 10; k++) {
    records.touch(memory, Math.floor(memory.length / PAGE_BYTES / 100));
    await checkpointer.checkpoint();
  }
  const head = checkpointer.head!;
  await checkpointer.close();
  const measure = async (target: number, deltas: boolean, expected: Uint8Array): Promise<number[]> => {
    const times: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const fresh = Region.allocate(memory.length);
      const engine = engineFor(memory.length);
      const restorer = await Checkpointer.open(join(scratch, 'store'), { regions: { memory: fresh }, engine, deltas });
      times.push((await restorer.restore(target)).stats().ms);
      if (Buffer.compare(new Uint8Array(fresh.buffer), expected) !== 0) throw new Error('restored other bytes');
      await restorer.close();
      await engine.close();
      fresh.close();
    }
    return times;
  };
  const same = {
    against: `zstd decompression + UFFDIO_COPY on ${cores} cores, C++`,
    limit: spread(limits.both),
    unit: 'ms',
    kind: 'speed',
    must: 0.6,
    aim: 0.8,
  } as const;
  const what = `eager restore of ${mib} MiB into a fresh region`;
  report.budget({ ...same, what, measured: spread(await measure(full.id, true, whole)) });
  report.budget({
    ...same,
    what: 'the same, without shadows (deltas: false)',
    measured: spread(await measure(full.id, false, whole)),
  });
  report.budget({
    ...same,
    what: 'the same, with shadows, of a checkpoint with 10 times D on it',
    measured: spread(await measure(head.id, true, memory)),
  });
  report.note(
    `Of the limit, decompression alone takes ${spread(limits.decompress).median.toFixed(0)} ms, UFFDIO_COPY alone ${spread(limits.fill).median.toFixed(0)} ms.`,
  );
  region.close();
};
