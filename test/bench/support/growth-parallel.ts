import { readdirSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type Checkpoint, Checkpointer, CheckpointStore, Engine, Region } from '../../../lib/index.js';
import { PAGE_SIZE } from '../../../lib/kernel/addon.js';
import { Records } from './data.js';
import { collect, expectPages, Pages, RecordMemory, sizeName } from './memory.js';
import { statusBytes } from './memory-usage.js';
import { times } from './report.js';
import { digits, duration, show, spread } from './spread.js';
import type { Bench } from './suite.js';

interface Width {
  workers: number;
  full: number[];
  captures: number[];
  durable: number[];
}

/** Codec threads: the same memory by 1 to 4 of them, in turn. */
export async function workers({ report, quick, scratch }: Bench): Promise<void> {
  const bytes = (quick ? 64 : 256) * 2 ** 20;
  const memory = new RecordMemory(bytes);
  const pages = new Pages(memory.pages);
  const dirty = Math.floor(memory.pages / 100);
  const widths: Width[] = [1, 2, 3, 4].map((count) => ({ workers: count, full: [], captures: [], durable: [] }));
  for (let round = 0; round < (quick ? 1 : 3); round++) {
    for (const width of widths) {
      const folder = join(scratch, 'workers');
      const engine = new Engine({ workers: width.workers, maxShadowBytes: Math.ceil((bytes * 8) / 7) });
      // Another store each time: to it the memory is new, and stored whole.
      const checkpointer = await Checkpointer.open<string>(folder, { regions: memory.regions, engine });
      const take = async (): Promise<{ checkpoint: Checkpoint; ms: number }> => {
        const start = performance.now();
        const checkpoint = await checkpointer.checkpoint();
        return { checkpoint, ms: performance.now() - start };
      };
      const full = await take();
      expectPages(full.checkpoint, memory.pages);
      width.full.push(full.ms);
      for (let k = 0; k <= 4; k++) {
        memory.touch(pages.scattered(dirty));
        const { checkpoint, ms } = await take();
        expectPages(checkpoint, dirty);
        if (k === 0) continue;
        width.captures.push(checkpoint.timings.captureMs);
        width.durable.push(ms);
      }
      await checkpointer.close();
      await engine.close();
      rmSync(folder, { recursive: true });
    }
  }
  memory.close();
  await collect();
  const rate = (ms: number): number => bytes / ms / 1000;
  const one = spread(widths[0]!.full).median;
  report.table({
    title: `**Codec threads**: ${sizeName(bytes)}, stored whole, then 1 % of its pages at random; ${availableParallelism()} cores`,
    columns: ['workers', 'full, MB/s', 'against one', 'full, durable after', '1 %: capture', '1 %: durable after'],
    rows: widths.map(({ workers, full, captures, durable }) => [
      String(workers),
      show(spread(full.map(rate)), 'MB/s'),
      times(one / spread(full).median),
      show(spread(full), 'ms'),
      show(spread(captures), 'ms'),
      show(spread(durable), 'ms'),
    ]),
  });
  report.plot({
    name: 'growth-workers',
    title: `A full checkpoint of ${sizeName(bytes)}, by codec threads`,
    x: { label: 'workers' },
    y: { label: 'MB/s' },
    series: [{ name: 'full', points: widths.map(({ workers, full }) => [workers, rate(spread(full).median)]) }],
  });
}

/** What each region of a fleet reserves, and what of it has content. */
const RESERVED = 30 << 20;
const POPULATED = 256 << 10;
const WRITTEN = 16;

/** A program with many small memories: one store, one engine, a branch each. */
class Fleet {
  readonly checkpointers: Checkpointer[] = [];
  readonly #memories: { region: Region<ArrayBuffer>; bytes: Uint8Array; view: DataView }[] = [];
  readonly #records = new Records();
  readonly #store: CheckpointStore;

  private constructor(store: CheckpointStore) {
    this.#store = store;
  }

