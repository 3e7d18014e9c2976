import { once } from 'node:events';
import { Worker } from 'node:worker_threads';

const SOURCE = `
import { parentPort } from 'node:worker_threads';
import { stamp } from ${JSON.stringify(new URL('../support/kit.js', import.meta.url).href)};
parentPort.on('message', ({ buffer, byteOffset, byteLength, pages, value }) => {
  stamp(new Uint8Array(buffer, byteOffset, byteLength), pages, value);
  parentPort.postMessage('done');
});
`;

const COUNT = 3;

/** Threads that write to shared memory, at the same time. */
export class Writers {
  #workers: Worker[] | undefined;

  /** `stamp`, a part of the pages by each of them. */
  async stamp(bytes: Uint8Array, pages: readonly number[], value: number): Promise<void> {
    this.#workers ??= Array.from(
      { length: COUNT },
      () => new Worker(new URL(`data:text/javascript,${encodeURIComponent(SOURCE)}`)),
    );
    await Promise.all(
      this.#workers.map((worker, k) => {
        const done = once(worker, 'message');
        const { buffer, byteOffset, byteLength } = bytes;
        worker.postMessage({ buffer, byteOffset, byteLength, pages: pages.filter((_, j) => j % COUNT === k), value });
        return done;
      }),
    );
  }

  async end(): Promise<void> {
    await Promise.all((this.#workers ?? []).map((worker) => worker.terminate()));
    this.#workers = undefined;
  }
}
