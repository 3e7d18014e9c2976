import type { Engine } from './engine.js';
import type { EncodeJob } from './protocol.js';

/**
 * Jobs for codec threads, held back while there is staging to go on with: on few cores the threads would take the processor from the capture that the
 * program waits for, and a message for each job costs more than one for all.
 */
export class EncodeQueue {
  readonly #engine: Engine;
  #jobs: EncodeJob[] = [];
  #hasLost = false;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  add(job: EncodeJob): void {
    this.#jobs.push(job);
  }

  /** At least one free segment. What is held is sent before it waits: nothing else might ever free one. @throws `TIDEMARK_STALLED` */
  acquire(want: number): Int32Array {
    const free = this.#engine.tryAcquire(want);
    if (free !== undefined) return free;
    this.flush();
    return this.#engine.acquire(want);
  }

  /** Jobs were counted and never sent: nobody may wait for them. */
  get hasLost(): boolean {
    return this.#hasLost;
  }

  /** @throws when a message cannot be made (there is no memory for it): what was held is then lost, and never sent again */
  flush(): void {
    const jobs = this.#jobs;
    this.#jobs = [];
    if (jobs.length === 0) return;
    try {
      this.#engine.encode(jobs);
    } catch (error) {
      this.#hasLost = true;
      this.#engine.staging.releaseAll(Int32Array.from(jobs.flatMap(({ segment }) => segment ?? [])));
      throw error;
    }
  }
}
