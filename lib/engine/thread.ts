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
