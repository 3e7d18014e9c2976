import { concat, countPages, type Runs } from '../chain/runs.js';
import { EncodeQueue } from '../engine/encode-queue.js';
import type { Engine } from '../engine/engine.js';
import type { CapturedAttachment, CapturedRegion, Slice, Ticket } from '../engine/protocol.js';
import { type RegionShadow, ShadowMode, type SliceShadow } from '../engine/shadows.js';
import { TidemarkError } from '../errors.js';
import { fault } from '../faults.js';
import { addon, PAGE_SIZE, SEGMENT_PAGES } from '../kernel/addon.js';
import type { Region } from '../region/region.js';
import type { Attachment } from './attachments.js';

/** A captured moment: what goes to the storage thread, and what must be given back when it cannot be stored. */
export interface Capture {
  regions: CapturedRegion[];
  attachments: CapturedAttachment[];
  /** The dirty runs of each region, as the kernel reported them; they exist nowhere else now. */
  scanned: Scanned[];
}

export interface Scanned {
  region: Region;
  runs: Runs;
}

export interface RegionInput {
  name: string;
  region: Region;
  /** What its extents are addressed by. */
  slot: number;
  /** The ordinal of its next extent: not 0 when some of it was taken ahead. */
  ordinal: number;
  /** Meaningful bytes; default: all. */
  length: number | undefined;
  /** It does not descend from the base. */
  fresh: boolean;
  /** Every page with content is taken, not only what was written since. */
  whole: boolean;
  /** Undefined: everything is stored full. */
  shadow: RegionShadow | undefined;
}

/** How segments are encoded, and for which checkpoint. */
export interface EncodeFor extends Ticket {
  level: number;
}

/** Segments filled by one native call. */
const SEGMENTS_AT_ONCE = 64;

/**
 * Takes the moment: every region is scanned and re-armed first, then the dirty pages are copied to staging and handed to the codec threads
 * as they are. Synchronous; waits natively while staging is full.
 * @param wanted told what was scanned before anything is copied; when it says no, nothing is taken
 * @returns undefined when it was not wanted
 * @throws whatever went wrong; by then everything that was scanned has been given back
 */
export function capture(
  engine: Engine,
  inputs: readonly RegionInput[],
  attachments: readonly Attachment[],
  job: EncodeFor,
  wanted: (scanned: Scanned[]) => boolean = () => true,
): Capture | undefined {
  const scanned: Scanned[] = [];
  const queue = new EncodeQueue(engine);
  try {
    for (const { region } of inputs) scanned.push({ region, runs: region.scan(true) });
    if (!wanted(scanned)) {
      giveBack(scanned);
      return undefined;
    }
    const regions = inputs.map(({ name, region, slot, ordinal, length, fresh, whole, shadow }, k) => {
      const runs = region.fetched(whole ? region.content() : scanned[k]!.runs, whole);
      // What it holds is of other memory, or of what was never stored.
      if (fresh) shadow?.fail(0);
      const shadows = shadow?.slice(whole ? ShadowMode.whole : ShadowMode.written, job.sequence);
      const slice = new SliceCopy(engine, queue, region, runs, { ...job, slot, ordinal }, shadows);
      while (!slice.done) slice.copy(queue.acquire(Math.min(slice.segmentsLeft, SEGMENTS_AT_ONCE)));
      return { name, slot, byteLength: region.byteLength, length: length ?? region.byteLength, fresh, ...slice.take() };
    });
    const staged = attachments.map((attachment) => stage(engine, queue, attachment, job));
    queue.flush();
    return { regions, attachments: staged, scanned };
  } catch (error) {
    try {
      // Their segments come back when they have been encoded.
      queue.flush();
    } catch {
      // The first error is the one to be told.
    } finally {
      giveBack(scanned);
      // A new generation waits for none of them.
      if (queue.hasLost) for (const { shadow } of inputs) shadow?.fail(0);
    }
    throw captureError(error);
  }
}

export function captureError(error: unknown): unknown {
  if (error instanceof TidemarkError || error instanceof TypeError || error instanceof RangeError) return error;
  return new TidemarkError('TIDEMARK_TRACKING_LOST', `the capture failed: ${(error as Error).message}`, {
    cause: error,
    hint: 'nothing is lost: what it would have taken is in the next checkpoint, unless the memory itself is gone (detached, unmapped)',
    retryable: true,
  });
}

export function giveBack(scanned: readonly Scanned[]): void {
  for (const { region, runs } of scanned) region.giveBack(runs);
}

