import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { ClassicLevel } from 'classic-level';
import { zstd } from '../../../lib/chain/zstd.js';
import { compile, run } from './native.js';

export const FRAME_BYTES = 65536;
export const PAGE_BYTES = 4096;

/** Milliseconds, one a round; `touchNs` in nanoseconds a page. */
export interface CopyLimits {
  scan: number[];
  scanCopy: number[];
  copy: number[];
  copyOnAll: number[];
  touchNs: number[];
}

/** Finding and copying dirty pages, in C++: half of the rounds before `measure`, half after it, for what else the machine does changes within minutes. */
export async function copyLimits(
  { mib, share, rounds, threads }: { mib: number; share: number; rounds: number; threads: number },
  scratch: string,
  measure: () => Promise<void>,
): Promise<CopyLimits> {
  const program = compile('limits', scratch);
  const half = (): CopyLimits => run<CopyLimits>(program, mib, share, Math.ceil(rounds / 2), threads);
  const before = half();
  await measure();
  const after = half();
  const both = (name: keyof CopyLimits): number[] => [...before[name], ...after[name]];
  return {
    scan: both('scan'),
    scanCopy: both('scanCopy'),
    copy: both('copy'),
    copyOnAll: both('copyOnAll'),
    touchNs: both('touchNs'),
  };
}

/** zstd level 1 at 64 KiB on all cores, through zstd-napi: milliseconds, one a round, and what it gives. */
export async function compressOnAll(
  memory: Uint8Array,
  cores: number,
  rounds: number,
): Promise<{ ms: number[]; stored: number }> {
  const shared = new SharedArrayBuffer(memory.length);
  new Uint8Array(shared).set(memory);
  const part = Math.ceil(memory.length / FRAME_BYTES / cores) * FRAME_BYTES;
  const answer = (worker: Worker): Promise<number> => new Promise((resolve) => worker.once('message', resolve));
  const workers = Array.from({ length: cores }, (_, k) => {
    const end = Math.min((k + 1) * part, memory.length);
    return new Worker(new URL('./zstd-limit.js', import.meta.url), { workerData: { memory: shared, first: k * part, end } });
  });
  await Promise.all(workers.map(answer));
  const ms: number[] = [];
  let stored = 0;
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    for (const worker of workers) worker.postMessage('compress');
    stored = (await Promise.all(workers.map(answer))).reduce((a, b) => a + b);
    ms.push(performance.now() - start);
  }
  await Promise.all(workers.map((worker) => worker.terminate()));
  return { ms, stored };
}

/** LevelDB alone: as many bytes in records of a MiB, a few to a batch, synced at the end. Milliseconds. */
export async function levelDbAlone(byteLength: number, folder: string): Promise<number> {
  const options = {
    keyEncoding: 'binary',
    valueEncoding: 'binary',
    compression: false,
    writeBufferSize: 32 << 20,
    maxFileSize: 32 << 20,
  };
  const db = new ClassicLevel<Uint8Array, Uint8Array>(folder, options);
  await db.open();
  const record = new Uint8Array(1 << 20);
  for (let k = 0; k < record.length; k++) record[k] = Math.imul(k, 2654435761) >>> 13;
  const start = performance.now();
  let key = 0;
  for (let left = byteLength; left > 0; ) {
    const batch: { type: 'put'; key: Uint8Array; value: Uint8Array }[] = [];
    for (; left > 0 && batch.length < 4; left -= record.length) {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64BE(BigInt(key++));
      batch.push({ type: 'put', key: bytes, value: record.subarray(0, Math.min(left, record.length)) });
    }
    await db.batch(batch, { sync: left <= 0 });
  }
  const spent = performance.now() - start;
  await db.close();
  rmSync(folder, { recursive: true, force: true });
  return spent;
}

/** Milliseconds. */
export interface RestoreTimes {
  both: number;
  decompress: number;
  fill: number;
  /** Of one extent after the other, on one thread: decompressed and filled. */
  extents: number[];
}

/** zstd decompression and UFFDIO_COPY of memory, on all threads, in C++. */
export class RestoreLimit {
  readonly #program: string;
  readonly #frames: string;
  readonly #threads: number;

  constructor(memory: Uint8Array, threads: number, scratch: string) {
    this.#program = compile('restore-limit', scratch);
    this.#frames = join(scratch, 'frames');
    this.#threads = threads;
    const descriptor = openSync(this.#frames, 'w');
    const context = new (zstd().CCtx)();
    const target = Buffer.alloc(4 + zstd().compressBound(FRAME_BYTES));
    for (let at = 0; at < memory.length; at += FRAME_BYTES) {
      const length = context.compress(target.subarray(4), memory.subarray(at, at + FRAME_BYTES), 1);
      target.writeUInt32LE(length);
      writeSync(descriptor, target, 0, 4 + length);
    }
    closeSync(descriptor);
  }

  measure(): RestoreTimes {
    return run<RestoreTimes>(this.#program, this.#frames, this.#threads);
  }
}
