import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { TidemarkError } from '../../lib/index.js';
import { addon } from '../../lib/kernel/addon.js';
import {
  type PagefaultEvent,
  type Registration,
  Userfaultfd,
  type UserfaultfdEvent,
  type UserfaultfdMode,
  type UserfaultfdOptions,
} from '../../lib/userfaultfd/index.js';
import { inChild } from '../support/in-child.js';

export { addon, assert, TidemarkError, Userfaultfd };

export const PAGE = 4096;
export const HUGE = 2 << 20;

export type Support = typeof import('./support.js');

/**
 * Runs a function with everything that this module exports in a process of its own: a page that nobody serves blocks a thread for good, which then
 * fails the test at its time limit and not the whole run. The function is sent as text.
 */
export function child<R, A extends unknown[]>(body: (support: Support, ...args: A) => Promise<R>, ...args: A): Promise<R> {
  return inChild(
    { limitMs: 20_000 },
    async (_, url, source, given) => {
      const support = (await import(url)) as Support;
      const run = new Function(`return (${source});`)() as (support: Support, ...args: unknown[]) => Promise<R>;
      // Nothing is reported otherwise, and that is a failure.
      return { result: (await run(support, ...given)) ?? null };
    },
    import.meta.url,
    body.toString(),
    args as unknown[],
  ).then(({ result }) => result as R);
}

/** Memory that workers can be given, at a page boundary: V8 aligns what may grow. */
export function shared(pages: number): Uint8Array {
  const Growable = SharedArrayBuffer as unknown as new (length: number, options: { maxByteLength: number }) => SharedArrayBuffer;
  return new Uint8Array(new Growable(pages * PAGE, { maxByteLength: pages * PAGE }));
}

export interface Opened {
  uffd: Userfaultfd;
  view: Uint8Array;
  registration: Registration;
}

/** Shared memory, registered. */
export function opened(pages: number, modes: UserfaultfdMode[], options: UserfaultfdOptions = {}): Opened {
  const uffd = Userfaultfd.open(options);
  const view = shared(pages);
  return { uffd, view, registration: uffd.register(view, { modes }) };
}

/** A page of that value. */
export const filled = (value: number, pages = 1): Uint8Array => new Uint8Array(pages * PAGE).fill(value);

const TOUCHER = `
const { parentPort, workerData } = require('node:worker_threads');
const fs = require('node:fs');
const view = new Uint8Array(workerData);
parentPort.on('message', ({ verb, at, value }) => {
  let answer;
  try {
    if (verb === 'read') answer = view[at];
    else if (verb === 'write') { view[at] = value; answer = view[at]; }
    else if (verb === 'kernel') {
      const file = fs.openSync('/proc/self/status');
      try { answer = fs.readSync(file, view, at, 1, 0); } finally { fs.closeSync(file); }
    }
  } catch (error) { answer = error.code ?? String(error); }
  parentPort.postMessage(answer);
});
parentPort.postMessage('ready');
`;

/** A thread that touches memory, and may have to wait for it. */
export class Toucher {
  readonly #worker: Worker;
  readonly #ready: Promise<unknown>;

  constructor(view: Uint8Array) {
    this.#worker = new Worker(TOUCHER, { eval: true, workerData: view.buffer });
    this.#ready = this.#next();
  }

  #next(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#worker.once('message', resolve);
      this.#worker.once('error', reject);
    });
  }

  async #ask(message: object): Promise<unknown> {
    await this.#ready;
    this.#worker.postMessage(message);
    return this.#next();
  }

  read(at: number): Promise<unknown> {
    return this.#ask({ verb: 'read', at });
  }
  write(at: number, value: number): Promise<unknown> {
    return this.#ask({ verb: 'write', at, value });
  }
  /** The kernel writes there: read(2). What it gave, or the code of its error. */
  kernel(at: number): Promise<unknown> {
    return this.#ask({ verb: 'kernel', at });
  }
  async end(): Promise<void> {
    await this.#worker.terminate();
  }
}

/** The next event; fails when there is none for a while. */
export async function next(uffd: Userfaultfd): Promise<UserfaultfdEvent> {
  const iterator = uffd.events();
  const result = await Promise.race([iterator.next(), later(5000)]);
  if (result === LATE) throw new Error('no event');
  assert.equal(result.done, false);
  return result.value as UserfaultfdEvent;
}

export async function nextFault(uffd: Userfaultfd): Promise<PagefaultEvent> {
  const event = await next(uffd);
  assert.equal(event.type, 'pagefault');
  return event as PagefaultEvent;
}

export const LATE = Symbol('late');
export function later(ms: number): Promise<typeof LATE> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms, LATE).unref();
  });
}

/** Nothing has come of it for a while: long enough for what goes on by itself, which takes microseconds. */
export async function waits(promise: Promise<unknown>): Promise<boolean> {
  return (await Promise.race([promise, later(300)])) === LATE;
}

/** No event comes. */
export async function silent(uffd: Userfaultfd): Promise<boolean> {
  const iterator = uffd.events();
  const quiet = await waits(iterator.next());
  await iterator.return!();
  return quiet;
}

/** What is to be compared of an event: everything but objects. */
export function plain(event: UserfaultfdEvent): Record<string, unknown> {
  return Object.fromEntries(Object.entries(event).filter(([, value]) => value !== undefined && typeof value !== 'object'));
}

export function codeOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return (error as { code?: string }).code ?? (error as Error).name;
  }
  return '';
}

/** The kernel is asked to read a page: EFAULT where it is poisoned or cannot be served. */
export function kernelReads(view: Uint8Array, at: number): string {
  const fs = process.getBuiltinModule('node:fs');
  // /dev/null takes everything without looking.
  const file = fs.openSync(`/tmp/tidemark-uffd-${process.pid}`, 'w');
  try {
    fs.writeSync(file, view, at, 1);
    return '';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code!;
  } finally {
    fs.closeSync(file);
    fs.unlinkSync(`/tmp/tidemark-uffd-${process.pid}`);
  }
}
