import { realpathSync } from 'node:fs';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Checkpoint, CheckpointStore } from '../../lib/index.js';
import { withDatabaseFrom } from './database.js';
import { lengthIn, type Metadata } from './main.js';
import { fingerprint, problems } from './workload.js';

export interface Verified {
  id: number;
  transactions: number;
  length: number;
  /** Where the database was written; it is still there when a folder was given. */
  file: string;
  /** What is wrong with it; empty when it is whole and answers what was noted when the checkpoint was made. */
  problems: string[];
}

export interface VerifyOptions {
  store: string;
  /** Folder for the database files, which then stay; without it they are temporary. */
  folder?: string;
  log?: (line: string) => void;
}

/** Takes the database out of every checkpoint of a store, into a file, and looks at it with a SQLite that never saw it before. */
export async function verify({ store, folder, log = () => {} }: VerifyOptions): Promise<Verified[]> {
  const files = folder ?? (await mkdtemp(join(tmpdir(), 'sqlite-pages-')));
  try {
    const opened = await CheckpointStore.open(store);
    try {
      const results: Verified[] = [];
      for await (const checkpoint of opened.checkpoints()) {
        const result = await verifyOne(opened, checkpoint, join(files, `checkpoint-${checkpoint.id}.sqlite`));
        if (folder === undefined) await rm(result.file);
        log(`checkpoint ${result.id}, ${result.transactions} transactions: ${result.problems.join('; ') || 'ok'}`);
        results.push(result);
      }
      return results;
    } finally {
      await opened.close();
    }
  } finally {
    if (folder === undefined) await rm(files, { recursive: true, force: true });
  }
}

async function verifyOne(store: CheckpointStore, checkpoint: Checkpoint, file: string): Promise<Verified> {
  const length = lengthIn(checkpoint);
  const { transactions, answer } = checkpoint.metadata as Metadata;
  const found: string[] = [];
  try {
    await writeDatabase(store, checkpoint.id, length, file);
    await withDatabaseFrom(await readFile(file), (db) => {
      found.push(...problems(db));
      const now = JSON.stringify(fingerprint(db));
      if (now !== JSON.stringify(answer)) found.push(`answers ${now} instead of ${JSON.stringify(answer)}`);
    });
  } catch (error) {
    found.push(String(error));
  }
  return { id: checkpoint.id, transactions, length, file, problems: found };
}

async function writeDatabase(store: CheckpointStore, id: number, length: number, file: string): Promise<void> {
  const snapshot = await store.at(id);
  try {
    const output = await open(file, 'w');
    try {
      let rest = length;
      for await (const chunk of snapshot.stream('database')) {
        const wanted = chunk.subarray(0, rest);
        await output.writeFile(wanted);
        rest -= wanted.byteLength;
        if (rest === 0) break;
      }
      if (rest > 0) throw new Error(`the stream ended ${rest} bytes early`);
    } finally {
      await output.close();
    }
  } finally {
    await snapshot.close();
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === import.meta.filename) {
  const results = await verify({ store: process.argv[2] ?? 'sqlite-pages.tidemark', log: console.log });
  if (results.some((result) => result.problems.length > 0)) process.exitCode = 1;
}
