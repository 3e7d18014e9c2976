import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { machine } from './support/machine.js';
import { draw } from './support/plot.js';
import { type Results, times } from './support/report.js';

/**
 * `npm run bench -- [--quick] [--only capture,peers] [--output bench-results]`: what this machine makes of tidemark, each figure beside a limit or
 * a peer measured in the same run. Text on stdout, and in the folder: the same text, JSON, and plots as SVG.
 * `npm run bench -- deltas [options]`: the parameters of deltas.
 */
const SUITES = ['capture', 'store', 'deltas', 'restore', 'lazy', 'precopy', 'memory', 'programs', 'peers', 'growth', 'frames'];

if (process.argv[2] === 'deltas') {
  process.argv.splice(2, 1);
  await import('./deltas/main.js');
} else {
  await bench();
}

async function bench(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string', default: SUITES.join(',') },
      output: { type: 'string', default: 'bench-results' },
    },
  });
  const names = values.only.split(',');
  const unknown = names.filter((name) => !SUITES.includes(name));
  if (unknown.length > 0) throw new RangeError(`--only: ${unknown.join(', ')} is none of ${SUITES.join(', ')}`);
  mkdirSync(values.output, { recursive: true });
  const scratch = mkdtempSync(join(tmpdir(), 'tidemark-bench-'));
  let text = '';
  const print = (part: string): void => {
    text += part;
    process.stdout.write(part);
  };
  const started = performance.now();
  try {
    const about = machine(scratch);
    print(`# tidemark on this machine${values.quick ? ', quickly' : ''}\n\n`);
    for (const [what, value] of Object.entries(about)) print(`- ${what}: ${value}\n`);
    if (values.quick)
      print('\nRegions are an eighth of what the budgets are for, or less: what a checkpoint costs in any case weighs more.\n');
    const results: Results[] = [];
    const failed: string[] = [];
    for (const name of names) {
      const json = join(scratch, `${name}.json`);
      const folder = join(scratch, name);
      if (await runSuite(name, ['--scratch', folder, '--json', json, ...(values.quick ? ['--quick'] : [])], print)) {
        results.push(JSON.parse(readFileSync(json, 'utf8')) as Results);
      } else {
        failed.push(name);
      }
      rmSync(folder, { recursive: true, force: true });
    }
    print(`\n${summary(results, failed)}\nTook ${((performance.now() - started) / 60_000).toFixed(1)} minutes.\n`);
    for (const plot of results.flatMap(({ plots }) => plots)) {
      writeFileSync(join(values.output, `${plot.name}.svg`), draw(plot));
      text += `\n![${plot.title}](${plot.name}.svg)\n`;
    }
    writeFileSync(
      join(values.output, 'results.json'),
      `${JSON.stringify({ machine: about, quick: values.quick, results }, null, 1)}\n`,
    );
    writeFileSync(join(values.output, 'results.md'), text);
    if (failed.length > 0) process.exitCode = 1;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function runSuite(name: string, options: string[], print: (part: string) => void): Promise<boolean> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'run.js'), name, ...options], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  child.stdout.setEncoding('utf8').on('data', print);
  return new Promise((resolve) => child.once('close', (code) => resolve(code === 0)));
}

function summary(results: readonly Results[], failed: readonly string[]): string {
  const budgets = results.flatMap((one) => one.budgets);
  const missed = budgets.filter(({ verdict }) => verdict === 'missed');
  const list = missed.map(({ what, ratio, must }) => `- missed: ${what}, ${times(ratio)} where ${times(must)} is wanted\n`);
  return (
    `## Summary\n\n${budgets.length - missed.length} of ${budgets.length} budgets met.\n` +
    list.join('') +
    failed.map((name) => `- the suite ${name} failed\n`).join('')
  );
}
