import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Checkpoint, Checkpointer, type CheckpointerOptions, Engine, Region } from '../../../lib/index.js';
import { Records } from './data.js';
import { type Spread, spread } from './spread.js';

/** What is compared goes through checkpointers, with `deltas: true` and `false` in turn. */
export interface Sides<T> {
  on: T;
  off: T;
}

export const SIDES = ['on', 'off'] as const;
let stores = 0;

/** An engine whose shadows have room for so many bytes of memory: an eighth of what it is given is for lists of versions. */
export function engineFor(bytes: number): Engine {
  return new Engine({ maxShadowBytes: Math.ceil((bytes * 8) / 7) });
}

/** Two checkpointers whose regions hold the same, each with a store of its own. */
export class Pair {
  readonly regions: Sides<Region<ArrayBuffer>>;
  readonly folders: Sides<string>;
  readonly checkpointers: Sides<Checkpointer<'memory'>>;
  readonly #engine: Engine;

  private constructor(pair: Pick<Pair, 'regions' | 'folders' | 'checkpointers'>, engine: Engine) {
    this.regions = pair.regions;
    this.folders = pair.folders;
    this.checkpointers = pair.checkpointers;
    this.#engine = engine;
  }

  static async open(bytes: number, scratch: string, options: Partial<CheckpointerOptions<'memory'>> = {}): Promise<Pair> {
    const engine = engineFor(bytes);
    const regions = { on: Region.allocate(bytes), off: Region.allocate(bytes) };
    const folders = { on: join(scratch, `pair-${stores++}`), off: join(scratch, `pair-${stores++}`) };
    const open = (side: 'on' | 'off') =>
      Checkpointer.open(folders[side], { engine, ...options, deltas: side === 'on', regions: { memory: regions[side] } });
    return new Pair({ regions, folders, checkpointers: { on: await open('on'), off: await open('off') } }, engine);
  }

  /** Writes the same into both, and takes a checkpoint of each; which of them is first changes. */
  async round(round: number, write: (memory: Uint8Array) => void): Promise<Sides<Checkpoint & { wallMs: number }>> {
    write(new Uint8Array(this.regions.on.buffer));
    write(new Uint8Array(this.regions.off.buffer));
    const taken: Partial<Sides<Checkpoint & { wallMs: number }>> = {};
    for (const side of round % 2 === 0 ? SIDES : SIDES.toReversed()) {
      const start = performance.now();
      const checkpoint = await this.checkpointers[side].checkpoint();
      taken[side] = { ...checkpoint, wallMs: performance.now() - start };
    }
    return taken as Sides<Checkpoint & { wallMs: number }>;
  }

  async close(): Promise<void> {
    for (const side of SIDES) {
      await this.checkpointers[side].close();
      this.regions[side].close();
      rmSync(this.folders[side], { recursive: true, force: true });
    }
    await this.#engine.close();
  }
}

/** The same changes for both sides: a generator for each, which begin alike. */
export function twice(fill: (records: Records, memory: Uint8Array) => void): (memory: Uint8Array) => void {
  const generators = [new Records(), new Records()];
  let turn = 0;
  return (memory) => fill(generators[turn++ % 2]!, memory);
}

export const sideOf = (rounds: readonly Sides<number>[], side: 'on' | 'off'): Spread => spread(rounds.map((one) => one[side]));
