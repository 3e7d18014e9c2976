import { join } from 'node:path';
import { type Checkpoint, Checkpointer } from '../../../lib/index.js';
import { type Database, regionOf, shop, transactions, virtualMachine } from '../support/databases.js';
import { show, spread } from '../support/spread.js';
import type { Bench, Suite } from '../support/suite.js';

interface Program {
  name: string;
  make(): Promise<Database>;
  epochs: number;
  /** Of what is stored, against the same without deltas. */
  must?: number;
  aim?: number;
}

/** Real programs: SQLite under a load that writes much, and a JavaScript interpreter in WebAssembly. */
export const suite: Suite = async (bench) => {
  const epochs = bench.quick ? 12 : 35;
  const programs: Program[] = [
    {
      name: 'SQLite, transactions of 200 updates and inserts',
      make: () => transactions(200),
      epochs,
      must: 1 / 8,
      aim: 1 / 10,
    },
    { name: 'SQLite, 200 rows changed as examples/sqlite-pages does, which also deletes', make: () => shop(200), epochs },
    {
      name: 'QuickJS, steps of examples/durable-vm',
      make: virtualMachine,
      epochs: bench.quick ? 12 : 60,
      must: 1 / 35,
      aim: 1 / 50,
    },
  ];
  const rows: string[][] = [];
  for (const [k, program] of programs.entries()) rows.push(await measure(bench, program, k));
  bench.report.table({
    title: 'Second checkpoint on, medians (and what they lie between):',
    columns: ['program', 'memory', 'checkpoints', 'dirty pages', 'capture', 'until durable', 'stored', 'without deltas'],
    rows,
  });
};

async function measure({ report, scratch }: Bench, program: Program, k: number): Promise<string[]> {
  const on = await live(program, join(scratch, `${k}-on`), true);
  const off = await live(program, join(scratch, `${k}-off`), false);
  const stored = (side: typeof on): number => side.checkpoints.reduce((sum, { storedBytes }) => sum + storedBytes, 0) / 1e3;
  if (program.must !== undefined && program.aim !== undefined) {
    report.budget({
      what: `stored: ${program.name}, ${program.epochs} times`,
      measured: spread([stored(on)]),
      against: 'full pages with zstd level 1',
      limit: spread([stored(off)]),
      unit: 'KB',
      kind: 'cost',
      must: program.must,
      aim: program.aim,
    });
  }
  const of = (what: (checkpoint: Checkpoint) => number, side = on) => spread(side.checkpoints.map(what));
  const kilobytes = ({ storedBytes }: Checkpoint): number => storedBytes / 1e3;
  return [
    program.name,
    `${(on.byteLength / 2 ** 20).toFixed(1)} MiB`,
    `${on.checkpoints.length}`,
    show(
      of(({ regions }) => regions.memory!.pages),
      '',
    ),
    show(
      of(({ timings }) => timings.captureMs),
      'ms',
    ),
    show(
      of(({ timings }) => timings.totalMs),
      'ms',
    ),
    show(of(kilobytes), 'KB'),
    show(of(kilobytes, off), 'KB'),
  ];
}

async function live(
  program: Program,
  folder: string,
  deltas: boolean,
): Promise<{ byteLength: number; checkpoints: Checkpoint[] }> {
  const running = await program.make();
  const region = regionOf(running);
  const checkpointer = await Checkpointer.open(folder, { regions: { memory: region }, deltas });
  await checkpointer.checkpoint();
  const checkpoints: Checkpoint[] = [];
  for (let epoch = 0; epoch < program.epochs; epoch++) {
    running.write();
    checkpoints.push(await checkpointer.checkpoint());
  }
  const { byteLength } = region;
  await checkpointer.close();
  region.close();
  running.database.close();
  return { byteLength, checkpoints };
}
