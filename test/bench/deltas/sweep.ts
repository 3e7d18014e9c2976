import { PAGE_SIZE, SEGMENT_PAGES, SEGMENT_STRIDE } from '../../../lib/kernel/addon.js';
import { Records } from '../support/data.js';
import { type Spread, spread } from '../support/spread.js';
import type { Epoch, Workload } from './epochs.js';
import { type Chain, OfflineDecoder, OfflineEncoder, type Parameters, versionsAt } from './offline.js';

/** What is tried; 255 pages is the most that the directory of an extent can say. */
const TRIED: { [K in keyof Parameters]: number[] } = {
  maxDeltas: [2, 4, 8, 16, 32],
  framePages: [16, 32, 64, 128, 255],
  level: [3, 1, -1, -3, -7, -20],
  maxWords: [32, 64, 128, 192, 256, 384, 512],
};
const NAMES = { maxDeltas: 'deltas on a page', framePages: 'pages in a frame', level: 'zstd level', maxWords: 'changed words' };
const READS = 300;

interface Variant {
  name: string;
  parameters: Parameters;
  encode: number[];
  restore: number[];
  /** Of each page read, in every round the same ones: the least. */
  reads: number[];
  /** The number of the epoch that needs the most versions. */
  dearest: number | undefined;
  chain: Chain | undefined;
}

/** One table: each parameter on its own, the others as chosen. */
export function sweep({ name, what, epochs }: Workload, chosen: Parameters, rounds: number): void {
  const variants = variantsOf(chosen);
  const pages = epochs.slice(1).reduce((sum, epoch) => sum + epoch.pages.length, 0);
  const base = { chain: encode(epochs.slice(0, 1), chosen), written: writtenLater(epochs) };
  const memory = new Uint8Array(Math.ceil(distinct(epochs.slice(1)).size / SEGMENT_PAGES) * SEGMENT_STRIDE);
  // In turn, so that whatever else the machine does meets all of them; the first round warms up.
  for (let round = 0; round <= rounds; round++) {
    for (const variant of variants) measure(variant, epochs, base, memory, round > 0);
  }
  const off = variants[0]!;
  console.log(`## ${name}: ${what} (${pages} pages)\n`);
  console.log(
    '| | stored | of full | encode ms | of full | full restore ms | of full | one page us: mean | 95 % below | deltas |',
  );
  console.log('|---|---|---|---|---|---|---|---|---|---|');
  for (const variant of variants) console.log(line(variant, off));
  console.log('');
}

function variantsOf(chosen: Parameters): Variant[] {
  const variant = (name: string, parameters: Parameters): Variant => ({
    name,
    parameters,
    encode: [],
    restore: [],
    reads: [],
    dearest: undefined,
    chain: undefined,
  });
  const all = [variant('no deltas', { ...chosen, maxDeltas: 0 }), variant('as chosen', chosen)];
  for (const key of Object.keys(TRIED) as (keyof Parameters)[]) {
    for (const value of TRIED[key]) all.push(variant(`${NAMES[key]}: ${value}`, { ...chosen, [key]: value }));
  }
  return all;
}

interface Base {
  chain: Chain;
  written: Epoch;
}

function encode(epochs: readonly Epoch[], parameters: Parameters, base?: Base): Chain {
  const encoder = new OfflineEncoder(parameters, distinct(epochs).size);
  encoder.begin(epochs[0]!, base);
  for (const epoch of epochs.slice(1)) encoder.next(epoch);
  return encoder.finish();
}

function distinct(epochs: readonly Epoch[]): Set<number> {
  const pages = new Set<number>();
  for (const epoch of epochs) for (const page of epoch.pages) pages.add(page);
  return pages;
}

/** Of the first epoch, the pages that later ones write. */
function writtenLater(epochs: readonly Epoch[]): Epoch {
  const later = distinct(epochs.slice(1));
  const { pages, bytes } = epochs[0]!;
  const kept = [...pages.keys()].filter((k) => later.has(pages[k]!));
  const copy = new Uint8Array(kept.length * PAGE_SIZE);
  for (const [j, k] of kept.entries()) copy.set(bytes.subarray(k * PAGE_SIZE, (k + 1) * PAGE_SIZE), j * PAGE_SIZE);
  return { pages: Uint32Array.from(kept, (k) => pages[k]!), bytes: copy, zeros: new Uint32Array(0) };
}

function measure(variant: Variant, epochs: readonly Epoch[], base: Base, memory: Uint8Array, counts: boolean): void {
  const chain = encode(epochs, variant.parameters, base);
  const decoder = new OfflineDecoder(chain);
  variant.dearest ??= dearest(chain, epochs.length);
  const restore = decoder.all(variant.dearest, memory);
  const reads = readSome(decoder, epochs);
  if (!counts) return;
  variant.encode.push(chain.encodeMs);
  variant.restore.push(restore);
  variant.reads = reads.map((time, k) => Math.min(time, variant.reads[k] ?? time));
  variant.chain = { ...chain, payloads: [], versions: new Map() };
}

/** The checkpoint that needs the most versions. */
function dearest(chain: Chain, epochs: number): number {
  let [found, most] = [0, -1];
  for (let epoch = 1; epoch < epochs; epoch++) {
    let needed = 0;
    for (const [page, versions] of chain.versions) if (versions.length > 1) needed += versionsAt(chain, page, epoch).length;
    if (needed > most) [found, most] = [epoch, needed];
  }
  return found;
}

/** Pages at random, of those that an epoch at random has written. */
function readSome(decoder: OfflineDecoder, epochs: readonly Epoch[]): number[] {
  const choice = new Records();
  const times: number[] = [];
  while (times.length < READS) {
    const epoch = 1 + choice.below(epochs.length - 1);
    const { pages } = epochs[epoch]!;
    if (pages.length > 0) times.push(decoder.one(pages[choice.below(pages.length)]!, epoch));
  }
  return times;
}

/** Times are the least of all rounds, for whatever else the machine does only adds to them; in brackets the median. */
function line(variant: Variant, off: Variant): string {
  const { name, chain } = variant;
  const time = ({ min, median }: Spread): string => `${min.toFixed(1)} (${median.toFixed(1)})`;
  const ratio = (what: 'encode' | 'restore'): number => spread(variant[what]).min / spread(off[what]).min;
  const reads = variant.reads.map((read) => read * 1000).sort((a, b) => a - b);
  const cells = [
    name,
    `${(chain!.storedBytes / 1e3).toFixed(0)} KB`,
    `1/${(off.chain!.storedBytes / chain!.storedBytes).toFixed(1)}`,
    time(spread(variant.encode)),
    `1/${(1 / ratio('encode')).toFixed(2)}`,
    time(spread(variant.restore)),
    ratio('restore').toFixed(2),
    (reads.reduce((a, b) => a + b) / reads.length).toFixed(0),
    reads[Math.floor(reads.length * 0.95)]!.toFixed(0),
    `${((100 * chain!.deltaPages) / chain!.pages).toFixed(0)} %`,
  ];
  return `| ${cells.join(' | ')} |`;
}
