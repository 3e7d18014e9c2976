import assert from 'node:assert/strict';
import { type Dirent, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Checkpointer, Region, TidemarkError } from '../../lib/index.js';

export const PAGE = 4096;

export const code =
  (...expected: string[]) =>
  (error: unknown): boolean => {
    assert.ok(error instanceof TidemarkError, `not a TidemarkError: ${String(error)}`);
    assert.ok(expected.includes(error.code), `${error.code} instead of ${expected.join(' or ')}: ${error.message}`);
    return true;
  };

/** A folder for stores, gone after `body`. */
export async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-api-'));
  try {
    await body(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export interface Open {
  path: string;
  region: Region;
  checkpointer: Checkpointer<'heap'>;
}

/** A new store with one region of 8 pages in a checkpointer; all closed after `body`. */
export async function withCheckpointer(body: (open: Open) => Promise<void>, options: object = {}): Promise<void> {
  await withFolder(async (folder) => {
    const path = join(folder, 'store');
    const region = Region.allocate(8 * PAGE);
    const checkpointer = await Checkpointer.open(path, { regions: { heap: region }, ...options });
    try {
      await body({ path, region, checkpointer });
    } finally {
      await checkpointer.close();
      region.close();
    }
  });
}

/** A closed store with `count` checkpoints, labelled `one`, `two` and so on, whose first byte is their id. */
export async function makeStore(path: string, count: number, options: object = {}): Promise<void> {
  const region = Region.allocate(8 * PAGE);
  const checkpointer = await Checkpointer.open(path, { regions: { heap: region }, ...options });
  for (let id = 1; id <= count; id++) {
    new Uint8Array(region.buffer)[0] = id;
    await checkpointer.checkpoint({ label: ['one', 'two', 'three', 'four'][id - 1]! });
  }
  await checkpointer.close();
  region.close();
}

/** Names and contents of everything in a folder. */
export function tree(folder: string): Record<string, string> {
  const found: Record<string, string> = {};
  const walk = (path: string) => {
    for (const entry of readdirSync(path, { withFileTypes: true }) as Dirent[]) {
      const inner = join(path, entry.name);
      if (entry.isDirectory()) {
        found[inner] = 'folder';
        walk(inner);
      } else found[inner] = readFileSync(inner, 'base64');
    }
  };
  walk(folder);
  return found;
}

/** Rejects with a TypeError or RangeError that has no code, and never throws at once. */
export async function misuse(call: () => Promise<unknown>, what: string): Promise<void> {
  let promise: Promise<unknown>;
  try {
    promise = call();
  } catch (error) {
    assert.fail(`${what} threw at once: ${String(error)}`);
  }
  await assert.rejects(
    promise,
    (error) => {
      assert.ok(error instanceof TypeError || error instanceof RangeError, `${what}: ${String(error)}`);
      assert.ok(!(error as { code?: string }).code?.startsWith('TIDEMARK'), what);
      return true;
    },
    what,
  );
}
