import assert from 'node:assert/strict';
import { closeSync, rmSync } from 'node:fs';
import { Region, type RegionSource } from '../../lib/index.js';
import { PAGE, stamp } from '../support/kit.js';
import { endMemfds, memfd } from './memfd.js';
import { Writers } from './writers.js';

/** Fresh memory of some kind, and the region over it. */
export interface Made {
  readonly region: Region;
  /** The memory of the region as it is now. */
  bytes(): Uint8Array;
  /** Fills pages as `stamp` does, by who writes to memory of this kind. */
  write(pages: readonly number[], value: number): Promise<void>;
  /** Makes it longer; undefined unless `growing`. */
  grow: ((pages: number) => void) | undefined;
  /** Closes the region and gives everything up. */
  end(): void;
}

/** Something that memory can be made of. All that holds for every kind is tried with each. */
export interface Kind {
  name: string;
  /** Zeroed memory. */
  make(pages: number): Promise<Made>;
  /** Every page is present from the start. */
  populated?: boolean;
  /** A file: what is dropped from the page table is still in it, and other processes see what is written. */
  file?: boolean;
  /** Other threads write to it. */
  shared?: boolean;
  growing?: boolean;
  /** As much as there can be of it. Default: as much as a buffer can have. */
  mostPages?: number;
}

const WASM_PAGE = 16;
/** What may grow reserves so many times what it has. */
const MOST = 2;
const FOUR_GIB = 2 ** 32 / PAGE;

// TypeScript's libraries that are configured here know none of these.
type Constructor<B, M> = new (length: number, options: { maxByteLength: number }) => B & M;
const Resizable = ArrayBuffer as unknown as Constructor<ArrayBuffer, { resize(byteLength: number): void }>;
const Growable = SharedArrayBuffer as unknown as Constructor<SharedArrayBuffer, { grow(byteLength: number): void }>;
const { Memory } = (
  globalThis as unknown as {
    WebAssembly: {
      Memory: new (options: {
        initial: number;
        maximum: number;
        shared: boolean;
      }) => { buffer: ArrayBuffer; grow(pages: number): number };
    };
  }
).WebAssembly;

const writers = new Writers();

/** To be called when a file of tests is through. */
export async function endKinds(): Promise<void> {
  await Promise.all([writers.end(), endMemfds()]);
}

function made(
  region: Region,
  more: { byteOffset?: number; shared?: boolean; grow?: (pages: number) => void; end?: () => void } = {},
): Made {
  const bytes = (): Uint8Array => {
    // The region takes in what the memory has grown by when it is looked at.
    region.dirtyRanges();
    return new Uint8Array(region.buffer, more.byteOffset ?? 0, region.byteLength);
  };
  return {
    region,
    bytes,
    write: async (pages, value) => (more.shared ? writers.stamp(bytes(), pages, value) : stamp(bytes(), pages, value)),
    grow: more.grow,
    end: () => {
      region.close();
      more.end?.();
    },
  };
}

function wasm(pages: number, shared: boolean, most = MOST): { memory: RegionSource; grow: (pages: number) => void } {
  const initial = Math.ceil(pages / WASM_PAGE);
  const memory = new Memory({ initial, maximum: most * initial, shared });
  return { memory, grow: (more) => void memory.grow(Math.ceil(more / WASM_PAGE)) };
}

let files = 0;

/** The path of a file on tmpfs that does not exist. */
export function tmpfsPath(): string {
  return `/dev/shm/tidemark-test-${process.pid}-${files++}`;
}

function tmpfsFile(pages: number, byteOffset: number): Made {
  const path = tmpfsPath();
  const region = Region.map(path, { create: true, byteOffset, byteLength: pages * PAGE });
  // As other programs do it: what is mapped stays.
  return made(region, { end: () => rmSync(path) });
}

export const KINDS: readonly Kind[] = [
  { name: 'allocated memory', make: async (pages) => made(Region.allocate(pages * PAGE)) },
  { name: 'huge pages', populated: true, make: async (pages) => made(Region.allocate(pages * PAGE, { hugePages: true })) },
  {
    name: 'an allocated SharedArrayBuffer',
    shared: true,
    make: async (pages) => made(Region.allocate(pages * PAGE, { shared: true }), { shared: true }),
  },
  {
    name: 'a resizable ArrayBuffer',
    growing: true,
    mostPages: FOUR_GIB / MOST,
    make: async (pages) => {
      const buffer = new Resizable(pages * PAGE, { maxByteLength: MOST * pages * PAGE });
      return made(Region.of(buffer), { grow: (more) => buffer.resize(buffer.byteLength + more * PAGE) });
    },
  },
  {
    name: 'a growable SharedArrayBuffer',
    growing: true,
    mostPages: FOUR_GIB / MOST,
    shared: true,
    make: async (pages) => {
      const buffer = new Growable(pages * PAGE, { maxByteLength: MOST * pages * PAGE });
      return made(Region.of(buffer), { shared: true, grow: (more) => buffer.grow(buffer.byteLength + more * PAGE) });
    },
  },
  {
    name: 'a WebAssembly.Memory',
    growing: true,
    mostPages: FOUR_GIB / MOST,
    make: async (pages) => {
      const { memory, grow } = wasm(pages, false);
      return made(Region.of(memory), { grow });
    },
  },
  {
    name: 'a shared WebAssembly.Memory',
    growing: true,
    mostPages: FOUR_GIB / MOST,
    shared: true,
    make: async (pages) => {
      const { memory, grow } = wasm(pages, true);
      return made(Region.of(memory), { shared: true, grow });
    },
  },
  {
    name: 'a part of a WebAssembly.Memory',
    mostPages: FOUR_GIB - 2 * WASM_PAGE,
    make: async (pages) => {
      const byteOffset = 3 * PAGE;
      const { memory } = wasm(pages + 2 * WASM_PAGE, false, 1);
      return made(Region.of(memory, { byteOffset, byteLength: pages * PAGE }), { byteOffset });
    },
  },
  { name: 'a file on tmpfs', file: true, make: async (pages) => tmpfsFile(pages, 0) },
  { name: 'a part of a file on tmpfs', file: true, make: async (pages) => tmpfsFile(pages, 5 * PAGE) },
  {
    name: 'a memfd',
    file: true,
    make: async (pages) => {
      const fd = await memfd(pages * PAGE);
      assert.ok(fd !== undefined);
      const region = Region.map(`/proc/self/fd/${fd}`);
      // What is mapped stays.
      closeSync(fd);
      return made(region);
    },
  },
];

/** Calls `body` with fresh memory of a kind. */
export async function withMade<R>(kind: Kind, pages: number, body: (made: Made) => R | Promise<R>): Promise<R> {
  const memory = await kind.make(pages);
  try {
    return await body(memory);
  } finally {
    memory.end();
  }
}
