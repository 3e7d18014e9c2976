import { parentPort, workerData } from 'node:worker_threads';
import { zstd } from '../../../lib/chain/zstd.js';

/** zstd level 1 over 64 KiB blocks, as fast as one core does it: the benchmark runs one on each core. */
const BLOCK = 65536;
const { memory, first, end } = workerData as { memory: SharedArrayBuffer; first: number; end: number };
const bytes = new Uint8Array(memory);
const compressor = new (zstd().CCtx)();
const target = new Uint8Array(zstd().compressBound(BLOCK));

parentPort!.on('message', () => {
  let stored = 0;
  for (let at = first; at < end; at += BLOCK)
    stored += compressor.compress(target, bytes.subarray(at, Math.min(at + BLOCK, end)), 1);
  parentPort!.postMessage(stored);
});
parentPort!.postMessage(0);