/** Copies runs of a region to staging, some segments at a time, and queues each to be encoded. */
export class SliceCopy {
  readonly #engine: Engine;
  readonly #queue: EncodeQueue;
  readonly #region: Region;
  readonly #runs: Runs;
  readonly #job: EncodeFor & { slot: number; ordinal: number };
  readonly #total: number;
  readonly #shadows: SliceShadow | undefined;
  #ordinal: number;
  #pages: Uint32Array[] = [];
  #zeros: Uint32Array[] = [];
  #segments: number[] = [];
  #copied = 0;

  constructor(
    engine: Engine,
    queue: EncodeQueue,
    region: Region,
    runs: Runs,
    job: EncodeFor & { slot: number; ordinal: number },
    shadows: SliceShadow | undefined,
  ) {
    this.#shadows = shadows;
    this.#engine = engine;
    this.#queue = queue;
    this.#region = region;
    this.#runs = runs;
    this.#job = job;
    this.#ordinal = job.ordinal;
    this.#total = countPages(runs);
  }

  get done(): boolean {
    return this.#copied >= this.#total;
  }

  get segmentsLeft(): number {
    return Math.ceil((this.#total - this.#copied) / SEGMENT_PAGES);
  }

  /** Fills free segments, which belong to it from now on. */
  copy(segments: Int32Array): void {
    const { staging, workers } = this.#engine;
    const numbers = new Uint32Array(segments.length * SEGMENT_PAGES);
    const counts = new Uint32Array(segments.length * 2);
    try {
      fault('capture.copy');
      const { nativeId } = this.#region;
      const view = this.#region.view();
      this.#copied += addon().copyPages(
        nativeId,
        view,
        this.#runs,
        this.#copied,
        staging.bytes,
        segments,
        numbers,
        counts,
        workers,
      );
    } catch (error) {
      staging.releaseAll(segments);
      throw error;
    }
    for (let k = 0; k < segments.length; k++) {
      const copied = counts[2 * k]!;
      const start = k * SEGMENT_PAGES;
      const pages = numbers.subarray(start, start + copied);
      const zeros = numbers.subarray(start + copied, start + copied + counts[2 * k + 1]!);
      if (zeros.length > 0) this.#zeros.push(zeros);
      if (copied === 0) {
        staging.release(segments[k]!);
        // The shadows of these pages go in their turn, for what was sent before may still leave some; the checkpoint waits for that like for any segment, or a
        // failure behind it would make the job void.
        if (zeros.length > 0 && this.#shadows !== undefined) this.#send(null, pages, zeros);
        continue;
      }
      this.#pages.push(pages);
      this.#send(segments[k]!, pages, zeros);
    }
  }

  /** @param segment null: there is none, only pages that are zero */
  #send(segment: number | null, pages: Uint32Array, zeros: Uint32Array): void {
    // Views: a message takes their buffer along once, and has the jobs of many of them.
    const shadow = this.#shadows?.job(pages, zeros) ?? null;
    this.#queue.add({ type: 'encode', ...this.#job, ordinal: this.#ordinal++, segment, pages: pages.length, shadow });
    this.#segments.push(pages.length);
    this.#shadows?.noteSent();
  }

  /** What was copied since the last time. */
  take(): Slice {
    const slice = { pages: concat(this.#pages), segments: Uint32Array.from(this.#segments), zeros: concat(this.#zeros) };
    this.#pages = [];
    this.#zeros = [];
    this.#segments = [];
    return slice;
  }

  /** What is not copied yet. */
  remaining(): Runs {
    const rest: number[] = [];
    let skip = this.#copied;
    for (let k = 0; k < this.#runs.length; k += 2) {
      const count = this.#runs[k + 1]!;
      if (skip < count) rest.push(this.#runs[k]! + skip, count - skip);
      skip = Math.max(0, skip - count);
    }
    return Uint32Array.from(rest);
  }
}

/** Copies an attachment to staging, in pages, the last one filled up with zeros. One that is unchanged is only named. */
function stage(
  engine: Engine,
  queue: EncodeQueue,
  { name, slot, bytes, sha256, unchanged }: Attachment,
  job: EncodeFor,
): CapturedAttachment {
  const captured = { name, slot, byteLength: bytes.length, sha256 };
  if (unchanged) return { ...captured, segments: null };
  const { staging } = engine;
  const counts: number[] = [];
  for (let at = 0; at < bytes.length; ) {
    const [segment] = queue.acquire(1) as unknown as [number];
    const part = bytes.subarray(at, at + SEGMENT_PAGES * PAGE_SIZE);
    const pages = Math.ceil(part.length / PAGE_SIZE);
    const target = staging.pages(segment, pages);
    target.set(part);
    target.fill(0, part.length);
    queue.add({ type: 'encode', ...job, slot, ordinal: counts.length, segment, pages, shadow: null });
    counts.push(pages);
    at += part.length;
  }
  return { ...captured, segments: Uint32Array.from(counts) };
}
