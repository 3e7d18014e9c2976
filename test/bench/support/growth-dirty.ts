import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Checkpointer, Engine } from '../../../lib/index.js';
import { PAGE_SIZE } from '../../../lib/kernel/addon.js';
import { collect, expectPages, Pages, RecordMemory, sizeName } from './memory.js';
import { times } from './report.js';
import { digits, duration, type Spread, show, spread } from './spread.js';
import type { Bench } from './suite.js';

/** 1 % of 1 GiB. */
const DIRTY = 2621;
/** Shadows of so many bytes of pages, by what an engine keeps for lists of versions. */
const shadowsFor = (bytes: number): number => Math.ceil((bytes * 8) / 7);

interface Taken {
  captures: number[];
  scans: number[];
  durable: number[];
  stored: number[];
}

/** Rounds of a checkpoint each, after one that warms up. With `scans` every other round times a scan instead of the capture, which would find it all in the caches. */
async function rounds(
  checkpointer: Checkpointer,
  memory: RecordMemory,
  choose: () => Uint32Array,
  count: number,
  scans = false,
): Promise<Taken> {
  const taken: Taken = { captures: [], scans: [], durable: [], stored: [] };
  for (let round = 0; round <= (scans ? 2 * count : count); round++) {
    const pages = choose();
    memory.touch(pages);
    const scanned = scans && round % 2 === 1 ? memory.scanMs() : undefined;
    const start = performance.now();
    const checkpoint = await checkpointer.checkpoint();
    const ms = performance.now() - start;
    expectPages(checkpoint, pages.length);
    if (round === 0) continue;
    if (scanned !== undefined) {
      taken.scans.push(scanned);
      continue;
    }
    taken.captures.push(checkpoint.timings.captureMs);
    taken.durable.push(ms);
    taken.stored.push(checkpoint.storedBytes);
  }
  return taken;
}

const kilobytes = (bytes: readonly number[]): string => show(spread(bytes.map((one) => one / 1000)), 'KB');

/** The region grows, what is written stays the same. */
export async function regionSizes({ report, quick, scratch }: Bench): Promise<void> {
  const sizes = quick ? [64, 128, 256] : [256, 512, 1024, 2048, 4096, 8192];
  const rows: string[][] = [];
  const curves: Record<string, [number, number][]> = { scan: [], capture: [], 'durable, full pages': [], 'durable, deltas': [] };
  for (const mib of sizes) {
    const bytes = mib * 2 ** 20;
    const memory = new RecordMemory(bytes);
    const pages = new Pages(memory.pages);
    const folder = join(scratch, `size-${mib}`);
    // For what is written in each round, not for the region: then it does the same at every size.
    const engine = new Engine({ maxShadowBytes: shadowsFor(4 * DIRTY * PAGE_SIZE) });
    const open = (deltas: boolean) => Checkpointer.open<string>(folder, { regions: memory.regions, engine, deltas });
    const whole = await open(false);
    const start = performance.now();
    expectPages(await whole.checkpoint(), memory.pages);
    const fullMs = performance.now() - start;
    const count = quick ? 3 : 7;
    const full = await rounds(whole, memory, () => pages.scattered(DIRTY), count, true);
    await whole.close();
    const again = await open(true);
    const same = pages.scattered(DIRTY);
    // They have shadows from the second time on.
    const deltas = await rounds(again, memory, () => same, count);
    await again.close();
    await engine.close();
    const parts = Object.keys(memory.regions).length;
    memory.close();
    await collect();
    rmSync(folder, { recursive: true });
    const [scan, capture, durable, durableDeltas] = [full.scans, full.captures, full.durable, deltas.durable].map((one) =>
      spread(one),
    ) as [Spread, Spread, Spread, Spread];
    rows.push([
      parts === 1 ? sizeName(bytes) : `${sizeName(bytes)}, in ${parts} regions`,
      `${digits(bytes / fullMs / 1000)} MB/s`,
      duration(scan),
      show(capture, 'ms'),
      show(durable, 'ms'),
      kilobytes(full.stored),
      show(durableDeltas, 'ms'),
      kilobytes(deltas.stored),
    ]);
    for (const [k, one] of [scan, capture, durable, durableDeltas].entries()) Object.values(curves)[k]!.push([mib, one.median]);
  }
  report.table({
    title: `**The region grows**, ${DIRTY} pages are written, at random, in each round`,
    columns: [
      'region',
      'all of it, full, durable',
      'scan',
      'capture',
      'durable after',
      'stored',
      'deltas: durable after',
      'deltas: stored',
    ],
    rows,
  });
  report.plot({
    name: 'growth-region',
    title: `A checkpoint of ${DIRTY} pages, by the size of the region`,
    x: { label: 'region, MiB', log: true },
    y: { label: 'ms', log: true },
    series: Object.entries(curves).map(([name, points]) => ({ name, points })),
  });
  report.note(
    'A scan is `dirtyRanges()` in rounds of its own. Without deltas the pages are other ones in every round; with deltas they are the same, and the engine has ' +
      `\`maxShadowBytes\` for four times as many (${digits(shadowsFor(4 * DIRTY * PAGE_SIZE) / 2 ** 20)} MiB), not for the region, so that every size does the same. ` +
      'What is larger than a buffer of this Node.js is several regions of one checkpointer.',
  );
}

