import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { TidemarkError } from '../../lib/index.js';
import { addon, MemoryChange } from '../../lib/kernel/addon.js';
import {
  type PagefaultEvent,
  type Registration,
  Userfaultfd,
  type UserfaultfdEvent,
  type UserfaultfdMode,
  type UserfaultfdOptions,
} from '../../lib/userfaultfd/index.js';
import { inChild } from '../support/in-child.js';

export { addon, assert, MemoryChange, TidemarkError, Userfaultfd };

export const addonPath = fileURLToPath(new URL('../../../native/build/Release/tidemark.node', import.meta.url));
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
      const result = await run(support, ...given);
      // One that still waits for a page keeps the process alive: the time limit says so.
      for (const toucher of support.touchers) await toucher.end();
      // Nothing reported would be a failure.
      return { result: result ?? null };
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

/** Private memory that children of a fork have, too, registered: V8 keeps its own from them (MADV_DONTFORK). */
export function inherited(pages: number, modes: UserfaultfdMode[], options: UserfaultfdOptions = {}): Opened {
  const uffd = Userfaultfd.open(options);
  const view = new Uint8Array(addon().allocate(pages * PAGE, false));
  return { uffd, view, registration: uffd.register(view, { modes }) };
}

/** The exit code of a child that was forked. */
export async function reaped(pid: number): Promise<number> {
  for (;;) {
    const status = addon().uffdReap(pid);
    if (status !== undefined) return status;
    await pause(10);
  }
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

/** To be ended with the child. */
export const touchers: { end(): Promise<void> }[] = [];

/** A thread that touches memory, and may have to wait for it. */
export class Toucher {
  readonly #worker: Worker;
  readonly #ready: Promise<unknown>;

  constructor(view: Uint8Array) {
    this.#worker = new Worker(TOUCHER, { eval: true, execArgv: [], workerData: view.buffer });
    this.#ready = this.#next();
    touchers.push(this);
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

/** MADV_DONTNEED. */
export function drop(view: Uint8Array): void {
  addon().memoryChange(view, MemoryChange.drop);
}

/** MADV_REMOVE. */
export function punch(view: Uint8Array): void {
  addon().memoryChange(view, MemoryChange.remove);
}

const DROPPER = `
const { parentPort, workerData } = require('node:worker_threads');
const addon = require(workerData.addon);
parentPort.on('message', () => {
  addon.memoryChange(new Uint8Array(workerData.memory), ${MemoryChange.drop});
  parentPort.postMessage('dropped');
});
`;

/** A thread that drops memory, and waits until somebody has read that. */
export class Dropper {
  readonly #worker: Worker;

  constructor(view: Uint8Array) {
    this.#worker = new Worker(DROPPER, { eval: true, execArgv: [], workerData: { memory: view.buffer, addon: addonPath } });
    touchers.push(this);
  }

  drop(): Promise<unknown> {
    this.#worker.postMessage('');
    return new Promise((resolve, reject) => {
      this.#worker.once('message', resolve);
      this.#worker.once('error', reject);
    });
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
/** To be raced with: it does not keep the process alive. */
export function later(ms: number): Promise<typeof LATE> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms, LATE).unref();
  });
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
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

/** The kernel reads that byte for a write(2) of this thread: '' or the code of its error, EFAULT where the page is poisoned or cannot be served. */
export function kernelReads(view: Uint8Array, at: number): string {
  const file = scratch();
  try {
    return codeOf(() => fs.writeSync(file, view, at, 1));
  } finally {
    fs.closeSync(file);
  }
}

function scratch(): number {
  const path = join(tmpdir(), `tidemark-userfaultfd-${process.pid}`);
  const file = fs.openSync(path, 'w+');
  fs.unlinkSync(path);
  return file;
}

/** Touches memory that cannot be given to a worker, in a thread of libuv's pool: the kernel does it, in write(2) and read(2). */
export const pool = {
  async read(view: Uint8Array, at: number): Promise<unknown> {
    const file = scratch();
    try {
      await write(file, view, at, 1, 0);
      const byte = new Uint8Array(1);
      fs.readSync(file, byte, 0, 1, 0);
      return byte[0];
    } catch (error) {
      return (error as NodeJS.ErrnoException).code;
    } finally {
      fs.closeSync(file);
    }
  },
  async write(view: Uint8Array, at: number, value: number): Promise<unknown> {
    const file = scratch();
    try {
      fs.writeSync(file, Uint8Array.of(value), 0, 1, 0);
      await read(file, view, at, 1, 0);
      return value;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code;
    } finally {
      fs.closeSync(file);
    }
  },
};
const write = promisify(fs.write);
const read = promisify(fs.read);
