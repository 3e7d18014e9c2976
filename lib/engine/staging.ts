import { addon, PAGE_SIZE, SEGMENT_HEADROOM, SEGMENT_STRIDE } from '../kernel/addon.js';

/** Staging as it is handed to other threads: the memory and the id of its ring. */
export interface StagingHandle {
  ring: number;
  memory: SharedArrayBuffer;
}

/**
 * The memory between capture and log: segments of 256 pages with some headroom, made once, handed out lowest first, so that what was
 * touched before is used again (a fresh page costs six times a present one).
 * The bookkeeping is native: waiting for a segment must not need the event loop of the thread that waits, nor `Atomics`.
 */
export class Staging {
  readonly bytes: Uint8Array;
  readonly #handle: StagingHandle;

  constructor(handle: StagingHandle) {
    this.#handle = handle;
    this.bytes = new Uint8Array(handle.memory);
  }

  static create(segments: number): Staging {
    const byteLength = segments * SEGMENT_STRIDE;
    // V8 aligns only growable ones to pages, and only there captures are written past the caches. (JavaScript reads single elements of these 15 times more
    // slowly: whole pages are set and copied, by native code.)
    const memory = new SharedArrayBuffer(byteLength, { maxByteLength: byteLength });
    return new Staging({ ring: addon().ringCreate(segments), memory });
  }

  get handle(): StagingHandle {
    return this.#handle;
  }

  /** This thread works for the ring: when it ends, who waits for segments gets an error instead of waiting on. Nothing when it is closed already. */
  join(): void {
    try {
      addon().ringJoin(this.#handle.ring);
    } catch (error) {
      if ((error as { code?: string }).code !== 'ERR_CLOSED') throw error;
    }
  }

  /** At least one free segment, up to `want`; waits natively. @throws an Error with code ERR_DEAD or ERR_STALLED */
  acquire(want: number, stallMs: number): Int32Array {
    return addon().ringAcquire(this.#handle.ring, want, stallMs);
  }

  /** As `acquire`, without waiting: undefined where none is free. */
  tryAcquire(want: number): Int32Array | undefined {
    try {
      return this.acquire(want, 0);
    } catch (error) {
      if ((error as { code?: string }).code !== 'ERR_STALLED') throw error;
      return undefined;
    }
  }

  release(segment: number): void {
    addon().ringRelease(this.#handle.ring, Int32Array.of(segment));
  }

  releaseAll(segments: Int32Array): void {
    addon().ringRelease(this.#handle.ring, segments);
  }

  /** Segments that are free now. */
  free(): number {
    return addon().ringFree(this.#handle.ring);
  }

  starved(): boolean {
    try {
      return addon().ringStarved(this.#handle.ring);
    } catch (error) {
      if ((error as { code?: string }).code !== 'ERR_CLOSED') throw error;
      // Closed meanwhile by the thread that made it: nobody waits.
      return false;
    }
  }

  close(): void {
    addon().ringClose(this.#handle.ring);
  }

  /** The pages of a segment. */
  pages(segment: number, count: number): Uint8Array {
    const start = segment * SEGMENT_STRIDE + SEGMENT_HEADROOM;
    return this.bytes.subarray(start, start + count * PAGE_SIZE);
  }

  /** A part of a segment: a record, or the room for one. */
  record(segment: number, byteOffset: number, length: number): Uint8Array {
    const start = segment * SEGMENT_STRIDE + byteOffset;
    return this.bytes.subarray(start, start + length);
  }
}
