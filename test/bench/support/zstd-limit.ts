import { parentPort, workerData } from 'node:worker_threads';
import { zstd } from '../../../lib/chain/zstd.js';

/** zstd level 1 over 64 KiB blocks, and back, as fast as one core does it: the benchmark runs one on each core. */
const BLOCK = 65536;
const { memory, first, end } = workerData as { memory: SharedArrayBuffer; first: number; end: number };
const bytes = new Uint8Array(memory);
const compressor = new (zstd().CCtx)();
const decompressor = new (zstd().DCtx)();
const frames: Uint8Array[] = [];
const target = new Uint8Array(zstd().compressBound(BLOCK));

parentPort!.on('message', (what: 'compress' | 'decompress') => {
  let stored = 0;
  if (what === 'compress') {
    frames.length = 0;
    for (let at = first; at < end; at += BLOCK) {
      const length = compressor.compress(target, bytes.subarray(at, at + BLOCK), 1);
      frames.push(target.slice(0, length));
      stored += length;
    }
  } else {
    const page = new Uint8Array(BLOCK);
    for (const frame of frames) stored += decompressor.decompress(page, frame);
  }
  parentPort!.postMessage(stored);
});
parentPort!.postMessage(0);
