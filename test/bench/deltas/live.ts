import { randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Checkpoint, Checkpointer, type CheckpointerOptions, Engine, Region } from '../../../lib/index.js';
import { Records } from '../support/data.js';
import { type Database, regionOf, shop, transactions, virtualMachine } from '../support/databases.js';
import { ms, type Spread, spread } from '../support/spread.js';

/** What is compared here goes through checkpointers, with `deltas: true` and `false` in turn. */
interface Sides<T> {
  on: T;
  off: T;
}

const SIDES = ['on', 'off'] as const;
const scratch = mkdtempSync(join(tmpdir(), 'tidemark-bench-'));
process.once('exit', () => rmSync(scratch, { recursive: true, force: true }));
let stores = 0;

export function heading(): void {
  console.log('| what | deltas | without, or what it is compared with | ratio | must / aim |\n|---|---|---|---|---|');
}

function row(what: string, value: string, against: string, ratio: string, wanted: string): void {
  console.log(`| ${what} | ${value} | ${against} | ${ratio} | ${wanted} |`);
}

/** Two checkpointers whose regions hold the same, each with a store of its own. */
class Pair {
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

  static async open(bytes: number, options: Partial<CheckpointerOptions<'memory'>> = {}): Promise<Pair> {
    // An eighth of it is for lists of versions.
    const engine = new Engine({ maxShadowBytes: Math.ceil((bytes * 8) / 7) });
    const regions = { on: Region.allocate(bytes), off: Region.allocate(bytes) };
    const folders = { on: join(scratch, `${stores++}`), off: join(scratch, `${stores++}`) };
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
function twice(fill: (records: Records, memory: Uint8Array) => void): (memory: Uint8Array) => void {
  const generators = [new Records(), new Records()];
  let turn = 0;
  return (memory) => fill(generators[turn++ % 2]!, memory);
}

/** By how much one side is ahead, round by round. */
function ratios(rounds: readonly Sides<number>[]): string {
  const { median, min, max } = spread(rounds.map(({ on, off }) => on / off));
  return `${median.toFixed(3)} (${min.toFixed(3)}-${max.toFixed(3)})`;
}

const sideOf = (rounds: readonly Sides<number>[], side: 'on' | 'off'): Spread => spread(rounds.map((one) => one[side]));

/** D: what is stored, how fast, and how long the caller is blocked. */
export async function measureD(bytes: number, rounds: number, durability: 'sync' | 'relaxed'): Promise<void> {
  const pair = await Pair.open(bytes, { durability });
  const count = Math.floor(bytes / 4096 / 100);
  const touch = twice((records, memory) => records.touch(memory, count));
  await pair.round(0, (memory) => new Records().fill(memory));
  const all: Sides<Checkpoint>[] = [];
  for (let round = 0; round <= rounds; round++) all.push(await pair.round(round, touch));
  const taken = all.slice(1);
  const of = (what: (checkpoint: Checkpoint) => number): Sides<number>[] =>
    taken.map(({ on, off }) => ({ on: what(on), off: what(off) }));
  const name = `D of ${bytes / 2 ** 20} MiB, ${durability}`;
  const stored = of(({ storedBytes }) => storedBytes);
  const kb = (side: 'on' | 'off'): string => `${(sideOf(stored, side).median / 1e3).toFixed(0)} KB`;
  const factor = sideOf(stored, 'off').median / sideOf(stored, 'on').median;
  row(`${name}: stored`, kb('on'), kb('off'), `1/${factor.toFixed(1)}`, '<= 1/25 / 1/34');
  const spent = of(({ timings }) => timings.encodeMs + timings.commitMs);
  const faster = spread(spent.map(({ on, off }) => off / on));
  const faster2 = `${faster.median.toFixed(2)}x (${faster.min.toFixed(2)}-${faster.max.toFixed(2)})`;
  row(`${name}: encode + store`, ms(sideOf(spent, 'on')), ms(sideOf(spent, 'off')), faster2, '>= 2.5x / 5x');
  const captures = of(({ timings }) => timings.captureMs);
  row(`${name}: capture`, ms(sideOf(captures, 'on')), ms(sideOf(captures, 'off')), ratios(captures), '');
  if (durability === 'sync') await measureRestores(pair, count, rounds);
  await pair.close();
}

/** Into a fresh region, and in place: one checkpoint back, and what was written since undone. */
async function measureRestores(pair: Pair, count: number, rounds: number): Promise<void> {
  for (const side of SIDES) {
    const head = pair.checkpointers[side].head!.id;
    await pair.checkpointers[side].close();
    const eager: number[] = [];
    const [back, forth, undone]: number[][] = [[], [], []];
    const bytes = pair.regions[side].byteLength;
    for (let round = 0; round < 3; round++) {
      const region = Region.allocate(bytes);
      // An eighth of it is for lists of versions.
      const engine = new Engine({ maxShadowBytes: Math.ceil((bytes * 8) / 7) });
      const checkpointer = await Checkpointer.open(pair.folders[side], { engine, regions: { memory: region } });
      eager.push((await checkpointer.restore()).stats().ms);
      const records = new Records();
      for (let k = 0; round === 2 && k < rounds; k++) {
        back!.push((await checkpointer.restore(head - 1)).stats().ms);
        forth!.push((await checkpointer.restore(head)).stats().ms);
        records.touch(new Uint8Array(region.buffer), count);
        undone!.push((await checkpointer.restore(head)).stats().ms);
      }
      await checkpointer.close();
      await engine.close();
      region.close();
    }
    const whole = spread(eager);
    const name = side === 'on' ? 'deltas' : 'without deltas';
    const against = `eager restore: ${ms(whole)}`;
    const line = (what: string, samples: number[], wanted: string): void =>
      row(
        `${name}: in place, ${what}`,
        ms(spread(samples)),
        against,
        `1/${(whole.median / spread(samples).median).toFixed(1)}`,
        wanted,
      );
    line('one checkpoint back', back!, '<= 1/20 / 1/60');
    line('one forth', forth!, '<= 1/20 / 1/60');
    line('as much that was written undone', undone!, '');
  }
}

/** Every page rewritten with noise: where deltas are of no use. */
export async function measureNoise(bytes: number, rounds: number): Promise<void> {
  const pair = await Pair.open(bytes, { durability: 'relaxed' });
  const times: Sides<number>[] = [];
  const stored: Sides<number>[] = [];
  const captures: Sides<number>[] = [];
  for (let round = 0; round <= rounds; round++) {
    const { on, off } = await pair.round(round, (memory) => randomFillSync(memory));
    if (round === 0) continue;
    times.push({ on: on.wallMs, off: off.wallMs });
    stored.push({ on: on.storedBytes, off: off.storedBytes });
    captures.push({ on: on.timings.captureMs, off: off.timings.captureMs });
  }
  const name = `noise in all of ${bytes / 2 ** 20} MiB`;
  row(`${name}: checkpoint`, ms(sideOf(times, 'on')), ms(sideOf(times, 'off')), ratios(times), '<= 1.05');
  row(`${name}: capture in it`, ms(sideOf(captures, 'on')), ms(sideOf(captures, 'off')), ratios(captures), '');
  const mb = (side: 'on' | 'off'): string => `${(sideOf(stored, side).median / 1e6).toFixed(2)} MB`;
  row(`${name}: stored`, mb('on'), mb('off'), ratios(stored), '<= 1.01');
  await pair.close();
}

const VM_STEPS = 60;

/** What is stored for a database or an interpreter, second checkpoint on. */
export async function measureDatabases(): Promise<void> {
  await measureStored('SQLite, 35 transactions of 200 updates and inserts', 35, () => transactions(200), '<= 1/8 / 1/10');
  await measureStored('SQLite, 200 rows changed by its example, 35 times', 35, () => shop(200), '<= 1/8 / 1/10');
  await measureStored(`examples/durable-vm, ${VM_STEPS} steps`, VM_STEPS, virtualMachine, '<= 1/35 / 1/50');
}

async function measureStored(what: string, epochs: number, make: () => Promise<Database>, wanted: string): Promise<void> {
  const stored: Sides<number> = { on: 0, off: 0 };
  for (const side of SIDES) {
    const program = await make();
    const { database, write } = program;
    const region = regionOf(program);
    const folder = join(scratch, `${stores++}`);
    const checkpointer = await Checkpointer.open(folder, { regions: { memory: region }, deltas: side === 'on' });
    await checkpointer.checkpoint();
    for (let epoch = 0; epoch < epochs; epoch++) {
      write();
      stored[side] += (await checkpointer.checkpoint()).storedBytes;
    }
    await checkpointer.close();
    region.close();
    database.close();
  }
  const kb = (side: 'on' | 'off'): string => `${(stored[side] / 1e3).toFixed(0)} KB`;
  row(`${what}: stored`, kb('on'), kb('off'), `1/${(stored.off / stored.on).toFixed(1)}`, wanted);
}
