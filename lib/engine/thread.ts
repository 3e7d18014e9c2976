import { setFlagsFromString } from 'node:v8';
import { type Transferable, Worker } from 'node:worker_threads';
import { TidemarkError } from '../errors.js';

/** A thread of the engine, which does not keep the process alive. */
export function startThread(file: string, workerData?: unknown, transferList?: Transferable[]): Worker {
  const worker = new Worker(new URL(file, import.meta.url), {
    workerData,
    ...(transferList === undefined ? {} : { transferList }),
    name: `tidemark ${file.replace(/^\.\/|\.js$/g, '')}`,
    // Flags of the program (--inspect-brk, --require of a test runner) are not for these threads.
    execArgv: [],
  });
  worker.unref();
  return worker;
}

/**
 * The storage thread, which answers the faults of lazy restores, compiles its code by itself. A thread of V8 that has compiled some of it interrupts it, and for that wants the lock that V8 holds
 * while `Atomics.wait` loads the word it waits on (`FutexWaitListNode::NotifyWake`), with the lock of the isolate in hand: where that word is on a page which is not there yet, that was a deadlock
 * with who is to fetch it. An isolate has such threads if this flag of the process is set when it is made.
 */
export function startStorageThread(file: string, workerData: unknown): Worker {
  setFlagsFromString('--no-concurrent-recompilation');
  beingMade++;
  const worker = startThread(file, workerData);
  let isMade = false;
  const made = (): void => {
    if (isMade) return;
    isMade = true;
    if (--beingMade === 0) setFlagsFromString('--concurrent-recompilation');
  };
  worker.once('online', made);
  worker.once('exit', made);
  return worker;
}

/** Storage threads that may not have their isolate yet. */
let beingMade = 0;

/** Resolves when the thread has said that it is ready to work. */
export function online(worker: Worker): Promise<void> {
  return new Promise((resolve) => worker.once('message', () => resolve()));
}

/** Why a capture could not wait any longer for staging. */
export function stalled(error: unknown, stallMs: number): TidemarkError {
  const { code } = error as { code?: string };
  const message =
    code === 'ERR_STALLED'
      ? `staging is full and nothing was written for ${stallMs} ms`
      : 'a thread of the engine ended while a capture waited for staging';
  return new TidemarkError('TIDEMARK_STALLED', message, {
    cause: error,
    hint: 'nothing in memory is lost; is the disk hanging, or is libuv’s thread pool (UV_THREADPOOL_SIZE) full of calls that wait for this thread?',
  });
}
