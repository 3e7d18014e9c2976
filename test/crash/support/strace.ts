import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Files of a store by what they are for. */
export const CLASSES = ['log', 'table', 'manifest', 'index', 'folder'] as const;
export type Class = (typeof CLASSES)[number];

/** System calls by what they do, with the names that they go by. */
export const CALLS = {
  write: ['write', 'writev', 'pwrite64'],
  sync: ['fdatasync', 'fsync'],
  rename: ['rename', 'renameat', 'renameat2'],
  unlink: ['unlink', 'unlinkat'],
  open: ['openat'],
  read: ['read', 'pread64'],
} as const;
export type Call = keyof typeof CALLS;

const FILES = 40;

/** strace follows paths, not patterns: these are all that LevelDB makes in a short life. */
function pathsOf(store: string, kind: Class): string[] {
  const numbers = Array.from({ length: FILES }, (_, k) => String(k + 1).padStart(6, '0'));
  const log = join(store, 'log');
  const index = join(store, 'index');
  const meta = (folder: string) => [
    ...numbers.flatMap((n) => [join(folder, `MANIFEST-${n}`), join(folder, `${n}.dbtmp`)]),
    join(folder, 'CURRENT'),
  ];
  switch (kind) {
    case 'log':
      return numbers.map((n) => join(log, `${n}.log`));
    case 'table':
      return numbers.map((n) => join(log, `${n}.ldb`));
    case 'manifest':
      return [...meta(log), log];
    case 'index':
      return [...meta(index), ...numbers.flatMap((n) => [join(index, `${n}.log`), join(index, `${n}.ldb`)])];
    case 'folder':
      return [join(store, 'TIDEMARK'), join(store, 'TIDEMARK.new'), join(store, 'owner.json'), store];
  }
}

/** What happens to the nth such call of each thread. */
export interface Injection {
  kind: Class;
  call: Call;
  /** As strace takes it: 3, 3..5, 3+. */
  when: string;
  /** 'signal=KILL' or 'error=EIO'. */
  what: string;
}

const QUIET = ['strace', '-f', '-qq'];

/** The command that runs a program with an injection. One pool thread, so that its calls are counted together. */
export function injecting(store: string, { kind, call, when, what }: Injection): string[] {
  const names = CALLS[call].join(',');
  const paths = pathsOf(store, kind).flatMap((path) => ['-P', path]);
  return [...QUIET, '-o', '/dev/null', ...paths, '-e', `trace=${names}`, '-e', `inject=${names}:${what}:when=${when}`];
}

/** One thread in libuv's pool: LevelDB's calls come from it (and from its compaction thread). */
export const ONE_THREAD = { UV_THREADPOOL_SIZE: '1' };

/** The command that runs a program and notes its calls in `output`. */
export function counting(output: string): string[] {
  return [...QUIET, '-y', '-o', output, '-e', `trace=${Object.values(CALLS).flat().join(',')}`];
}

/** How often a thread makes each kind of call at most. */
export function counted(output: string, store: string): { kind: Class; call: Call; times: number }[] {
  const byPath = new Map<string, Class>();
  for (const kind of CLASSES) for (const path of pathsOf(store, kind)) byPath.set(path, kind);
  const byThread = new Map<string, number>();
  for (const line of readFileSync(output, 'utf8').split('\n')) {
    const [, thread, name] = /^(\d+) +(\w+)\(/.exec(line) ?? [];
    const call = (Object.keys(CALLS) as Call[]).find((candidate) => (CALLS[candidate] as readonly string[]).includes(name ?? ''));
    if (call === undefined) continue;
    const kinds = new Set<Class>();
    for (const [, opened, named] of line.matchAll(/<([^<>]+)>|"(\/[^"]+)"/g)) {
      const kind = byPath.get(opened ?? named!);
      if (kind !== undefined) kinds.add(kind);
    }
    for (const kind of kinds) {
      const key = `${kind} ${call} ${thread}`;
      byThread.set(key, (byThread.get(key) ?? 0) + 1);
    }
  }
  const most = new Map<string, number>();
  for (const [key, times] of byThread) {
    const [kind, call] = key.split(' ');
    most.set(`${kind} ${call}`, Math.max(times, most.get(`${kind} ${call}`) ?? 0));
  }
  return [...most].map(([key, times]) => {
    const [kind, call] = key.split(' ') as [Class, Call];
    return { kind, call, times };
  });
}
