import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import type { LogDatabase } from '../../lib/chain/log.js';
import { type Kind, parseKey } from '../../lib/chain/record.js';
import { TidemarkError } from '../../lib/errors.js';

export const PAGE = 4096;
/** The uuid of a store that is nowhere. */
export const STORE = Uint8Array.from({ length: 16 }, (_, k) => (k * 37 + 11) & 0xff);

/** Small and repeatable. */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** A folder that is gone after `body`. */
export async function withFolder<T>(body: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-test-'));
  try {
    return await body(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** For assert.throws and assert.rejects: a TidemarkError with one of these codes. */
export const code =
  (...expected: string[]) =>
  (error: unknown): boolean => {
    assert.ok(error instanceof TidemarkError, `not a TidemarkError: ${String(error)}`);
    assert.ok(expected.includes(error.code), `${error.code} instead of ${expected.join(' or ')}: ${error.message}`);
    return true;
  };

/** The log of a closed store, or the index of one, opened as what it is: a LevelDB. */
export async function withDatabase<T>(folder: string, body: (db: LogDatabase) => Promise<T>): Promise<T> {
  const db = new Level<Uint8Array, Uint8Array>(folder, { keyEncoding: 'view', valueEncoding: 'view', compression: false });
  await db.open();
  try {
    return await body(db);
  } finally {
    await db.close();
  }
}

export interface Entry {
  number: number;
  kind: Kind;
  key: Uint8Array;
  value: Uint8Array;
}

/** Everything in the log of a closed store. */
export function logEntries(store: string): Promise<Entry[]> {
  return withDatabase(join(store, 'log'), async (db) => {
    const entries: Entry[] = [];
    for await (const [key, value] of db.iterator())
      entries.push({ ...parseKey(key), key: Uint8Array.from(key), value: Uint8Array.from(value) });
    return entries;
  });
}

/** What an attacker or a failing disk makes of bytes: flips, truncations, insertions, long runs of one value. */
export function mutate(bytes: Uint8Array, pick: (below: number) => number): Uint8Array {
  let mutant = bytes.slice();
  for (let times = 1 + pick(3); times > 0; times--) {
    const at = pick(mutant.length);
    switch (pick(6)) {
      case 0:
        mutant[at]! ^= 1 << pick(8);
        break;
      case 1:
        mutant[at] = pick(256);
        break;
      case 2:
        mutant = mutant.slice(0, at);
        break;
      case 3:
        mutant.fill(pick(2) === 0 ? 0xff : 0, at, at + 1 + pick(12));
        break;
      case 4: {
        const inserted = new Uint8Array(mutant.length + 1 + pick(8));
        inserted.set(mutant.subarray(0, at));
        for (let k = at; k < at + inserted.length - mutant.length; k++) inserted[k] = pick(256);
        inserted.set(mutant.subarray(at), at + inserted.length - mutant.length);
        mutant = inserted;
        break;
      }
      default: {
        const length = 1 + pick(16);
        mutant.copyWithin(at, pick(mutant.length), pick(mutant.length) + length);
      }
    }
    if (mutant.length === 0) break;
  }
  return mutant;
}
