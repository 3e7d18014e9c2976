import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const ROOT = process.getuid?.() === 0;

/** Tests that only root can run; who is not says so by one test: none may be skipped in silence. */
export function asRoot(why: string, define: () => void): void {
  if (ROOT) define();
  else it(`some are not run: they need root, ${why}`, () => assert.notEqual(process.getuid?.(), 0));
}

/** What runs a command as another user without a privilege, who may read the project wherever it is. Who is such a user already needs nothing. */
export const AS_NOBODY: readonly string[] = ROOT
  ? [
      'setpriv',
      '--reuid=65534',
      '--regid=65534',
      '--clear-groups',
      '--inh-caps=-all,+dac_read_search',
      '--ambient-caps=+dac_read_search',
      '--bounding-set=-all,+dac_read_search',
    ]
  : [];

/**
 * Why such a user may serve faults from inside the kernel on this system; undefined: he may not. Of the system, not of the library: what the library says is
 * what is tested.
 */
export function whyPrivileged(): string | undefined {
  if (read('/proc/sys/vm/unprivileged_userfaultfd').trim() === '1') return 'vm.unprivileged_userfaultfd is 1';
  const [command, ...args] = [...AS_NOBODY, 'test', '-r', '/dev/userfaultfd', '-a', '-w', '/dev/userfaultfd'];
  if (succeeds(command!, args)) return '/dev/userfaultfd may be opened';
  const ptrace = 1n << 19n;
  if (!ROOT && BigInt(`0x${/^CapEff:\s*(\w+)/m.exec(read('/proc/self/status'))![1]}`) & ptrace) return 'it has CAP_SYS_PTRACE';
  return undefined;
}

/** Call it inside `describe`: gives a function that makes the path of a store that does not exist yet, in a folder that everybody may write to. */
export function openFolders(): () => string {
  const made: string[] = [];
  afterEach(() => {
    for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
  });
  return () => {
    const folder = mkdtempSync(join(tmpdir(), 'tidemark-nobody-'));
    chmodSync(folder, 0o777);
    made.push(folder);
    return join(folder, 'store');
  };
}

function succeeds(command: string, args: readonly string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
