import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const PREFIX = 'tidemark-crash-';

/** A temporary folder that a later run deletes if this one is killed. */
export function temporaryFolder(): string {
  sweep();
  return mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`));
}

let swept = false;

/** Deletes, and unmounts before, what runs that were killed have left. */
function sweep(): void {
  if (swept) return;
  swept = true;
  for (const name of readdirSync(tmpdir())) {
    const owner = /^tidemark-crash-(\d+)-/.exec(name)?.[1];
    if (owner === undefined || existsSync(`/proc/${owner}`)) continue;
    const folder = join(tmpdir(), name);
    const mounted = join(folder, 'mnt');
    if (existsSync(mounted)) spawnSync('umount', ['-l', mounted], { stdio: 'ignore' });
    try {
      rmSync(folder, { recursive: true, force: true });
    } catch {
      // Another user's.
    }
  }
}
