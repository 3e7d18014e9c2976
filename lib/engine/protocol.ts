import type { MessagePort } from 'node:worker_threads';
import type { ExtentKind } from '../chain/extent-kind.js';
import type { Checkpoint } from '../chain/header.js';
import type { ManifestInfo } from '../chain/manifest.js';
import type { Stored } from '../chain/page-table.js';
import type { Runs } from '../chain/runs.js';
import type { PlainError } from '../errors.js';
import type { ShadowHandle } from './shadows.js';

/** The messages between the caller's thread, the storage thread and the codec threads. All of them are plain data. */

/** Which checkpoint of which checkpointer; what was sent in a generation before a failure is void. */
export interface Ticket {
  session: number;
  generation: number;
  sequence: number;
}

/** What was taken of a region at one go. */
export interface Slice {
  /** Pages in staging, in the order of their segments, and how many each segment holds. */
  pages: Uint32Array;
  segments: Uint32Array;
  /** Pages that are zero. */
  zeros: Uint32Array;
}

/** One region of a captured checkpoint. */
export interface CapturedRegion extends Slice {
  name: string;
  /** What the extents of the region are addressed by: a number that its checkpointer gave it. */
  slot: number;
  byteLength: number;
  length: number;
  /** It does not descend from what its checkpointer is based on: everything in it was taken. */
  fresh: boolean;
}

/** One attachment of a captured checkpoint. */
export interface CapturedAttachment {
  name: string;
  /** As a region's. */
  slot: number;
  byteLength: number;
  sha256: string;
  /** Pages in each segment; null: it is what the checkpoint before has under this name. */
  segments: Uint32Array | null;
}

/** Caller to storage thread: the capture is complete. */
export interface Captured extends Ticket {
  type: 'captured';
  full: boolean;
  sync: boolean;
  createdAt: number;
  /** performance.timeOrigin-based, so that threads can compare. */
  capturedAt: number;
  info: Omit<ManifestInfo, 'encodeMs' | 'branch'>;
  regions: CapturedRegion[];
  attachments: CapturedAttachment[];
}

/** Caller to storage thread: a part of the checkpoint to come was taken ahead. */
export interface Precopied extends Ticket {
  type: 'precopied';
  slot: number;
  slice: Slice;
}

/** Caller to storage thread: fail this checkpoint, and what was captured after it, unless it is being committed. */
export interface Abort extends Ticket {
  type: 'abort';
}

/** Caller to storage thread: end the restore that is under way, as long as it only reads. */
export interface AbortRestore {
  type: 'abort-restore';
  session: number;
}

/** Caller to storage thread: the restore is over; what is kept for it is free. */
export interface RestoreEnded {
  type: 'restore-ended';
  session: number;
}

/** Caller to storage thread: a capture failed half-way; what was sent of it is void. */
export interface Dropped extends Ticket {
  type: 'dropped';
}

/** Caller to storage thread: a capture is about to wait for staging; whatever has arrived is to be written now. */
export interface Starved {
  type: 'starved';
}

/** Caller to storage thread: a request that has an answer. */
export type Call = { [K in keyof Calls]: { type: 'call'; call: number; method: K; args: Parameters<Calls[K]> } }[keyof Calls];

/** Caller to storage thread: a codec thread has ended, and with it all of them. */
export interface CodecsEnded {
  type: 'codecs-ended';
}

export type ToStorage =
  | Captured
  | Precopied
  | Abort
  | AbortRestore
  | RestoreEnded
  | Dropped
  | Starved
  | AttachCodecs
  | CodecsEnded
  | Call;

/** Where the shadows of a region are, and how this job uses them. */
export interface ShadowJob {
  shadows: number;
  /** As the native `shadowEncode` takes it. */
  job: Uint32Array;
  /** The pages in the segment, and pages of the region that are zero. */
  pages: Uint32Array;
  zeros: Uint32Array;
}

/** Caller to codec thread: compress this segment. */
export interface EncodeJob extends Ticket {
  type: 'encode';
  /** Of a region or an attachment. */
  slot: number;
  ordinal: number;
  /** Null: there is none, only shadows of pages that are zero now. */
  segment: number | null;
  pages: number;
  level: number;
  /** Null: everything is stored full. */
  shadow: ShadowJob | null;
}

