import { realpathSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { Checkpoint, CheckpointStore } from '../../lib/index.js';
import { wholeNumber } from '../arguments.js';
import { table } from '../table.js';
import { DurableVm, type Metadata, type PassedOn } from './vm.js';

const row = table([6, 8, 9, 10, 12, 13, 14, 12]);

export interface RunOptions {
  /** A store, or its folder. When it has history, its newest checkpoint is restored and the program goes on from there. */
  store: string | CheckpointStore;
  /** How many steps to add. */
  steps: number;
  /** Further options of the checkpointer. */
  options?: PassedOn;
  /** Takes the lines of the report. */
  log?: (line: string) => void;
}

export interface RunResult {
  /** Steps that the program had made in the checkpoint that was restored; 0 for a new one. */
  resumedAt: number;
  steps: number;
  /** One of each step, with the pages and bytes stored and the time for which the program was blocked. */
  checkpoints: Checkpoint[];
}

export async function run({ store, steps, options, log = console.log }: RunOptions): Promise<RunResult> {
  const vm = await DurableVm.open(store, options);
  try {
    const { resumedAt } = vm;
    if (resumedAt > 0) log(`restored: the program goes on after step ${resumedAt}`);
    log(row('step', 'ships', 'voyages', 'digest', 'memory KiB', 'dirty pages', 'stored bytes', 'blocked ms'));
    const checkpoints: Checkpoint[] = [];
    const finished = (checkpoint: Checkpoint) => {
      checkpoints.push(checkpoint);
      log(line(checkpoint));
    };
    let pending: Promise<Checkpoint> | undefined;
    for (const goal = resumedAt + steps; vm.steps < goal; ) {
      vm.step();
      // The checkpoint before is compressed and written while this step was made.
      if (pending !== undefined) finished(await pending);
      pending = vm.checkpoint();
      // When the next step throws, nobody awaits this one any more.
      pending.catch(() => {});
    }
    if (pending !== undefined) finished(await pending);
    return { resumedAt, steps: vm.steps, checkpoints };
  } finally {
    await vm.close();
  }
}

/** Pages that a step wrote. */
export function dirtyPages(checkpoint: Checkpoint): number {
  const { pages, zeroPages, unchangedPages } = checkpoint.regions.memory!;
  return pages + zeroPages + unchangedPages;
}

function line(checkpoint: Checkpoint): string {
  const { step, ships, voyages, digest } = (checkpoint.metadata as Metadata).report;
  return row(
    step,
    ships,
    voyages,
    digest,
    checkpoint.regions.memory!.byteLength >> 10,
    dirtyPages(checkpoint),
    checkpoint.storedBytes,
    checkpoint.timings.captureMs.toFixed(2),
  );
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === import.meta.filename) {
  const { values } = parseArgs({
    options: {
      store: { type: 'string', default: 'durable-vm.tidemark' },
      steps: { type: 'string', default: '60' },
    },
  });
  await run({ store: values.store, steps: wholeNumber('steps', values.steps, 0) });
}
