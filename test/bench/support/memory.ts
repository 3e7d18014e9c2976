import { constants } from 'node:buffer';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Checkpoint, Region } from '../../../lib/index.js';
import { PAGE_SIZE } from '../../../lib/kernel/addon.js';
import { Records } from './data.js';

/** What is copied over and over to fill memory: making records anew for gigabytes would take longer than what is measured. */
const BLOCK = 64 << 20;

/** Records in as many regions as it takes: a buffer has a limit (4 GiB in Node.js 20). */
export class RecordMemory {
  readonly byteLength: number;
  readonly regions: Record<string, Region<ArrayBuffer>> = {};
  readonly #records = new Records();
  readonly #parts: { bytes: Uint8Array; view: DataView }[] = [];
  readonly #partPages: number;

  /** @param byteLength equal parts must be whole pages */
  constructor(byteLength: number) {
    this.byteLength = byteLength;
    const parts = Math.ceil(byteLength / constants.MAX_LENGTH);
    this.#partPages = byteLength / parts / PAGE_SIZE;
    for (let k = 0; k < parts; k++) {
      const region = Region.allocate(this.#partPages * PAGE_SIZE);
      this.regions[`part${k}`] = region;
      this.#parts.push({ bytes: new Uint8Array(region.buffer), view: new DataView(region.buffer) });
    }
    this.#fill();
  }

  #fill(): void {
    const block = new Uint8Array(Math.min(BLOCK, this.#partPages * PAGE_SIZE));
    this.#records.fill(block);
    for (const { bytes } of this.#parts) {
      for (let at = 0; at < bytes.length; at += block.length) bytes.set(block.subarray(0, bytes.length - at), at);
    }
  }

  get pages(): number {
    return this.byteLength / PAGE_SIZE;
  }

  /** The first bytes, to be copied by what captures are compared with. */
  get first(): Uint8Array {
    return this.#parts[0]!.bytes;
  }

  /** Rewrites one record in each of these pages. */
  touch(pages: Uint32Array): void {
    for (const page of pages) {
      const { bytes, view } = this.#parts[Math.floor(page / this.#partPages)]!;
      const record = this.#records.below(PAGE_SIZE / 64);
      this.#records.write(view, bytes, (page % this.#partPages) * PAGE_SIZE + record * 64);
    }
  }

  /** Milliseconds that a scan of all of it takes, which changes nothing. */
  scanMs(): number {
    const start = performance.now();
    for (const region of Object.values(this.regions)) region.dirtyRanges();
    return performance.now() - start;
  }

  /** Nothing of it may be used any more; the memory goes with the next `collect()`. */
  close(): void {
    for (const region of Object.values(this.regions)) region.close();
    this.#parts.length = 0;
    for (const name of Object.keys(this.regions)) delete this.regions[name];
  }
}

/** Chooses pages, the same ones in every run. */
export class Pages {
  readonly #order: Uint32Array;
  readonly #choice = new Records();

  constructor(pages: number) {
    this.#order = Uint32Array.from({ length: pages }, (_, k) => k);
  }

  /** All different, in no order. */
  scattered(count: number): Uint32Array {
    const order = this.#order;
    for (let k = 0; k < count; k++) {
      const other = k + this.#choice.below(order.length - k);
      [order[k], order[other]] = [order[other]!, order[k]!];
    }
    return order.slice(0, count);
  }

  /** Runs of `length` pages, at places that are multiples of it. */
  runs(count: number, length: number): Uint32Array {
    const places = new Set<number>();
    const slots = Math.floor(this.#order.length / length);
    while (places.size < Math.ceil(count / length)) places.add(this.#choice.below(slots) * length);
    return Uint32Array.from([...places].flatMap((first) => Array.from({ length }, (_, k) => first + k))).subarray(0, count);
  }
}

/** @throws when a checkpoint has not stored just these pages: its figures would be of something else */
export function expectPages(checkpoint: Checkpoint, count: number): void {
  const stored = Object.values(checkpoint.regions).reduce((sum, { pages }) => sum + pages, 0);
  if (stored !== count) throw new Error(`checkpoint ${checkpoint.id} stored ${stored} pages where ${count} were written`);
}

let collector: (() => void) | undefined;

/** Memory of regions that nothing refers to is given back: V8 does not know how much hangs on them. */
export async function collect(): Promise<void> {
  if (collector === undefined) {
    setFlagsFromString('--expose-gc');
    collector = runInNewContext('gc') as () => void;
  }
  // What is found dead is finalized in turns of the event loop, and may keep something else alive until then.
  for (let k = 0; k < 3; k++) {
    collector();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** `256 MiB`, `8 GiB`. */
export function sizeName(bytes: number): string {
  return bytes < 2 ** 30 ? `${bytes / 2 ** 20} MiB` : `${bytes / 2 ** 30} GiB`;
}
