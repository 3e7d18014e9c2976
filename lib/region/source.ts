import { types } from 'node:util';
import { TidemarkError } from '../errors.js';
import { capabilities, requireTracking } from '../kernel/capabilities.js';
import { isNumber, option } from '../options.js';

/** What tidemark needs of a `WebAssembly.Memory` (whose type is not in every TypeScript configuration). */
export interface WasmMemory {
  readonly buffer: ArrayBuffer | SharedArrayBuffer;
  grow(pages: number): number;
}

export interface RegionRange {
  /** Bytes from the start of the source; a multiple of the host's page. Default: 0. */
  byteOffset?: number;
  /** Bytes; a multiple of the host's page. Default: to the end, growing with the source. */
  byteLength?: number;
}

export type RegionSource = WasmMemory | SharedArrayBuffer | ArrayBuffer | Uint8Array;

/** The memory a region takes its bytes from, and which part of it. */
export interface Source {
  buffer(): ArrayBufferLike;
  byteOffset: number;
  /** Fixed length, or undefined when the region grows with its source. */
  byteLength: number | undefined;
  grow?: (bytes: number) => void;
  /** How many bytes of it may be touched, where others can take some away. */
  available?: () => number;
}

/** Whether a region may end there: its last page would be shared with others. */
export function isWholePages(bytes: number): boolean {
  return bytes % capabilities().hostPageSize === 0;
}

export function unaligned(message: string, cause?: unknown): TidemarkError {
  return new TidemarkError('TIDEMARK_UNALIGNED', message, {
    ...(cause === undefined ? {} : { cause }),
    hint: 'use Region.allocate, a WebAssembly.Memory, or a buffer made with maxByteLength, and page-aligned parts of these',
  });
}

export function describeSource(source: RegionSource, range: RegionRange): Source {
  requireTracking();
  if (source instanceof Uint8Array) {
    if (range.byteOffset !== undefined || range.byteLength !== undefined)
      throw new TypeError('a range cannot be given for a view: make the view the range');
    const { buffer, byteOffset, byteLength } = source;
    if (byteLength === 0) throw unaligned('an empty view cannot be tracked');
    return { buffer: () => buffer, byteOffset, byteLength };
  }
  const resolved = wholeSource(source, 'a region is made of');
  const page = capabilities().hostPageSize;
  const size = resolved.buffer().byteLength;
  const byteOffset = option(range.byteOffset, (value) => isNumber('byteOffset', value, 0, size)) ?? 0;
  const byteLength = option(range.byteLength, (value) => isNumber('byteLength', value, 1, size - byteOffset));
  if (byteOffset % page !== 0 || (byteLength ?? size - byteOffset) % page !== 0)
    throw unaligned(`byteOffset and byteLength must be multiples of ${page}`);
  if (byteOffset === size) throw unaligned('an empty range cannot be tracked');
  return { ...resolved, byteOffset, byteLength: byteLength ?? (resolved.grow === undefined ? size - byteOffset : undefined) };
}

const WASM_PAGE = 65536;

/** @param what the beginning of a sentence that says what can be one */
export function wholeSource(source: RegionSource, what: string): Pick<Source, 'buffer' | 'grow'> {
  if (types.isAnyArrayBuffer(source)) {
    const buffer = source as ArrayBuffer & { resizable?: boolean; maxByteLength?: number; resize?(size: number): void };
    const shared = source as SharedArrayBuffer & { growable?: boolean; grow?(size: number): void };
    if (buffer.resizable) return { buffer: () => buffer, grow: (bytes) => buffer.resize!(bytes) };
    if (shared.growable) return { buffer: () => shared, grow: (bytes) => shared.grow!(bytes) };
    return { buffer: () => source };
  }
  if (typeof source === 'object' && source !== null && Object.prototype.toString.call(source) === '[object WebAssembly.Memory]') {
    const memory = source as WasmMemory;
    if (!types.isAnyArrayBuffer(memory.buffer)) throw new TypeError('the buffer of a WebAssembly.Memory must be an ArrayBuffer');
    return {
      buffer: () => memory.buffer,
      grow: (bytes) => void memory.grow(Math.ceil((bytes - memory.buffer.byteLength) / WASM_PAGE)),
    };
  }
  throw new TypeError(
    `${what} a WebAssembly.Memory, a SharedArrayBuffer, an ArrayBuffer or a Uint8Array (of another view, new Uint8Array(view.buffer, view.byteOffset, view.byteLength))`,
  );
}
