import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import type { CCtx } from 'zstd-napi/binding.js';
import { ExtentReader, encodeExtent, scratchSize } from '../chain/extent.js';
import { Kind, openRecord, RECORD_HEADER } from '../chain/record.js';
import { zstd } from '../chain/zstd.js';
import { toPlain } from '../errors.js';
import { fault, faulty } from '../faults.js';
import { addon, PAGE_SIZE, SEGMENT_PAGES } from '../kernel/addon.js';
import type { Decoded, DecodeJob, Encoded, EncodeFailed, EncodeJob } from './protocol.js';
import { Staging, type StagingHandle } from './staging.js';

/**
 * A codec thread: compresses segments for the storage thread and decodes extents for it. It keeps no state between jobs, and waits for
 * nobody. It never touches the console: a worker's console needs the main thread's event loop, which may be inside a capture.
 */
export interface CodecData {
  staging: StagingHandle;
  storage: MessagePort;
}

const { staging: handle, storage } = workerData as CodecData;
const staging = new Staging(handle);
staging.join();

let context: CCtx | undefined;
let contextLevel = Number.NaN;
const scratch = new Uint8Array(scratchSize());
const pageScratch = new Uint8Array(SEGMENT_PAGES * PAGE_SIZE);

function contextFor(level: number): CCtx {
  if (context === undefined || contextLevel !== level) {
    context = new (zstd().CCtx)();
    context.setParameter(zstd().CParameter.compressionLevel, level);
    // Every page has a CRC32C of its own, and every frame a length in the directory.
    context.setParameter(zstd().CParameter.contentSizeFlag, 0);
    contextLevel = level;
  }
  return context;
}

function encode(job: EncodeJob): void {
  const { session, generation, sequence, slot, ordinal, segment } = job;
  try {
    if (faulty('codec.exit')) process.exit(1);
    fault('codec.encode');
    const pages = staging.pages(segment, job.pages);
    const crcs = new Uint32Array(job.pages);
    addon().crc32cPages(pages, crcs);
    const target = staging.bytes.subarray(staging.record(segment, 0).byteOffset + RECORD_HEADER, pages.byteOffset + pages.length);
    const payloadLength = encodeExtent(target, pages, job.pages, contextFor(job.level), scratch);
    const payloadCrc = addon().crc32c(target.subarray(0, payloadLength));
    const encoded: Encoded = {
      type: 'encoded',
      session,
      generation,
      sequence,
      slot,
      ordinal,
      segment,
      payloadLength,
      payloadCrc,
      crcs,
    };
    storage.postMessage(encoded, [crcs.buffer]);
  } catch (error) {
    const failed: EncodeFailed = {
      type: 'encode-failed',
      session,
      generation,
      sequence,
      segment,
      error: toPlain(error, 'TIDEMARK_WRITE_FAILED'),
    };
    storage.postMessage(failed);
  }
}

function decode(job: DecodeJob): void {
  const answer: Decoded = { type: 'decoded', job: job.job };
  try {
    fault('codec.decode');
    const payload = openRecord(job.record, Kind.extent, job.number, job.store);
    const bytes = pageScratch.subarray(0, job.slots.length * PAGE_SIZE);
    new ExtentReader(payload, job.number).gather(job.slots, job.crcs, bytes);
    if (job.fill !== 0) {
      fault('codec.fill');
      addon().regionFill(job.fill, bytes, job.pages);
    }
  } catch (error) {
    answer.error = toPlain(error, job.fill === 0 ? 'TIDEMARK_DAMAGED' : 'TIDEMARK_TRACKING_LOST');
  }
  storage.postMessage(answer);
}

parentPort!.on('message', (job: EncodeJob) => encode(job));
parentPort!.postMessage('ready');
storage.on('message', (job: DecodeJob) => decode(job));
