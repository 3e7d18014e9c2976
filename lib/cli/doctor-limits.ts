import { readFileSync } from 'node:fs';

/** null: no limit, or (the two of /proc/sys/vm) not known. */
export interface Limits {
  openFiles: number | null;
  maxMapCount: number | null;
  unprivilegedUserfaultfd: number | null;
  memory: number | null;
}

/** A region takes a descriptor and a few mappings. */
const FEW_FILES = 1024;

export function limits(): { limits: Limits; remedies: string[] } {
  const openFiles = openFilesLimit();
  const memory = process.constrainedMemory();
  const remedies =
    openFiles !== null && openFiles < FEW_FILES
      ? [`each region takes a descriptor: raise the limit of open files (ulimit -n) above ${openFiles}`]
      : [];
  return {
    limits: {
      openFiles,
      maxMapCount: sysctl('max_map_count'),
      unprivilegedUserfaultfd: sysctl('unprivileged_userfaultfd'),
      // Without a limit it is 0, or what a cgroup calls unlimited.
      memory: memory > 0 && memory < 2 ** 50 ? memory : null,
    },
    remedies,
  };
}

/** The soft limit of this process; Node has raised it to the hard one. */
function openFilesLimit(): number | null {
  const found = /^Max open files\s+(\d+)/m.exec(read('/proc/self/limits') ?? '');
  return found === null ? null : Number(found[1]);
}

function sysctl(name: string): number | null {
  const text = read(`/proc/sys/vm/${name}`);
  return text === undefined ? null : Number(text);
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
