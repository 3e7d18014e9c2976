import type { ExtentKind } from '../chain/extent-kind.js';
import type { Header } from '../chain/header.js';
import type { PageTable } from '../chain/page-table.js';
import type { Captured, CapturedRegion, EncodedExtent, Slice, Ticket } from '../engine/protocol.js';
import type { Staging } from '../engine/staging.js';
import type { PlainError } from '../errors.js';
import type { RestoreRun } from '../restore/fill.js';
import type { LazyRun } from '../restore/lazy-run.js';

/** An extent of a checkpoint in flight. */
export interface PendingExtent {
  kind: ExtentKind;
  record: number;
  /** Bytes it takes in the log, key included. */
  storedBytes: number;
}

/** What a segment of a checkpoint in flight has become. */
export interface PendingSegment {
  /** Of the region or attachment it belongs to. */
  slot: number;
  ordinal: number;
  extents: PendingExtent[];
  kinds: Uint8Array;
  crcs: Uint32Array;
  bases: Uint32Array;
  /** It is in a batch that was handed to LevelDB. */
  written: boolean;
}

/** A segment that waits for a place in a batch. */
export interface QueuedSegment {
  segment: PendingSegment;
  /** The segment of staging that its records are in. */
  place: number;
  encoded: EncodedExtent[];
  pending: Pending;
  /** The staging that holds it (it may have been replaced since). */
  staging: Staging;
}

/** A checkpoint in flight, on the storage thread. */
export class Pending {
  readonly ticket: Ticket;
  readonly segments: PendingSegment[] = [];
  captured: Captured | undefined;
  /** What was taken ahead of the capture, by the slot of the region. */
  readonly #ahead = new Map<number, Slice[]>();
  /** Segments that what was taken ahead has. */
  #aheadSegments = 0;
  /** When its last segment arrived. */
  encodedAt = 0;
  /** Lowest record number it has used, Infinity before the first. */
  firstRecord = Number.POSITIVE_INFINITY;
  /** Its manifest is in the batch that is being written. */
  committing = false;
  /** Who waits until what was taken ahead is written, or is of no use any more. */
  #waiting: (() => void)[] = [];

  constructor(ticket: Ticket) {
    this.ticket = ticket;
  }

  get expectedSegments(): number {
    if (this.captured === undefined) return Number.POSITIVE_INFINITY;
    const { regions, attachments } = this.captured;
    return [...regions, ...attachments].reduce((sum, { segments }) => sum + (segments?.length ?? 0), this.#aheadSegments);
  }

  takeAhead(slot: number, slice: Slice): void {
    const slices = this.#ahead.get(slot);
    if (slices === undefined) this.#ahead.set(slot, [slice]);
    else slices.push(slice);
    this.#aheadSegments += slice.segments.length;
  }

  /** Resolves when everything that was taken ahead is written, or the checkpoint is not in flight any more. */
  written(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.noteWritten();
    });
  }

  /** All that was taken ahead has arrived, and somebody waits until it is written. */
  get awaited(): boolean {
    return this.#waiting.length > 0 && this.segments.length >= this.#aheadSegments;
  }

  /** Segments of it were written. */
  noteWritten(): void {
    if (this.awaited && this.segments.every(({ written }) => written)) this.end();
  }

  /** It is not in flight any more. */
  end(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** All that was taken of a region, oldest first. */
  slicesOf(captured: CapturedRegion): Slice[] {
    return [...(this.#ahead.get(captured.slot) ?? []), captured];
  }

  /** All segments have arrived. */
  get complete(): boolean {
    return this.segments.length >= this.expectedSegments;
  }

  /** The segments of a region or attachment in the order in which they were filled. */
  segmentsOf(slot: number): PendingSegment[] {
    return this.segments.filter((segment) => segment.slot === slot).sort((a, b) => a.ordinal - b.ordinal);
  }

  /** Every extent it has. */
  get extents(): PendingExtent[] {
    return this.segments.flatMap(({ extents }) => extents);
  }
}

/** A checkpointer as the storage thread sees it: a branch, the state its memory descends from, what is in flight. */
export class Session {
  readonly id: number;
  readonly branch: string;
  generation = 0;
  /** The newest committed state that the memory descends from; undefined: none in this store. */
  base: Header | undefined;
  /** Page tables as of `base`; undefined while they have to be loaded (after a failure). */
  table: PageTable | undefined;
  /** The checkpoint that is being restored, from the plan until it is adopted: its page tables are loaded once. */
  restoring: { header: Header; table: PageTable; run: RestoreRun } | undefined;
  /** What of a lazy restore is still to be filled. */
  lazy: LazyRun | undefined;
  /** The restore that is under way was aborted. */
  restoreAborted = false;
  /** What the branch's head must be when the next checkpoint commits. */
  expectedHead: number | undefined;
  pendings: Pending[] = [];
  /** Captures that failed half-way; their extents may still arrive. */
  readonly dropped = new Set<number>();
  /** A failure of the checkpoint `from` and all behind it, which the caller is told of once those before it are settled. */
  failure: { from: number; error: PlainError; suspect: boolean } | undefined;

  constructor(id: number, branch: string) {
    this.id = id;
    this.branch = branch;
  }

  /** Nothing of this checkpoint is wanted any more. */
  gone({ generation, sequence }: Ticket): boolean {
    return (
      generation !== this.generation || this.dropped.has(sequence) || sequence >= (this.failure?.from ?? Number.POSITIVE_INFINITY)
    );
  }

  pending(ticket: Ticket): Pending {
    let pending = this.pendings.find((candidate) => candidate.ticket.sequence === ticket.sequence);
    if (pending === undefined) {
      pending = new Pending({ session: ticket.session, generation: ticket.generation, sequence: ticket.sequence });
      this.pendings.push(pending);
      this.pendings.sort((a, b) => a.ticket.sequence - b.ticket.sequence);
    }
    return pending;
  }
}
