import type { MessagePort } from 'node:worker_threads';
import type { Checkpoint } from '../chain/header.js';
import type { ManifestInfo } from '../chain/manifest.js';
import type { Runs } from '../chain/runs.js';
import type { PlainError } from '../errors.js';

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

export type ToStorage = Captured | Precopied | Abort | AbortRestore | Dropped | Starved | AttachCodecs | CodecsEnded | Call;

/** Caller to codec thread: compress this segment. */
export interface EncodeJob extends Ticket {
  type: 'encode';
  /** Of a region or an attachment. */
  slot: number;
  ordinal: number;
  segment: number;
  pages: number;
  level: number;
}

/** Codec thread to storage thread: the segment holds an extent's record now, all but the number. */
export interface Encoded extends Ticket {
  type: 'encoded';
  slot: number;
  ordinal: number;
  segment: number;
  /** Bytes of the payload, after the place for the record's header at the start of the segment. */
  payloadLength: number;
  payloadCrc: number;
  crcs: Uint32Array;
}

export interface EncodeFailed extends Ticket {
  type: 'encode-failed';
  segment: number;
  error: PlainError;
}

/** Storage thread to codec thread: decode these pages of an extent, check them and, unless only checking, fill them into a region. */
export interface DecodeJob {
  type: 'decode';
  job: number;
  record: Uint8Array;
  number: number;
  store: Uint8Array;
  /** The native region to fill, or 0 to check only. */
  fill: number;
  /** Ascending slots, the page each becomes, the CRC32C it must have. */
  slots: Uint8Array;
  pages: Uint32Array;
  crcs: Uint32Array;
}

/** Codec thread to storage thread. */
export interface Decoded {
  type: 'decoded';
  job: number;
  error?: PlainError;
}

/** Storage thread to caller. */
export type StorageEvent =
  | ({ type: 'committed'; checkpoint: Checkpoint } & Ticket)
  /** Everything of this generation that was not committed before has failed. `hasBase`: what the memory descends from is still in the store. */
  | ({ type: 'failed'; error: PlainError; hasBase: boolean } & Omit<Ticket, 'sequence'>)
  | { type: 'reply'; call: number; value?: unknown; error?: PlainError }
  | { type: 'restored'; session: number; donePages: number; totalPages: number }
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
  regions: { name: string; native: number; byteLength: number; known: boolean; changed: Runs }[];
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