  static async open(folder: string, engine: Engine, count: number): Promise<Fleet> {
    const fleet = new Fleet(await CheckpointStore.open(folder, { createIfMissing: true, engine }));
    for (let k = 0; k < count; k++) {
      const region = Region.allocate(RESERVED);
      const bytes = new Uint8Array(region.buffer, 0, POPULATED);
      fleet.#records.fill(bytes);
      fleet.#memories.push({ region, bytes, view: new DataView(region.buffer) });
      fleet.checkpointers.push(await Checkpointer.open(fleet.#store, { regions: { region }, branch: `tenant-${k}` }));
    }
    return fleet;
  }

  write(): void {
    for (const { bytes, view } of this.#memories) {
      const step = POPULATED / PAGE_SIZE / WRITTEN;
      const first = this.#records.below(step);
      for (let k = 0; k < WRITTEN; k++) {
        const record = this.#records.below(PAGE_SIZE / 64);
        this.#records.write(view, bytes, (first + k * step) * PAGE_SIZE + record * 64);
      }
    }
  }

  async close(): Promise<void> {
    for (const checkpointer of this.checkpointers) await checkpointer.close();
    await this.#store.close();
    for (const { region } of this.#memories) region.close();
  }
}

/** One checkpointer, and a thousand of them at once. */
export async function fleets({ report, quick, scratch }: Bench): Promise<void> {
  const counts = quick ? [1, 10, 100] : [1, 10, 100, 1000];
  const rows: string[][] = [];
  const curves: [number, number][][] = [[], [], []];
  let last: { count: number; rest: number } | undefined;
  for (const count of counts) {
    const before = { anonymous: statusBytes('RssAnon'), tables: statusBytes('VmPTE') };
    const folder = join(scratch, `fleet-${count}`);
    const engine = new Engine({ maxShadowBytes: Math.ceil((count * POPULATED * 8) / 7) });
    const fleet = await Fleet.open(folder, engine, count);
    await Promise.all(fleet.checkpointers.map((checkpointer) => checkpointer.checkpoint()));
    const [together, alone, captures, lonely]: number[][] = [[], [], [], []];
    for (let round = 0; round <= (quick ? 3 : 7); round++) {
      fleet.write();
      const start = performance.now();
      const taken = await Promise.all(fleet.checkpointers.map((checkpointer) => checkpointer.checkpoint()));
      const ms = performance.now() - start;
      for (const checkpoint of taken) expectPages(checkpoint, WRITTEN);
      if (round === 0) continue;
      together!.push(ms / count);
      captures!.push(taken.reduce((sum, { timings }) => sum + timings.captureMs, 0) / count);
    }
    for (let round = 0; round < (quick ? 1 : Math.max(3, 21 / count)); round++) {
      fleet.write();
      const start = performance.now();
      let captureMs = 0;
      for (const checkpointer of fleet.checkpointers) {
        const checkpoint = await checkpointer.checkpoint();
        expectPages(checkpoint, WRITTEN);
        captureMs += checkpoint.timings.captureMs;
      }
      alone!.push((performance.now() - start) / count);
      lonely!.push(captureMs / count);
    }
    await collect();
    const beyond = statusBytes('RssAnon') - before.anonymous - count * POPULATED;
    const tables = statusBytes('VmPTE') - before.tables;
    const { shadowUsedBytes } = engine.stats();
    const rest = beyond - shadowUsedBytes;
    const threads = readdirSync('/proc/self/task').length;
    await fleet.close();
    await engine.close();
    await collect();
    rmSync(folder, { recursive: true });
    const [each, single, capture] = [spread(together!), spread(alone!), spread(captures!)];
    rows.push([
      String(count),
      show(each, 'ms'),
      digits(1000 / each.median),
      show(single, 'ms'),
      times(single.median / each.median),
      duration(capture),
      duration(spread(lonely!)),
      digits(beyond / 2 ** 20),
      digits(shadowUsedBytes / 2 ** 20),
      last === undefined ? '' : digits((rest - last.rest) / (count - last.count) / 1024),
      digits(tables / 2 ** 20),
      String(threads),
    ]);
    last = { count, rest };
    for (const [k, one] of [each, single, capture].entries()) curves[k]!.push([count, one.median]);
  }
  report.table({
    title: `**Checkpointers**: each has ${sizeName(RESERVED)} reserved, of which ${POPULATED / 1024} KiB have content, and ${WRITTEN} pages are written between two checkpoints`,
    columns: [
      'checkpointers',
      'all at once: a checkpoint',
      'a second',
      'one after the other',
      'gained by sharing syncs',
      'all at once: capture',
      'one after the other: capture',
      'RssAnon beyond the regions, MiB',
      'of it shadows, MiB',
      'the rest, for each more, KiB',
      'page tables, MiB',
      'threads',
    ],
    rows,
  });
  report.plot({
    name: 'growth-checkpointers',
    title: `A synced checkpoint of ${WRITTEN} pages, by the number of checkpointers`,
    x: { label: 'checkpointers', log: true },
    y: { label: 'ms a checkpoint', log: true },
    series: ['all at once', 'one after the other', 'capture'].map((name, k) => ({ name, points: curves[k]! })),
  });
  report.note(
    'One store, one engine, a branch each, durability `sync`. A capture takes at least one segment of staging until it is written: more of them at once than there are segments wait for one another inside their captures. ' +
      'Threads are all that the process has. ' +
      'Memory is what the process had more at the end than before regions, engine and store were made; the rest is that of all threads, with staging (a checkpoint in flight takes a segment, as long as there are any) ' +
      `and what is kept for each page of a region, ${RESERVED / PAGE_SIZE} of them for each, with content or not; page tables are the kernel’s (every tracked page has an entry).`,
  );
}
