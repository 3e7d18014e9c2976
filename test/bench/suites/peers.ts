import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Outcome } from '../peers/outcome.js';
import { compile, run } from '../support/native.js';
import { show, spread, type Unit } from '../support/spread.js';
import type { Bench, Suite } from '../support/suite.js';

/** Of native/peers.cc. The first one that is not a peer is what a write costs by itself; `userfault` is what tidemark's writes cost. */
const METHODS = {
  none: 'no tracking',
  copy: 'copy of everything',
  compare: 'comparison with a copy',
  hash: 'hash of every page',
  mprotect: 'mprotect and SIGSEGV',
  fork: 'fork(), the child stores',
  userfault: "tidemark's faults and scan alone, in C++",
} as const;
type Method = keyof typeof METHODS;
/** These store everything in every epoch. */
const WHOLE: readonly Method[] = ['copy', 'fork'];

const TIDEMARK = { '--no-deltas': 'tidemark, `deltas: false`', '': 'tidemark' } as const;
type Flag = keyof typeof TIDEMARK;

interface Load {
  mebibytes: number;
  share: number;
  rounds: number;
}

interface Row {
  name: string;
  outcome: Outcome;
  stores: boolean;
}

/** Everything under one load, each in a process of its own. @throws {Error} when one fails, stores what the memory is not, or had another memory than the others */
function measure(
  program: string,
  load: Load,
  { scratch, cores }: Bench,
  methods: readonly Method[],
  flags: readonly Flag[],
): Row[] {
  const { mebibytes, share, rounds } = load;
  const inFolder = (start: (folder: string) => Outcome): Outcome => {
    const folder = join(scratch, 'epochs');
    mkdirSync(folder);
    try {
      return start(folder);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  };
  const rows = methods.map((method): Row => {
    const outcome = inFolder((folder) => run<Outcome>(program, method, mebibytes, share, rounds, folder, cores));
    const stores = method !== 'none';
    if (stores) checkPages(METHODS[method], outcome, WHOLE.includes(method) ? outcome.pages[0]! : outcome.dirty);
    return { name: METHODS[method], outcome, stores };
  });
  const writeNs = rows.find(({ name }) => name === METHODS.userfault)!.outcome.writeNs!;
  for (const flag of flags) {
    const script = join(import.meta.dirname, '../peers/tidemark.js');
    const outcome = inFolder((folder) =>
      run<Outcome>(process.execPath, '--expose-gc', script, mebibytes, share, rounds, folder, ...(flag === '' ? [] : [flag])),
    );
    checkPages(TIDEMARK[flag], outcome, outcome.dirty);
    rows.push({ name: TIDEMARK[flag], outcome: { ...outcome, writeNs }, stores: true });
  }
  const sums = new Set(rows.map(({ outcome }) => outcome.sums.join()));
  if (sums.size !== 1)
    throw new Error(`not the same memory: ${rows.map(({ name, outcome }) => `${name} ${outcome.sums}`).join('; ')}`);
  return rows;
}

/** The pages written are known: each write is the first one to its page. */
function checkPages(name: string, { pages, enlarged }: Outcome, wanted: number): void {
  if (enlarged === 0 && pages.slice(1).some((count) => count !== wanted))
    throw new Error(`${name}: stored ${pages.slice(1).join(', ')} pages, and ${wanted} were written`);
}

/** Of the rounds, without the first epoch. */
const later = (values: readonly number[]): number[] => values.slice(1);

/** What the program loses in each round: its writes, and the time it is blocked. */
function lostMs({ writeNs, blockedMs, dirty }: Outcome): number[] {
  return writeNs!.map((ns, round) => (ns * dirty) / 1e6 + (blockedMs[round + 1] ?? 0));
}

function cellsOf({ name, outcome, stores }: Row): string[] {
  const cell = (values: readonly number[], unit: Unit): string => (stores ? show(spread(values), unit) : '');
  const megabytes = outcome.storedBytes.map((count) => count / 1e6);
  return [
    name,
    show(spread(outcome.writeNs!), 'ns'),
    cell(later(outcome.blockedMs), 'ms'),
    show(spread(lostMs(outcome)), 'ms'),
    cell(later(outcome.durableMs), 'ms'),
    cell(later(megabytes), 'MB'),
    cell(megabytes.slice(0, 1), 'MB'),
    cell([outcome.extraBytes / 2 ** 20], 'MiB'),
  ];
}

export const suite: Suite = async (bench) => {
  const { report, quick, scratch, cores } = bench;
  const program = compile('peers', scratch);
  const load: Load = quick ? { mebibytes: 64, share: 0.01, rounds: 3 } : { mebibytes: 1024, share: 0.01, rounds: 7 };
  const rows = measure(program, load, bench, Object.keys(METHODS) as Method[], Object.keys(TIDEMARK) as Flag[]);
  const { dirty } = rows[0]!.outcome;
  report.table({
    title: `${load.mebibytes} MiB, load D: one record of 64 bytes written in each of ${dirty} pages at random, ${load.rounds} rounds`,
    columns: [
      'snapshots by',
      'first write to a page',
      'caller blocked',
      'writes and blocked, an epoch',
      'until durable',
      'stored, an epoch',
      'stored, first epoch',
      'extra memory',
    ],
    rows: rows.map(cellsOf),
  });
  report.note(
    `Every row: a process of its own, the same memory and writes (a sum over the memory is compared), all of it in pages of 4 KiB; what was stored is read back and compared. Peers: C++, ${cores} threads, zstd level 1 in blocks of 16 pages, one file, fdatasync; no checksums, no index, no history to go back in.`,
  );
  report.note(
    `First write: processor time of the thread that writes, in C++ everywhere (so the rows of tidemark have that of its faults alone). For fork() while the child lives.`,
  );
  report.note(
    `Blocked: copy, comparison and hashing on ${cores} threads. The first epoch of hash, mprotect and the faults alone is stored with the caller blocked, without staging. For tidemark it is the call of checkpoint().`,
  );
  report.note(
    `Extra memory: peak of resident memory (VmHWM) over that with the memory filled and nothing opened, first epoch included; for fork() also what only the child has. For tidemark it has staging, shadows (a copy of each page, only with deltas), the page table and the heaps of its threads. What the kernel keeps (page tables, mappings) is in none.`,
  );
  const enlarged = rows.reduce((sum, { outcome }) => sum + outcome.enlarged, 0);
  if (enlarged > 0) report.note(`mprotect reached vm.max_map_count: ${enlarged} faults gave up more than their page.`);
  plotShares(program, bench, quick ? [0.01, 0.1] : [0.001, 0.01, 0.1, 0.5]);
};

/** What the program loses, by how much of the memory it writes: some peers cost the same for little and for much. */
function plotShares(program: string, bench: Bench, shares: readonly number[]): void {
  const mebibytes = bench.quick ? 16 : 128;
  const methods = (Object.keys(METHODS) as Method[]).filter((method) => method !== 'none');
  const series = new Map<string, [x: number, y: number][]>();
  for (const share of shares) {
    const load = { mebibytes, share, rounds: bench.quick ? 1 : 3 };
    const rows = measure(program, load, bench, methods, ['']);
    for (const { name, outcome } of rows.filter((row) => row.name !== METHODS.userfault)) {
      series.set(name, [...(series.get(name) ?? []), [share * 100, spread(lostMs(outcome)).median]]);
    }
  }
  bench.report.plot({
    name: 'peers',
    title: `What an epoch costs the program: its writes, and the time it is blocked (${mebibytes} MiB)`,
    x: { label: 'pages written, %', log: true },
    y: { label: 'ms', log: true },
    series: [...series].map(([name, points]) => ({ name, points })),
  });
}
