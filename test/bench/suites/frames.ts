import { join } from 'node:path';
import { FRAME_PAGES } from '../../../lib/chain/extent.js';
import { addon, PAGE_SIZE, SEGMENT_PAGES } from '../../../lib/kernel/addon.js';
import { Recorder } from '../deltas/epochs.js';
import { Records } from '../support/data.js';
import { type Database, regionOf, transactions, virtualMachine } from '../support/databases.js';
import { type Effort, type Figures, type Layout, LayoutStore, pagesOf } from '../support/layouts.js';
import type { Report } from '../support/report.js';
import { digits, type Spread, show, spread, type Unit } from '../support/spread.js';
import type { Suite } from '../support/suite.js';

const FRAMES = [4, 8, 16, 32];
const RECORDS = [1, 2, 4, 8, 16];
/** What the library writes. */
const PRESENT: Layout = { framePages: FRAME_PAGES, frames: SEGMENT_PAGES / FRAME_PAGES };
/** How often the programs write before their pages are taken. */
const WRITES = 10;

interface Data {
  name: string;
  what: string;
  /** Those that are not zero, as a full checkpoint has them. */
  pages: Uint8Array;
}

/** What a column says of each layout, and which end of it is good. */
interface Column {
  title: string;
  best: 'least' | 'most';
  unit: Unit;
  value: (figures: Figures) => number;
}

const COLUMNS: Column[] = [
  { title: 'stored a page, bytes', best: 'least', unit: '', value: ({ storedBytes }) => storedBytes },
  { title: 'compressed, by CPU time', best: 'most', unit: 'MB/s', value: ({ compress }) => compress },
  { title: 'a page at random', best: 'least', unit: 'us', value: ({ page }) => page },
  { title: 'of it LevelDB', best: 'least', unit: 'us', value: ({ get }) => get },
  { title: 'CPU in LevelDB, us a page written', best: 'least', unit: '', value: ({ cpu }) => cpu },
  { title: 'to disk / stored', best: 'least', unit: '', value: ({ disk }) => disk },
  { title: 'all, in order', best: 'most', unit: 'MB/s', value: ({ read }) => read },
];

function records(bytes: number): Data {
  const pages = new Uint8Array(bytes);
  new Records().fill(pages);
  return { name: 'Records', what: 'of 64 bytes', pages };
}

async function programPages(name: string, what: string, bytes: number, make: () => Promise<Database>): Promise<Data> {
  const program = await make();
  for (let k = 0; k < WRITES; k++) program.write();
  const region = regionOf(program);
  const pages = new Recorder(region).epochs[0]!.bytes.slice(0, bytes);
  region.close();
  program.database.close();
  return { name, what, pages };
}

/** Every layout, in turn, so that whatever else the machine does meets all of them. */
async function measure(pages: Uint8Array, scratch: string, effort: Effort, rounds: number): Promise<Map<Layout, Figures[]>> {
  const crcs = new Uint32Array(pages.length / PAGE_SIZE);
  addon().crc32cPages(pages, crcs);
  const found = new Map<Layout, Figures[]>();
  for (const framePages of FRAMES) for (const frames of RECORDS) found.set({ framePages, frames }, []);
  for (let round = 0; round < rounds; round++) {
    for (const [layout, figures] of found)
      figures.push(await new LayoutStore(pages, crcs, layout, join(scratch, 'layout')).measure(effort));
  }
  return found;
}

function isPresent({ framePages, frames }: Layout): boolean {
  return framePages === PRESENT.framePages && frames === PRESENT.frames;
}

function tabulate(report: Report, { name, what, pages }: Data, found: Map<Layout, Figures[]>): void {
  const count = pages.length / PAGE_SIZE;
  const layouts = [...found.keys()];
  const chosen = layouts.find(isPresent);
  if (chosen === undefined) throw new Error('what the library writes is not among what is tried');
  const present = found.get(chosen)![0]!;
  const columns = COLUMNS.map(({ best, value, unit, title }, k) => {
    const spreads = layouts.map((layout) => spread(found.get(layout)!.map((one) => value(one) / (k === 0 ? count : 1))));
    const medians = spreads.map((one) => one.median);
    const winner = best === 'least' ? Math.min(...medians) : Math.max(...medians);
    return { title, unit, spreads, winner };
  });
  const cell = (one: Spread, unit: Unit, winner: number): string => `${show(one, unit)}${one.median === winner ? ' (best)' : ''}`;
  report.table({
    title: `**${name}** ${what}, ${digits(pages.length / 2 ** 20)} MiB that are not zero; bold: what the library writes`,
    columns: ['frame', 'record', 'stored, against bold', ...columns.map(({ title }) => title)],
    rows: layouts.map((layout, k) => {
      const row = [
        `${layout.framePages} pages`,
        `${layout.frames} frame${layout.frames === 1 ? '' : 's'}`,
        `${(found.get(layout)![0]!.storedBytes / present.storedBytes).toFixed(3)}x`,
        ...columns.map(({ spreads, unit, winner }) => cell(spreads[k]!, unit, winner)),
      ];
      return isPresent(layout) ? row.map((text) => `**${text}**`) : row;
    }),
  });
  report.plot({
    name: `frames-${name.toLowerCase()}`,
    title: `${name}: a page at random, by what is read and decompressed for it`,
    x: { label: 'pages in a record', log: true },
    y: { label: 'a page at random, us', log: true },
    series: FRAMES.map((framePages) => ({
      name: `frames of ${framePages} pages`,
      points: layouts.flatMap((layout, k): [number, number][] =>
        layout.framePages === framePages ? [[pagesOf(layout), columns[2]!.spreads[k]!.median]] : [],
      ),
    })),
  });
}

/** Pages in frames, frames in records: what each choice costs. */
export const suite: Suite = async ({ report, quick, scratch }) => {
  const bytes = (quick ? 2 : 64) << 20;
  const effort: Effort = quick
    ? { compressBytes: 2 << 20, writeBytes: 1 << 20, reads: 20 }
    : { compressBytes: 32 << 20, writeBytes: 48 << 20, reads: 400 };
  const all = [
    () => records(bytes),
    () => programPages('SQLite', 'the database of examples/sqlite-pages', bytes, () => transactions(200)),
    () => programPages('VM', 'the interpreter of examples/durable-vm', bytes, virtualMachine),
  ];
  for (const make of all) {
    const data = await make();
    tabulate(report, data, await measure(data.pages, scratch, effort, quick ? 1 : 3));
  }
  report.note(
    'Where there are fewer pages than a record holds, all of them are one record. On one thread, through the log of the library with its options, unsynced but for the last batch. A page at random: `get` without the block cache (the library fills none), the ' +
      'checksum of the record, its frame decompressed, the CRC32C of the page; what the file system caches is warm. In order: as many pages at a time as 8 records of the library hold, each compared with its CRC32C. ' +
      `CPU and bytes to disk: records are written over and over with new numbers until ${digits(effort.writeBytes / 2 ** 20)} MiB are stored, until they were closed and opened again: then all of it is in tables.` +
      (FRAMES.at(-1)! * RECORDS.at(-1)! > SEGMENT_PAGES
        ? ` Records of more than ${SEGMENT_PAGES} pages are here for comparison: the format has no slot numbers for them.`
        : ''),
  );
};
