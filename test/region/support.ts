import assert from 'node:assert/strict';
import { type Region, TidemarkError, type WasmMemory } from '../../lib/index.js';

export const PAGE = 4096;
export const WASM_PAGE = 65536;

export const code =
  (expected: string) =>
  (error: unknown): boolean => {
    assert.ok(error instanceof TidemarkError, `not a TidemarkError: ${String(error)}`);
    assert.equal(error.code, expected, error.message);
    return true;
  };

// TypeScript's libraries that are configured here know none of these.
type Growable = new (length: number, options: { maxByteLength: number }) => SharedArrayBuffer & { grow(length: number): void };
type Resizable = new (length: number, options: { maxByteLength: number }) => ArrayBuffer & { resize(length: number): void };
export const GrowableShared = SharedArrayBuffer as unknown as Growable;
export const ResizableBuffer = ArrayBuffer as unknown as Resizable;
export const Memory = (
  globalThis as unknown as {
    WebAssembly: { Memory: new (options: { initial: number; maximum?: number; shared?: boolean }) => WasmMemory };
  }
).WebAssembly.Memory;

export function withRegion(region: Region, body: (region: Region) => void): void {
  try {
    body(region);
  } finally {
    region.close();
  }
}

/** One byte of a page of the region, written now. */
export function touch(region: Region, byteOffset: number, page: number, value = 1): void {
  new Uint8Array(region.buffer, byteOffset)[page * PAGE + 17] = value;
}

export const dirty = (region: Region): number[] => [...region.dirtyRanges()];
export const take = (region: Region): number[] => [...region.takeDirtyRanges()];
