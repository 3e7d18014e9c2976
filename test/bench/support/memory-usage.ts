import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';

/** A figure of /proc/self/status that is in kB, in bytes. */
export function statusBytes(name: 'RssAnon' | 'VmPTE'): number {
  return Number(new RegExp(`${name}:\\s+(\\d+)`).exec(readFileSync('/proc/self/status', 'latin1'))![1]) * 1024;
}

export function threadCount(): number {
  return Number(/Threads:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))![1]);
}

/** Bytes that this process has had written to disk. */
export function writtenBytes(): number {
  return Number(/write_bytes: (\d+)/.exec(readFileSync('/proc/self/io', 'latin1'))![1]);
}

/** Samples `RssAnon` on a thread of its own, because a capture blocks this one. */
export class Sampler {
  /** [KiB at the peak, samples, stop] */
  readonly #seen = new Int32Array(new SharedArrayBuffer(12));
  readonly #worker: Worker;

  private constructor() {
    this.#worker = new Worker(
      `const { workerData: seen } = require('node:worker_threads'); const { openSync, readSync } = require('node:fs');
      const status = openSync('/proc/self/status', 'r'); const buffer = Buffer.alloc(4096);
      while (Atomics.load(seen, 2) === 0) {
        const text = buffer.latin1Slice(0, readSync(status, buffer, 0, 4096, 0));
        const kib = Number(/RssAnon:\\s+(\\d+)/.exec(text)[1]);
        if (kib > Atomics.load(seen, 0)) Atomics.store(seen, 0, kib);
        Atomics.add(seen, 1, 1);
        Atomics.wait(seen, 2, 0, 3);
      }`,
      { eval: true, workerData: this.#seen, execArgv: [] },
    );
  }

  /** Resolves once it samples. */
  static async start(): Promise<Sampler> {
    const sampler = new Sampler();
    while (Atomics.load(sampler.#seen, 1) === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    return sampler;
  }

  /** The most since it was started, or asked before. */
  peakBytes(): number {
    return Atomics.exchange(this.#seen, 0, 0) * 1024;
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#worker.once('exit', resolve));
    Atomics.store(this.#seen, 2, 1);
    Atomics.notify(this.#seen, 2);
    await ended;
  }
}
