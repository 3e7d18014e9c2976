import { digits, type Spread, show, type Unit } from './spread.js';

/** A figure beside the limit, or the peer, that was measured in the same run. */
export interface Budget {
  what: string;
  measured: Spread;
  /** What it is compared with. */
  against: string;
  limit: Spread;
  /** Of both. */
  unit: Unit;
  /** `cost`: measured / limit, at most `must`. `speed`: limit / measured, at least `must` (for times: how much of the limit's speed is reached). */
  kind: 'cost' | 'speed';
  must: number;
  aim: number;
  /** The ratio round by round, where both were measured in turn; else that of the medians. */
  ratios?: Spread;
}

export interface Table {
  title: string;
  columns: string[];
  rows: string[][];
}

/** Lines over a common axis. */
export interface Plot {
  /** Of the file. */
  name: string;
  title: string;
  x: Axis;
  y: Axis;
  series: { name: string; points: [x: number, y: number][] }[];
}

export interface Axis {
  label: string;
  log?: boolean;
}

/** What a suite found, as it is kept in the JSON. */
export interface Results {
  suite: string;
  budgets: (Budget & { ratio: number; verdict: 'aim' | 'must' | 'missed' })[];
  tables: Table[];
  plots: Plot[];
  notes: string[];
}

/** Takes the results of one suite and prints them, in Markdown, as they come. */
export class Report {
  readonly results: Results;
  #table = false;

  constructor(suite: string) {
    this.results = { suite, budgets: [], tables: [], plots: [], notes: [] };
    console.log(`\n## ${suite}`);
  }

  budget(budget: Budget): void {
    if (!this.#table) {
      console.log('\n| what | measured | against, in the same run | ratio | must / aim | |\n|---|---|---|---|---|---|');
      this.#table = true;
    }
    const { measured, limit, kind, must, aim } = budget;
    const ratio = budget.ratios?.median ?? (kind === 'cost' ? measured.median / limit.median : limit.median / measured.median);
    const reaches = (bound: number): boolean => (kind === 'cost' ? ratio <= bound : ratio >= bound);
    const verdict = reaches(aim) ? 'aim' : reaches(must) ? 'must' : 'missed';
    this.results.budgets.push({ ...budget, ratio, verdict });
    const sign = kind === 'cost' ? '<=' : '>=';
    const between = budget.ratios === undefined ? '' : ` (${times(budget.ratios.min)}-${times(budget.ratios.max)})`;
    const verdicts = { aim: 'aim reached', must: 'met', missed: '**missed**' };
    cells([
      budget.what,
      show(measured, budget.unit),
      `${budget.against}: ${show(limit, budget.unit)}`,
      `${times(ratio)}${between}`,
      `${sign} ${times(must)} / ${times(aim)}`,
      verdicts[verdict],
    ]);
  }

  table(table: Table): void {
    this.results.tables.push(table);
    this.#table = false;
    console.log(`\n${table.title}\n`);
    cells(table.columns);
    cells(table.columns.map(() => '---'));
    for (const row of table.rows) cells(row);
  }

  /** Drawn once everything is over. */
  plot(plot: Plot): void {
    this.results.plots.push(plot);
  }

  /** A sentence that the figures need to be understood. */
  note(text: string): void {
    this.results.notes.push(text);
    this.#table = false;
    console.log(`\n${text}`);
  }
}

function cells(row: readonly string[]): void {
  console.log(`| ${row.join(' | ')} |`);
}

/** `1/25` for what is much smaller than what it is compared with, else `0.55x`. */
export function times(ratio: number): string {
  return ratio > 0 && ratio < 0.3 ? `1/${digits(1 / ratio)}` : `${digits(ratio)}x`;
}
