import type { Checkpoint } from '../chain/header.js';

/** What a checkpointer has done since it was opened. */
export interface CheckpointerStats {
  /** Checkpoints that were committed. */
  checkpoints: number;
  /** Checkpoints that were captured and failed. */
  failed: number;
  /** Captured and not settled. */
  inFlight: number;
  /** Pages stored, full or as deltas. */
  pages: number;
  /** Bytes of these pages before compression, and everything that was stored for them. */
  rawBytes: number;
  storedBytes: number;
  /** For how long captures have blocked the caller, in milliseconds: the sum, the longest, the last. */
  captureMs: { total: number; max: number; last: number };
}

/** Counts for `stats()`. */
export class Tally {
  readonly #stats: Omit<CheckpointerStats, 'inFlight'> = {
    checkpoints: 0,
    failed: 0,
    pages: 0,
    rawBytes: 0,
    storedBytes: 0,
    captureMs: { total: 0, max: 0, last: 0 },
  };

  captured(ms: number): void {
    const { captureMs } = this.#stats;
    captureMs.total += ms;
    captureMs.max = Math.max(captureMs.max, ms);
    captureMs.last = ms;
  }

  committed({ regions, rawBytes, storedBytes }: Checkpoint): void {
    this.#stats.checkpoints++;
    for (const { pages } of Object.values(regions)) this.#stats.pages += pages;
    this.#stats.rawBytes += rawBytes;
    this.#stats.storedBytes += storedBytes;
  }

  failed(count: number): void {
    this.#stats.failed += count;
  }

  read(inFlight: number): CheckpointerStats {
    const { captureMs, ...counts } = this.#stats;
    return { ...counts, inFlight, captureMs: { ...captureMs } };
  }
}