/** An extent that was made of a segment, all but the number. */
export interface EncodedExtent {
  kind: ExtentKind;
  /** Where its record begins in the segment. */
  byteOffset: number;
  /** Bytes of the payload, after the place for the record's header. */
  payloadLength: number;
  payloadCrc: number;
}

/** Codec thread to storage thread: the segment holds the records of its extents now. */
export interface Encoded extends Ticket {
  type: 'encoded';
  slot: number;
  ordinal: number;
  /** Null: it had none. */
  segment: number | null;
  /** Of the pages stored full, of those stored as deltas, or both, or none: where all pages are unchanged. */
  extents: EncodedExtent[];
  /** A PageKind for each page of the segment, its CRC32C, and that of the page which it was compared with. */
  kinds: Uint8Array;
  crcs: Uint32Array;
  bases: Uint32Array;
}

/** What became of a page that was encoded: as the native `shadowEncode` says it. */
export const PageKind = { full: 0, delta: 1, unchanged: 2 } as const;

export interface EncodeFailed extends Ticket {
  type: 'encode-failed';
  /** Null: it had none. */
  segment: number | null;
  error: PlainError;
}

/** Pages of a region that are to be put there, in the order of their numbers, with what must come out, and how many deltas each is away from its full version. */
export interface FillPages {
  /** The native region, or 0 to check only. */
  region: number;
  pages: Uint32Array;
  crcs: Uint32Array;
  depths: Uint8Array;
  /** Where they get shadows. */
  shadow: ShadowHandle | null;
  /** Of `regionBecomeLazy`: only pages that are missing are filled. 0: of an eager restore. */
  lazy: number;
}

/** Segments of staging. They are another's as soon as the ring is another one. */
export interface Segments {
  ring: number;
  segments: Int32Array;
}

/** Storage thread to codec thread: decode an extent. */
export interface DecodeJob {
  type: 'decode';
  record: Uint8Array;
  number: number;
  store: Uint8Array;
  kind: Stored;
  /** Full pages that need nothing else: checked and filled at once. */
  plain: (FillPages & { slots: Uint8Array }) | null;
  /** Versions of pages that are put together in segments of staging: copied there, or XORed over what is there. */
  part: ({ slots: Uint8Array; places: Uint32Array; combine: boolean } & Segments) | null;
}

/** Storage thread to codec thread: copy pages of a region to where they are put together. */
export interface ReadJob extends Segments {
  type: 'read';
  region: number;
  pages: Uint32Array;
  places: Uint32Array;
}

/** Storage thread to codec thread: check the pages that were put together in a segment, and fill them where all are right. */
export interface FinishJob extends FillPages {
  type: 'finish';
  ring: number;
  segment: number;
}

export type CodecJob = DecodeJob | ReadJob | FinishJob;

/** Codec thread to storage thread: a job is done. */
export interface Done {
  type: 'done';
  job: number;
  error?: PlainError;
  /** Of a FinishJob: which of its pages are not what they must be. */
  wrong?: Uint32Array;
}

/** Storage thread to caller. */
export type StorageEvent =
  /** `olderVersions`: how many versions its page tables keep below the newest ones. */
  | ({ type: 'committed'; checkpoint: Checkpoint; olderVersions: number } & Ticket)
  /** Everything of this generation that was not committed before has failed. `suspect`: the shadows may be what is wrong; `hasBase`: what the memory
   * descends from is still in the store. */
  | ({ type: 'failed'; error: PlainError; suspect: boolean; hasBase: boolean } & Omit<Ticket, 'sequence'>)
  | { type: 'reply'; call: number; value?: unknown; error?: PlainError }
  | { type: 'restored'; session: number; donePages: number; totalPages: number }
  /** Everything that a lazy restore has to fill is there, or cannot be had. */
  | { type: 'resident'; session: number; error?: PlainError }
  | { type: 'attached'; ring: number }
  | Upkeep;

/** Work of the storage thread that is not asked for: told to who traces it. */
export interface Upkeep {
  type: 'upkeep';
  /** `reopen-log`: after a rejected write. `rebuild-index`: after one to the index, or when something in it was damaged. */
  what: 'reopen-log' | 'rebuild-index';
  store: string;
  phase: 'start' | 'end';
  /** Why it is done, or why it failed. */
  error?: PlainError;
}

