import { realpathSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type Checkpoint, Checkpointer, Region } from '../../lib/index.js';
import { wholeNumber } from '../arguments.js';
import { table } from '../table.js';
import { PagedDatabase, pageSize } from './database.js';
import { type Fingerprint, fingerprint, Workload } from './workload.js';

/** What a checkpoint says about the database in it. */
export type Metadata = { transactions: number; answer: Fingerprint };

const row = table([10, 14, 16, 13, 14, 12]);

export interface RunOptions {
  /** Folder of the store. When it has history, the database of its newest checkpoint is restored and the run goes on from there. */
  store: string;
  /** How many transactions to add. */
  transactions: number;
  /** A checkpoint after this many. */
  every: number;
  /** Bytes that the database can grow to; those of the store when it has history. Default: 32 MiB. */
  capacity?: number;
  /** Takes the lines of the report. */
  log?: (line: string) => void;
}

export interface RunResult {
  /** Transactions that the restored database had seen; 0 for a new one. */
  resumedAt: number;
  transactions: number;
  checkpoints: Checkpoint[];
}

export async function run({ store, transactions, every, capacity, log = console.log }: RunOptions): Promise<RunResult> {
  const database = await PagedDatabase.open(capacity);
  try {
    const { memory, byteOffset, byteLength } = database;
    const region = Region.of(memory, { byteOffset, byteLength });
    try {
      const checkpointer = await Checkpointer.open(store, { regions: { database: region }, fingerprint: 'sqlite-pages 1' });
      try {
        const resumedAt = await resume(checkpointer, database, log);
        const workload = new Workload(database);
        const checkpoints: Checkpoint[] = [];
        const finished = (checkpoint: Checkpoint) => {
          checkpoints.push(checkpoint);
          log(line(checkpoint));
        };

        log('checkpoint  transactions  database pages  dirty pages  stored bytes  blocked ms');
        const goal = workload.transactions + transactions;
        let pending: Promise<Checkpoint> | undefined;
        while (workload.transactions < goal) {
          workload.run(Math.min(every, goal - workload.transactions));
          // The checkpoint before is compressed and written while these transactions ran.
          if (pending !== undefined) finished(await pending);
          const metadata: Metadata = { transactions: workload.transactions, answer: fingerprint(database.db) };
          pending = checkpointer.checkpoint({ metadata, lengths: { database: database.length() } });
          // When the next batch throws, nobody awaits this one any more.
          pending.catch(() => {});
        }
        if (pending !== undefined) finished(await pending);
        return { resumedAt, transactions: workload.transactions, checkpoints };
      } finally {
        await checkpointer.close();
      }
    } finally {
      region.close();
    }
  } finally {
    database.close();
  }
}

/** Brings the newest checkpoint back, if there is one; what the database answers then must be what was noted in it. */
async function resume(checkpointer: Checkpointer<'database'>, database: PagedDatabase, log: (line: string) => void) {
  if (checkpointer.head === undefined) return 0;
  const { checkpoint } = await checkpointer.restore();
  database.reopen(lengthIn(checkpoint));
  const { transactions, answer } = checkpoint.metadata as Metadata;
  const now = fingerprint(database.db);
  if (JSON.stringify(now) !== JSON.stringify(answer)) {
    throw new Error(`checkpoint ${checkpoint.id} answers ${JSON.stringify(now)} instead of ${JSON.stringify(answer)}`);
  }
  log(`restored checkpoint ${checkpoint.id}: ${transactions} transactions`);
  return transactions;
}

/** Bytes of database in a checkpoint. */
export function lengthIn(checkpoint: Checkpoint): number {
  const region = checkpoint.regions.database;
  if (region === undefined) throw new Error(`checkpoint ${checkpoint.id} has no region "database"`);
  return region.length;
}

function line(checkpoint: Checkpoint): string {
  const { transactions } = checkpoint.metadata as Metadata;
  const region = checkpoint.regions.database;
  const dirty = region === undefined ? 0 : region.pages + region.zeroPages + region.unchangedPages;
  return row(
    checkpoint.id,
    transactions,
    lengthIn(checkpoint) / pageSize,
    dirty,
    checkpoint.storedBytes,
    checkpoint.timings.captureMs.toFixed(2),
  );
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === import.meta.filename) {
  const { values } = parseArgs({
    options: {
      store: { type: 'string', default: 'sqlite-pages.tidemark' },
      transactions: { type: 'string', default: '5000' },
      every: { type: 'string', default: '100' },
    },
  });
  await run({
    store: values.store,
    transactions: wholeNumber('transactions', values.transactions, 0),
    every: wholeNumber('every', values.every, 1),
  });
}
