import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const SOURCE = join(import.meta.dirname, '../../../test/support/native/mappings.cc');

/** What a program may do to its memory. The last one takes a descriptor. */
export type Change =
  | 'unmap'
  | 'replace'
  | 'replace-shared'
  | 'replace-inaccessible'
  | 'move-away'
  | 'move-away-and-back'
  | 'inaccessible'
  | 'read-only'
  | 'accessible'
  | 'not-for-children'
  | 'drop'
  | 'unregister';

export type ChangeMapping = (how: Change, view: Uint8Array) => void;

/** Call it inside `describe`: gives the path of the compiled helper, for `loadMappings` here or in a child process. */
export function mappingsHelper(): () => string {
  let folder = '';
  const path = (): string => join(folder, 'mappings.node');
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'tidemark-mappings-'));
    execFileSync('c++', ['-O1', '-std=c++17', '-shared', '-fPIC', '-o', path(), SOURCE]);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));
  return path;
}

/** The helper unmaps and replaces memory at the address of a view: only whole pages, and never of a plain buffer. */
export function loadMappings(path: string): ChangeMapping {
  const change = createRequire(import.meta.url)(path) as (how: Change, view: Uint8Array, fd: number) => number;
  return (how, view) => {
    const errors = how === 'unregister' ? userfaults().map((fd) => change(how, view, fd)) : [change(how, view, -1)];
    assert.ok(errors.includes(0), `${how} failed with errors ${errors}`);
  };
}

/** Every userfaultfd of this process. */
export function userfaults(): number[] {
  return readdirSync('/proc/self/fd')
    .filter((fd) => linkOf(fd).includes('userfaultfd'))
    .map(Number);
}

/** Closes them, as a program does that closes descriptors which are not its own. */
export function closeUserfaults(): void {
  for (const fd of userfaults()) closeSync(fd);
}

function linkOf(fd: string): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}
