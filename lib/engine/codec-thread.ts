import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import type { CCtx } from 'zstd-napi/binding.js';
import { collectPart } from '../chain/assembly.js';
import {
  DELTA_LEVEL,
  DELTAS,
  EXTENT_ROOM,
  type ExtentLayout,
  ExtentReader,
  encodeExtent,
  FULL_PAGES,
  scratchSize,
} from '../chain/extent.js';
import { Kind, openRecord, RECORD_HEADER } from '../chain/record.js';
import { frameContext } from '../chain/zstd.js';
import { TidemarkError, toPlain } from '../errors.js';
import { fault, faulty } from '../faults.js';
import { addon, PAGE_SIZE, SEGMENT_HEADROOM, SEGMENT_PAGES } from '../kernel/addon.js';
import { isNoMemory, noMemory } from '../restore/no-memory.js';
import {
  type CodecJob,
  type DecodeJob,
  type Done,
  type Encoded,
  type EncodedExtent,
  type EncodeFailed,
  type EncodeJob,
  type FillPages,
  type FinishJob,
  PageKind,
  type ShadowJob,
} from './protocol.js';
import { Staging, type StagingHandle } from './staging.js';

/**
 * A codec thread: compresses segments for the storage thread and decodes extents for it. It keeps no state between jobs, and waits only
 * for jobs that were sent before, where shadows must be used in order. It never touches the console: a worker's console needs the main
 * thread's event loop, which may be inside a capture.
 */
export interface CodecData {
  staging: StagingHandle;
  shadows: number;
  /** One number: how many jobs to encode were taken, by whichever thread. */
  taken: SharedArrayBuffer;
  storage: MessagePort;
}

/** Caller to every codec thread, in the same order to each. */
export interface EncodeJobs {
  /** How many jobs were sent before. Like `taken` it is an int32, and wraps. */
  first: number;
  jobs: readonly EncodeJob[];
}

const { staging: handle, shadows, taken, storage } = workerData as CodecData;
const staging = new Staging(handle);
staging.join();
addon().shadowsJoin(shadows);

const takenJobs = new Int32Array(taken);
const scratch = new Uint8Array(scratchSize());
const NO_BYTES = new Uint8Array(0);
/** The deltas of a segment, or the pages of an extent. */
const pageScratch = new Uint8Array(SEGMENT_PAGES * PAGE_SIZE);
/** The frames of an extent that is decoded. */
const frames = new Uint8Array(EXTENT_ROOM);

function encode(job: EncodeJob): void {
  const { session, generation, sequence, slot, ordinal, segment, shadow } = job;
  let hadTurn = shadow === null;
  try {
    if (faulty('codec.exit')) process.exit(1);
    fault('codec.encode');
    const parts = { kinds: new Uint8Array(job.pages), crcs: new Uint32Array(job.pages), bases: new Uint32Array(job.pages) };
    hadTurn = true;
    compare(job, parts);
    const extents = segment === null ? [] : encodeSegment(job, segment, parts.kinds);
    const encoded: Encoded = { type: 'encoded', session, generation, sequence, slot, ordinal, segment, extents, ...parts };
    storage.postMessage(encoded, [parts.kinds.buffer, parts.crcs.buffer, parts.bases.buffer]);
  } catch (error) {
    if (!hadTurn) skip(shadow!);
    const failed: EncodeFailed = {
      type: 'encode-failed',
      session,
      generation,
      sequence,
      segment,
      error: toPlain(hasEnded(error) ? ended(error) : error, 'TIDEMARK_WRITE_FAILED'),
    };
    storage.postMessage(failed);
  }
}

/** Another codec thread has, and with it what this one waited for. */
function hasEnded(error: unknown): boolean {
  const { code } = error as { code?: string };
  return code === 'ERR_DEAD' || code === 'ERR_CLOSED';
}

function ended(cause: unknown): TidemarkError {
  return new TidemarkError('TIDEMARK_STALLED', 'a codec thread of the engine ended', {
    cause,
    hint: 'nothing is lost: its pages are in the next checkpoint; try again',
  });
}

/** What waits for this job would wait for ever. */
function skip({ shadows, job }: ShadowJob): void {
  try {
    addon().shadowSkip(shadows, job);
  } catch {
    // They have gone, and nobody waits any more.
  }
}

/** Packs the pages that are stored full at the start of the segment, and the deltas into the scratch memory. */
function compare({ shadow, segment, pages }: EncodeJob, { kinds, crcs, bases }: Pick<Encoded, 'kinds' | 'crcs' | 'bases'>): void {
  const bytes = segment === null ? NO_BYTES : staging.pages(segment, pages);
  if (shadow === null) {
    addon().crc32cPages(bytes, crcs);
    return;
  }
  if (faulty('shadow.corrupt')) addon().shadowCorrupt(shadow.shadows, shadow.job[0]!);
  const { shadows, job, zeros } = shadow;
  addon().shadowEncode(shadows, job, shadow.pages, zeros, bytes, pageScratch, kinds, crcs, bases);
}