/** Milliseconds to copy as much on this thread, into memory that is there and was copied into before. */
function copyMs(memory: RecordMemory, target: Uint8Array, pages: number, count: number): Spread {
  const from = memory.first.subarray(0, pages * PAGE_SIZE);
  const samples: number[] = [];
  // What is small is copied often, or the clock is what is measured.
  const repeats = Math.max(1, Math.floor(1000 / pages));
  for (let round = 0; round <= count; round++) {
    const start = performance.now();
    for (let k = 0; k < repeats; k++) target.set(from);
    if (round > 0) samples.push((performance.now() - start) / repeats);
  }
  return spread(samples);
}

/** What is written grows, in one region. */
export async function dirtyShares({ report, quick, scratch }: Bench): Promise<void> {
  const bytes = (quick ? 128 : 1024) * 2 ** 20;
  const memory = new RecordMemory(bytes);
  const pages = new Pages(memory.pages);
  const target = Buffer.alloc(bytes, 1);
  const engine = new Engine({ maxShadowBytes: shadowsFor(bytes) });
  const checkpointer = await Checkpointer.open<string>(join(scratch, 'shares'), { regions: memory.regions, engine });
  await checkpointer.checkpoint();
  const patterns: Record<string, (count: number) => Uint32Array> = {
    scattered: (count) => pages.scattered(count),
    'runs of 64 pages': (count) => pages.runs(count, 64),
    'one run': (count) => pages.runs(count, count),
  };
  const rows: string[][] = [];
  const curves: Record<string, [number, number][]> = { memcpy: [] };
  for (const share of [0.0001, 0.001, 0.01, 0.1, 1]) {
    const count = Math.round(memory.pages * share);
    const turns = quick ? 2 : share === 1 ? 3 : 7;
    const copy = copyMs(memory, target, count, turns);
    const percent = +(share * 100).toFixed(2);
    curves.memcpy!.push([percent, copy.median]);
    for (const [name, choose] of Object.entries(patterns)) {
      // All of it is one run whichever way it is chosen; only the order of the writes differs.
      const { captures, durable, stored } = await rounds(checkpointer, memory, () => choose(count), turns);
      const capture = spread(captures);
      rows.push([
        `${percent} %`,
        share === 1 && name !== 'one run' ? `all, written in order of "${name}"` : name,
        String(count),
        duration(capture),
        duration(copy),
        times(capture.median / copy.median),
        show(spread(durable), 'ms'),
        show(spread(stored.map((one) => one / count)), ''),
      ]);
      curves[`capture, ${name}`] ??= [];
      curves[`capture, ${name}`]!.push([percent, capture.median]);
      curves[`durable, ${name}`] ??= [];
      curves[`durable, ${name}`]!.push([percent, spread(durable).median]);
    }
  }
  await checkpointer.close();
  const stagingMiB = engine.stats().stagingBytes / 2 ** 20;
  await engine.close();
  memory.close();
  rmSync(join(scratch, 'shares'), { recursive: true });
  await collect();
  report.table({
    title: `**The dirty share grows**, of ${sizeName(bytes)}: one record of 64 bytes in each page`,
    columns: [
      'dirty',
      'how',
      'pages',
      'capture',
      'memcpy of as many',
      'capture / memcpy',
      'durable after',
      'stored a page, bytes',
    ],
    rows,
  });
  report.plot({
    name: 'growth-dirty',
    title: `A checkpoint of ${sizeName(bytes)}, by how much of it was written`,
    x: { label: 'dirty, %', log: true },
    y: { label: 'ms', log: true },
    series: Object.entries(curves).map(([name, points]) => ({ name, points })),
  });
  report.note(
    `With deltas, and shadows for all of it. A capture that does not fit into staging (${digits(stagingMiB)} MiB) waits for the codec threads: then it is no copy any more.`,
  );
}
