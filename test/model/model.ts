import assert from 'node:assert/strict';
import { type Checkpoint, type Checkpointer, Engine, Region } from '../../lib/index.js';

export const PAGE = 4096;
export const REGIONS = { heap: 256, stack: 64 } as const;
export type Name = keyof typeof REGIONS;
export const NAMES = Object.keys(REGIONS) as Name[];

/** Small and repeatable. */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** The regions as they must be: an array of page contents each. Contents are never changed, so a state is a list of references. */
export class Model {
  pages: Record<Name, Buffer[]>;
  readonly checkpoints = new Map<number, Record<Name, Buffer[]>>();
  /** How pages were stored, in all checkpoints. */
  readonly stored = { full: 0, delta: 0, unchanged: 0 };

  constructor() {
    const zero = Buffer.alloc(PAGE);
    this.pages = { heap: new Array(REGIONS.heap).fill(zero), stack: new Array(REGIONS.stack).fill(zero) };
  }

  write(name: Name, byteOffset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const at = byteOffset + done;
      const page = Math.floor(at / PAGE);
      const count = Math.min(bytes.length - done, (page + 1) * PAGE - at);
      const changed = Buffer.from(this.pages[name][page]!);
      changed.set(bytes.subarray(done, done + count), at % PAGE);
      this.pages[name][page] = changed;
      done += count;
    }
  }

  state(): Record<Name, Buffer[]> {
    return { heap: [...this.pages.heap], stack: [...this.pages.stack] };
  }

  note(id: number, state = this.state()): void {
    assert.ok(!this.checkpoints.has(id), `id ${id} was given out twice`);
    this.checkpoints.set(id, state);
  }

  restore(id: number): void {
    const { heap, stack } = this.checkpoints.get(id)!;
    this.pages = { heap: [...heap], stack: [...stack] };
  }

  bytes(id: number, name: Name): Buffer {
    return Buffer.concat(this.checkpoints.get(id)![name]);
  }

  ids(): number[] {
    return [...this.checkpoints.keys()];
  }
}

export type Memory = Record<Name, Region>;

export const allocate = (): Memory => ({
  heap: Region.allocate(REGIONS.heap * PAGE),
  stack: Region.allocate(REGIONS.stack * PAGE, { shared: true }),
});

export const viewOf = (region: Region): Uint8Array => new Uint8Array(region.buffer, 0, region.byteLength);

export function checkMemory(memory: Memory, pages: Record<Name, Buffer[]>, what: string): void {
  for (const name of NAMES) {
    const view = viewOf(memory[name]);
    for (const [page, expected] of pages[name].entries())
      if (!expected.equals(view.subarray(page * PAGE, (page + 1) * PAGE))) assert.fail(`${what}: ${name} page ${page} is wrong`);
  }
}

/** Writes to memory and model alike. */
export class Writer {
  readonly memory: Memory;
  readonly model: Model;
  readonly #pick: (below: number) => number;

  constructor(memory: Memory, model: Model, pick: (below: number) => number) {
    this.memory = memory;
    this.model = model;
    this.#pick = pick;
  }

  write(name: Name, byteOffset: number, bytes: Uint8Array): void {
    viewOf(this.memory[name]).set(bytes, byteOffset);
    this.model.write(name, byteOffset, bytes);
  }

  /** Clustered, scattered, whole pages of noise, the same bytes again, zeros, a few bytes of pages that are changed again and again. */
  some(): void {
    const pick = this.#pick;
    const name = pick(3) === 0 ? 'stack' : 'heap';
    const size = REGIONS[name] * PAGE;
    const kind = pick(9);
    if (kind === 0) {
      for (let times = pick(12); times > 0; times--) this.write(name, pick(size - 8), this.#noise(1 + pick(8)));
    } else if (kind === 1) {
      const length = 1 + pick(5 * PAGE);
      this.write(name, pick(size - length), this.#text(length));
    } else if (kind === 2) {
      this.write(name, pick(REGIONS[name]) * PAGE, this.#noise(PAGE));
    } else if (kind === 3) {
      const pages = 1 + pick(4);
      this.write(name, pick(REGIONS[name] - pages) * PAGE, new Uint8Array(pages * PAGE));
    } else if (kind === 4) {
      const page = pick(REGIONS[name]);
      this.write(name, page * PAGE, this.model.pages[name][page]!);
    } else if (kind > 5) {
      for (let times = pick(10); times > 0; times--) this.edit(name, pick(4) === 0 ? pick(REGIONS[name]) : pick(20));
    }
  }

  /** Changes a few bytes of a page. */
  edit(name: Name, page: number): void {
    const bytes = Buffer.from(this.model.pages[name][page]!);
    for (let times = 1 + this.#pick(4); times > 0; times--) bytes[this.#pick(PAGE)]! ^= 1 + this.#pick(255);
    this.write(name, page * PAGE, bytes);
  }

  #noise(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.#pick(256));
  }

  #text(length: number): Uint8Array {
    const start = this.#pick(26);
    return Uint8Array.from({ length }, (_, k) => 97 + ((start + k) % 26));
  }
}

/** Takes a checkpoint of what the model says now; the promise checks what it resolves with. */
export function checkpoint(checkpointer: Checkpointer<Name>, model: Model, durability: 'sync' | 'relaxed'): Promise<Checkpoint> {
  const state = model.state();
  return checkpointer.checkpoint({ durability }).then((taken) => {
    model.note(taken.id, state);
    if (durability === 'sync') assert.equal(taken.durable, true);
    for (const { pages, deltaPages, unchangedPages } of Object.values(taken.regions)) {
      model.stored.full += pages - deltaPages;
      model.stored.delta += deltaPages;
      model.stored.unchanged += unchangedPages;
    }
    return taken;
  });
}

/** Engines with no room for shadows, with room for 16 pages, with as much as is wanted; and few deltas on a page, or many. */
export function engines(options: ConstructorParameters<typeof Engine>[0] = {}): Engine[] {
  return [
    new Engine({ workers: 2, maxStagingBytes: 16 << 20, ...options }),
    new Engine({ workers: 2, maxStagingBytes: 16 << 20, maxShadowBytes: 16 * PAGE, maxDeltas: 32, ...options }),
    new Engine({ workers: 2, maxStagingBytes: 16 << 20, maxDeltas: 1, ...options }),
    new Engine({ workers: 2, maxStagingBytes: 16 << 20, maxShadowBytes: 0, ...options }),
  ];
}
