import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants, openSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';

/** MFD_HUGETLB of memfd_create(2). */
export const HUGETLB = 4;

/** Answers in one piece; makes one at a time, and keeps it until it is asked for the next. */
const MAKER = `
import os, sys
fd = -1
for line in sys.stdin:
    flags, size = map(int, line.split())
    if fd >= 0:
        os.close(fd)
    try:
        fd = os.memfd_create("tidemark-test", flags)
        os.ftruncate(fd, size)
    except OSError:
        fd = -1
    os.write(1, b"%d\\n" % fd)
`;

let maker: ChildProcessByStdio<Writable, Readable, null> | undefined;

/**
 * A descriptor of a new memfd, whose path is `/proc/self/fd/N`. Node has no memfd_create(2): Python makes it (node-gyp needs that too), and
 * what is opened by way of /proc is the same file. One call at a time.
 * @returns undefined where the kernel has no such memory
 */
export async function memfd(byteLength: number, flags = 0): Promise<number | undefined> {
  maker ??= spawn('python3', ['-c', MAKER], { stdio: ['pipe', 'pipe', 'inherit'] });
  maker.stdin.write(`${flags} ${byteLength}\n`);
  const [answer] = (await once(maker.stdout, 'data')) as [Buffer];
  const fd = Number(answer.toString());
  return fd < 0 ? undefined : openSync(`/proc/${maker.pid}/fd/${fd}`, constants.O_RDWR);
}

/** To be called when a file of tests is through. */
export async function endMemfds(): Promise<void> {
  const ending = maker;
  maker = undefined;
  if (ending === undefined) return;
  ending.stdin.end();
  await once(ending, 'exit');
}
