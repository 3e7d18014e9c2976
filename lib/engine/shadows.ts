import { addon } from '../kernel/addon.js';
import type { ShadowJob } from './protocol.js';

/** How the pages of a job are taken; as native/shadow.h has it. */
export const ShadowMode = {
  /** Written since the capture before: deltas where they pay. */
  written: 0,
  /** Everything in the region: stored full. */
  whole: 1,
  /** Ahead of a capture: stored full, and no shadow stays. */
  ahead: 2,
} as const;
export type ShadowMode = (typeof ShadowMode)[keyof typeof ShadowMode];

/** A delta with more 64-bit words than this that changed, of 512, is no better than the page. */
export const MAX_WORDS = 256;

/** Which shadows a region has, for another thread. */
export interface ShadowHandle {
  shadows: number;
  table: number;
}

/** What an engine says of its shadows. */
export interface ShadowSource {
  /** Another number each time they were made anew. */
  readonly shadows: number;
  /** A page is stored full at the latest after so many deltas. */
  readonly maxDeltas: number;
}

/** The shadows of one region of a checkpointer, as the caller's thread sees them. They go with the codec threads: then it has none, and new ones with the next capture. */
export class RegionShadow {
  readonly #engine: ShadowSource;
  #handle: ShadowHandle | undefined;
  #generation = 0;
  /** Jobs sent in this generation. */
  #sent = 0;

  constructor(engine: ShadowSource) {
    this.#engine = engine;
  }

  /** For jobs that have no page in common, and follow everything sent before. */
  slice(mode: ShadowMode, sequence: number): SliceShadow {
    const { shadows, table } = this.handle();
    const generation = this.#generation;
    const job = Uint32Array.of(table, generation, this.#sent, sequence, mode, this.#engine.maxDeltas, MAX_WORDS);
    const noteSent = () => {
      if (this.#generation === generation && this.#handle?.table === table && this.#handle.shadows === shadows) this.#sent++;
    };
    return { job: (pages, zeros) => ({ shadows, job, pages, zeros }), noteSent };
  }

  handle(): ShadowHandle {
    const { shadows } = this.#engine;
    if (this.#handle?.shadows !== shadows) {
      this.#handle = { shadows, table: addon().shadowOpen(shadows) };
      this.#generation = 0;
      this.#sent = 0;
    }
    return this.#handle;
  }

  /** Checkpoints from `sequence` on have failed; 0: no shadow is to be believed. */
  fail(sequence: number): void {
    this.#do(({ shadows, table }) => {
      this.#generation = addon().shadowFail(shadows, table, sequence);
      this.#sent = 0;
    });
  }

  /** The capture of a checkpoint failed half-way. */
  drop(sequence: number): void {
    this.#do(({ shadows, table }) => addon().shadowDrop(shadows, table, sequence));
  }

  close(): void {
    this.#do(({ shadows, table }) => addon().shadowClose(shadows, table));
    this.#handle = undefined;
  }

  #do(what: (handle: ShadowHandle) => void): void {
    if (this.#handle === undefined) return;
    try {
      what(this.#handle);
    } catch (error) {
      if ((error as { code?: string }).code !== 'ERR_CLOSED') throw error;
      // They went with the codec threads.
      this.#handle = undefined;
    }
  }
}

export interface SliceShadow {
  job(pages: Uint32Array, zeros: Uint32Array): ShadowJob;
  /** A job was sent: what comes later waits for it. */
  noteSent(): void;
}
