import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import { databaseOptions, type LogDatabase } from '../../lib/chain/log.js';
import { Kind, parseKey, RECORD_HEADER } from '../../lib/chain/record.js';
import { assert, CheckpointStore } from './kit.js';

interface LogRecord {
  number: number;
  kind: number;
  value: Uint8Array;
}

/** Every record in the log of a store that is closed, ascending. Opening the database moves what it finds into tables. */
export async function logRecords(path: string): Promise<LogRecord[]> {
  const db: LogDatabase = new Level(join(path, 'log'), databaseOptions(32 << 20));
  await db.open();
  try {
    const records: LogRecord[] = [];
    for await (const [key, value] of db.iterator()) records.push({ ...parseKey(key), value: value.slice() });
    return records;
  } finally {
    await db.close();
  }
}

export async function extentNumbers(path: string): Promise<number[]> {
  return (await logRecords(path)).filter(({ kind }) => kind === Kind.extent).map(({ number }) => number);
}

/**
 * Opens the store: `verify()` finds no problem, and the log has no extent but those that checkpoints refer to (each extent belongs to one).
 * @returns the ids of its checkpoints
 */
export async function assertSound(path: string): Promise<number[]> {
  const store = await CheckpointStore.open(path);
  const report = await store.verify();
  const ids: number[] = [];
  for await (const { id } of store.checkpoints()) ids.push(id);
  await store.close();
  assert.deepEqual(report.problems, []);
  assert.equal((await extentNumbers(path)).length, report.extents, 'extents in the log that no checkpoint refers to');
  return ids;
}

/** Flips one byte in the payload of an extent (the `nth` in the log, negative: from the end), in the file that holds it. */
export async function damageExtent(path: string, nth: number): Promise<void> {
  const extent = (await logRecords(path)).filter(({ kind }) => kind === Kind.extent).at(nth);
  assert.ok(extent, `no extent ${nth}`);
  const needle = Buffer.from(extent.value.subarray(0, RECORD_HEADER));
  for (const name of readdirSync(join(path, 'log'))) {
    if (!/\.(ldb|log)$/.test(name)) continue;
    const file = join(path, 'log', name);
    const bytes = readFileSync(file);
    const at = bytes.indexOf(needle);
    if (at < 0) continue;
    const target = at + RECORD_HEADER + Math.floor((extent.value.length - RECORD_HEADER) / 2);
    bytes[target]! ^= 0x40;
    writeFileSync(file, bytes);
    return;
  }
  assert.fail('the extent was found in no file of the log');
}