/** The codec threads as the storage thread is told of them: a new set replaces the one before. */
export interface AttachCodecs {
  type: 'codecs';
  ring: number;
  staging: SharedArrayBuffer;
  ports: MessagePort[];
}

/** Requests of the caller that have an answer. */
export interface Calls {
  openStore(path: string, createIfMissing: boolean): number;
  closeStore(store: number): void;
  openSession(
    store: number,
    branch: string,
    base: string | null,
    regions: string[],
  ): { session: number; head: Checkpoint | null; base: Checkpoint | null };
  closeSession(session: number): void;
  /** Resolves when what has arrived of the checkpoint to come is written. */
  precopied(session: number): void;
  flush(session: number): Checkpoint | null;
  find(store: number, target: PlainTarget): Checkpoint | null;
  list(store: number, query: ListQuery): { checkpoints: Checkpoint[]; next: number | null };
  openSnapshot(store: number, target: PlainTarget): { snapshot: number; checkpoint: Checkpoint };
  readSnapshot(snapshot: number, region: string, byteOffset: number, byteLength: number): Uint8Array;
  readSnapshotAttachment(snapshot: number, name: string): Uint8Array;
  closeSnapshot(snapshot: number): void;
  label(store: number, name: string, target: PlainTarget, move: boolean): void;
  fork(store: number, target: PlainTarget, branch: string): Checkpoint;
  diff(store: number, a: PlainTarget, b: PlainTarget): Record<string, Runs>;
  verify(store: number, readData: boolean): VerifyReport;
  planRestore(
    session: number,
    target: PlainTarget | null,
  ): { checkpoint: Checkpoint; regions: { name: string; byteLength: number }[] };
  restore(session: number, request: RestoreRequest): { filledPages: number; zeroedPages: number };
  /** Makes everything that differs missing, adopts, and serves it from now on; a `resident` event says when all of it is there. */
  restoreLazily(session: number, request: RestoreRequest, how: LazyRequest): LazyBegun;
  /** Resolves when these pages of a region are there. */
  ensureResident(session: number, region: string, firstPage: number, pageCount: number): void;
  adopt(session: number, uid: string): void;
  readAttachment(store: number, uid: string, name: string): Uint8Array;
}

/** A target that was checked and taken apart on the caller's side. */
export type PlainTarget = ({ id: number; text?: string } & Walk) | ({ name: string } & Walk) | { head: string } | { uid: string };

/** From there towards the root: so many steps, or until one that was taken then or before. */
export interface Walk {
  back?: number;
  until?: number;
}

export interface ListQuery {
  branch?: string;
  since?: number;
  until?: number;
  reverse: boolean;
  limit: number;
  after?: number;
}

export interface RestoreRequest {
  uid: string;
  /** The checkpoint that the memory descends from, when it does. */
  base: string | null;
  phase: 'check' | 'fill';
  /** `known`: the region descends from `base`. `changed`: pages that are, or may be, other than there. */
  regions: {
    name: string;
    native: number;
    byteLength: number;
    known: boolean;
    changed: Runs;
    shadow: ShadowHandle | null;
    /** As in FillPages. */
    lazy: number;
  }[];
}

/** How a restore is lazy. */
export interface LazyRequest {
  userFaults: boolean;
  /** What is touched first is to be noted: so nothing else is filled while pages are touched one after the other. */
  noted: boolean;
}

/** What a lazy restore has begun with. */
export interface LazyBegun {
  filledPages: number;
  zeroedPages: number;
  /** The numbers of `regionBecomeLazy`, by region. */
  lazy: Record<string, number>;
}

export interface VerifyProblem {
  code: string;
  message: string;
  checkpoint?: number;
  region?: string;
  attachment?: string;
  /** Runs of pages (of the region or the attachment) that cannot be restored. */
  pages?: number[];
}

export interface VerifyReport {
  checkpoints: number;
  extents: number;
  pages: number;
  bytes: number;
  /** Whether page contents were decompressed and compared. */
  readData: boolean;
  problems: VerifyProblem[];
}
