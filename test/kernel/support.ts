import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { addon, PAGE_SIZE } from '../../lib/kernel/addon.js';

export const addonPath = fileURLToPath(new URL('../../../native/build/Release/tidemark.node', import.meta.url));

interface WasmMemory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}
/** Neither our `lib` nor @types/node 20 declares it. */
export const { Memory } = (
  globalThis as unknown as {
    WebAssembly: { Memory: new (options: { initial: number; maximum: number; shared?: boolean }) => WasmMemory };
  }
).WebAssembly;

/** Fresh tracked memory of that many pages; the caller closes the region. */
export function tracked(pages: number, hugePages = false): { id: number; view: Uint8Array } {
  const view = new Uint8Array(addon().allocate(pages * PAGE_SIZE, hugePages));
  return { id: addon().regionOpen(view), view };
}

/** Runs `body` on fresh tracked memory and closes it. */
export function withRegion(pages: number, body: (id: number, view: Uint8Array) => void): void {
  const { id, view } = tracked(pages);
  try {
    body(id, view);
  } finally {
    addon().regionClose(id);
  }
}

export const scan = (id: number, view: Uint8Array): number[] => [...addon().regionScan(id, view, true)];
export const peek = (id: number, view: Uint8Array): number[] => [...addon().regionScan(id, view, false)];
export const code =
  (expected: string) =>
  (error: unknown): boolean => {
    assert.ok(error instanceof Error);
    assert.equal((error as NodeJS.ErrnoException).code, expected, error.message);
    return true;
  };

/** Page numbers, ascending, as runs. */
export function toRuns(pages: Iterable<number>): Uint32Array {
  const runs: number[] = [];
  for (const page of pages) {
    if (runs.length > 0 && (runs.at(-2) as number) + (runs.at(-1) as number) === page)
      runs[runs.length - 1] = (runs.at(-1) as number) + 1;
    else runs.push(page, 1);
  }
  return Uint32Array.from(runs);
}

/** Small and repeatable. */
export function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** A worker that has `addon`, `parentPort` and `workerData`; its messages are to be taken with `next`. */
export class Helper {
  readonly worker: Worker;
  readonly #messages: unknown[] = [];
  #wake: (() => void) | undefined;
  #failure: unknown;
  readonly exited: Promise<number>;

  constructor(source: string, workerData?: unknown) {
    this.worker = new Worker(
      `const { parentPort, workerData } = require('node:worker_threads'); const addon = require(${JSON.stringify(addonPath)}); const PAGE = ${PAGE_SIZE};\n${source}`,
      { eval: true, workerData },
    );
    this.exited = new Promise((resolve) => {
      this.worker.on('exit', resolve);
    });
    this.worker.on('message', (message) => {
      this.#messages.push(message);
      this.#wake?.();
    });
    this.worker.on('error', (error) => {
      this.#failure = error;
      this.#wake?.();
    });
  }

  async next(): Promise<unknown> {
    while (this.#messages.length === 0) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#messages.shift();
  }
}