/** The full pages become the first record in the segment, the deltas the second: neither takes more room than its pages and a part of the headroom. */
function encodeSegment({ pages, level }: EncodeJob, segment: number, kinds: Uint8Array): EncodedExtent[] {
  const deltas = count(kinds, PageKind.delta);
  const full = pages - deltas - count(kinds, PageKind.unchanged);
  const extents: EncodedExtent[] = [];
  const bytes = staging.record(segment, 0, SEGMENT_HEADROOM + pages * PAGE_SIZE);
  const pack = (from: Uint8Array, number: number, byteOffset: number, context: CCtx, layout: ExtentLayout): number => {
    const target = bytes.subarray(byteOffset + RECORD_HEADER);
    const payloadLength = encodeExtent(target, from, number, context, scratch, layout);
    const payloadCrc = addon().crc32c(target.subarray(0, payloadLength));
    extents.push({ kind: layout.kind, byteOffset, payloadLength, payloadCrc });
    return byteOffset + RECORD_HEADER + payloadLength;
  };
  const end = full === 0 ? 0 : pack(staging.pages(segment, full), full, 0, frameContext(level), FULL_PAGES);
  if (deltas > 0) pack(pageScratch, deltas, end, frameContext(Math.min(level, DELTA_LEVEL)), DELTAS);
  return extents;
}

function count(kinds: Uint8Array, kind: number): number {
  let found = 0;
  for (const one of kinds) if (one === kind) found++;
  return found;
}

function decode({ record, number, store, kind, plain, part }: DecodeJob): void {
  fault('codec.decode');
  const reader = new ExtentReader(openRecord(record, Kind.extent, number, store), number, frames);
  if (plain !== null) {
    fill(plain, reader.gather(plain.slots, plain.crcs, pageScratch));
  }
  if (part !== null) {
    const bytes = collectPart(reader, { record: number, kind, slots: part.slots }, pageScratch);
    addon().assemblePages(bytes, part.combine, part.places, staging.bytes, part.segments);
  }
}

function fill({ region, pages, crcs, depths, shadow, lazy }: FillPages, bytes: Uint8Array): void {
  if (region === 0) return;
  fault('codec.fill');
  if (lazy !== 0) {
    addon().regionSupply(lazy, bytes, pages, false, shadow?.shadows ?? 0, shadow?.table ?? 0, crcs, depths);
    return;
  }
  addon().regionFill(region, bytes, pages);
  if (shadow !== null) addon().shadowPut(shadow.shadows, shadow.table, pages, bytes, crcs, depths);
}

function finish(job: FinishJob): Uint32Array {
  const bytes = staging.pages(job.segment, job.pages.length);
  const crcs = new Uint32Array(job.pages.length);
  addon().crc32cPages(bytes, crcs);
  const wrong = crcs.map((_, k) => k).filter((k) => crcs[k] !== job.crcs[k]);
  if (wrong.length === 0) fill(job, bytes);
  return wrong;
}

function run(job: CodecJob & { job: number }): void {
  const answer: Done = { type: 'done', job: job.job };
  try {
    if (job.type === 'decode') decode(job);
    else if (job.type === 'finish') answer.wrong = finish(job);
    else addon().regionRead(job.region, job.pages, job.places, staging.bytes, job.segments);
  } catch (error) {
    const fills = job.type === 'finish' || (job.type === 'decode' && (job.plain?.region ?? 0) !== 0);
    const reason = fills && isNoMemory(error) ? noMemory('there is no memory for what is restored', error) : error;
    answer.error = toPlain(reason, fills || job.type === 'read' ? 'TIDEMARK_TRACKING_LOST' : 'TIDEMARK_DAMAGED');
  }
  storage.postMessage(answer);
}

parentPort!.on('message', ({ first, jobs }: EncodeJobs) => {
  for (const [k, job] of jobs.entries()) {
    // Who meets a job has met all before it: either it is the next to be taken, or another thread has it.
    const number = (first + k) | 0;
    if (Atomics.compareExchange(takenJobs, 0, number, (number + 1) | 0) === number) encode(job);
  }
});
// Jobs that nobody has would be waited for: what is in flight fails with the thread.
parentPort!.on('messageerror', () => process.exit(1));
parentPort!.postMessage('ready');
storage.on('message', (job: CodecJob & { job: number }) => run(job));
