import { createRequire } from 'node:module';
import type { CCtx, DCtx } from 'zstd-napi/binding.js';
import { TidemarkError } from '../errors.js';
import { damaged } from './damage.js';

type Binding = typeof import('zstd-napi/binding.js');

let binding: Binding | undefined;

/**
 * zstd-napi's thin layer, loaded when it is first needed. Its high-level `Decompressor` is not used: it allocates whatever a frame's
 * header claims.
 * @throws {TidemarkError} `TIDEMARK_KERNEL_UNSUPPORTED` when its binary is missing (npm can block the install script that compiles it)
 */
export function zstd(): Binding {
  if (binding === undefined) {
    try {
      binding = createRequire(import.meta.url)('zstd-napi/binding.js') as Binding;
    } catch (cause) {
      throw new TidemarkError('TIDEMARK_KERNEL_UNSUPPORTED', 'the native part of zstd-napi could not be loaded', {
        cause,
        hint: 'add "allowScripts": {"zstd-napi": true, "classic-level": true, "tidemark": true} to your package.json and run `npm rebuild zstd-napi`',
      });
    }
  }
  return binding;
}

const frameContexts = new Map<number, CCtx>();

/** A context for the frames of extents; one a level and thread. */
export function frameContext(level: number): CCtx {
  let context = frameContexts.get(level);
  if (context === undefined) {
    context = new (zstd().CCtx)();
    context.setParameter(zstd().CParameter.compressionLevel, level);
    // Every page has a CRC32C of its own, and every frame a length in the directory.
    context.setParameter(zstd().CParameter.contentSizeFlag, 0);
    frameContexts.set(level, context);
  }
  return context;
}

let compressor: CCtx | undefined;
let decompressor: DCtx | undefined;

/** One zstd frame of level 3: for manifests and tables, which are small. */
export function compressBytes(bytes: Uint8Array): Uint8Array {
  compressor ??= new (zstd().CCtx)();
  const target = new Uint8Array(zstd().compressBound(bytes.length));
  return target.subarray(0, compressor.compress(target, bytes, 3));
}

/** Decompresses a frame that must give exactly `rawLength` bytes. */
export function decompressBytes(frame: Uint8Array, rawLength: number, what: string): Uint8Array {
  const target = new Uint8Array(rawLength);
  decompressInto(target, frame, what);
  return target;
}

/** Decompresses a frame that must fill `target` exactly. */
export function decompressInto(target: Uint8Array, frame: Uint8Array, what: string): void {
  decompressor ??= new (zstd().DCtx)();
  let length: number;
  try {
    length = decompressor.decompress(target, frame);
  } catch (cause) {
    throw damaged(`${what} does not decompress`, cause);
  }
  if (length !== target.length) throw damaged(`${what} decompresses to ${length} bytes instead of ${target.length}`);
}
