import { existsSync, readdirSync, realpathSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { isAbsolute, join, normalize } from 'node:path';
import { parseArgs } from 'node:util';
import { wholeNumber } from './arguments.js';
import { run as runVm } from './durable-vm/main.js';
import { verify as verifyVm } from './durable-vm/verify.js';
import { liveAndDie } from './mortal.js';
import { run as runSandboxes } from './sandboxes/main.js';
import { run as runSqlite } from './sqlite-pages/main.js';
import { verify } from './sqlite-pages/verify.js';
import { run as surviveKill } from './survive-kill/main.js';

export interface DemoOptions {
  /** Where the store with the SQLite database stays, and with `-sandboxes` behind it that of the sandboxes; stores that are there are removed first. */
  folder: string;
  transactions: number;
  every: number;
  kills: number;
  sandboxes: number;
  seed: number;
}

export async function demo({ folder, transactions, every, kills, sandboxes, seed }: DemoOptions): Promise<void> {
  const started = performance.now();
  const sandboxFolder = `${normalize(folder)}-sandboxes`;
  for (const path of [folder, sandboxFolder]) await makeWay(path);

  title('SQLite in tracked memory: a checkpoint takes the pages that the transactions wrote');
  const half = Math.ceil(transactions / 2 / every) * every;
  const before = await runSqlite({ store: folder, transactions: half, every });
  console.log('\nThat database is gone. A new SQLite gets it back from the store and goes on:\n');
  const after = await runSqlite({ store: folder, transactions: transactions - half, every });
  const verified = await verify({ store: folder });
  const wrong = verified.flatMap(({ id, problems }) => problems.map((problem) => `checkpoint ${id}: ${problem}`));
  if (wrong.length > 0) throw new Error(wrong.join('\n'));
  const checkpoints = [...before.checkpoints, ...after.checkpoints];
  const stored = checkpoints.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
  const whole = verified.reduce((sum, { length }) => sum + length, 0);
  const blocked = checkpoints.map(({ timings }) => timings.captureMs).sort((a, b) => a - b);
  console.log(`
${verified.length} checkpoints, each checked by a SQLite that never saw it before: integrity_check ok, the answers are those that were noted.
${mib(stored)} stored for ${mib(whole)} of databases; blocked for ${blocked[blocked.length >> 1]!.toFixed(2)} ms (median), ${blocked.at(-1)!.toFixed(2)} ms at most.`);

  title('A hash index in tracked memory: killed with SIGKILL again and again');
  const temporary = await mkdtemp(join(tmpdir(), 'tidemark-demo-'));
  try {
    const { kills: done } = await surviveKill({ store: join(temporary, 'store'), kills, seed });
    const midway = done.filter(({ inFlight }) => inFlight > 0).length;
    console.log(
      `${done.length} kills, ${midway} of them in the middle of checkpoints: nothing that was acknowledged is missing, nothing is torn.`,
    );
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }

  title('A JavaScript interpreter in WebAssembly: killed, and it goes on with its variables, closures and promises');
  await killVm();

  title('WebAssembly sandboxes in one process: each has a branch of its own; some go back, some are forked, all are killed');
  await runSandboxes({ store: sandboxFolder, sandboxes, kills: Math.min(kills, 4), seed });

  title(`The demo took ${((performance.now() - started) / 1000).toFixed(0)} s. Two of its stores are still there; try`);
  for (const command of commands(folder, verified[verified.length >> 1]!.id, sandboxFolder)) console.log(`  ${command}`);
}

async function killVm(): Promise<void> {
  const temporary = await mkdtemp(join(tmpdir(), 'tidemark-demo-'));
  try {
    const store = join(temporary, 'store');
    let lines = 0;
    const program = join(import.meta.dirname, 'durable-vm/main.js');
    await liveAndDie(program, ['--store', store, '--steps', '1000000'], { signal: 'SIGKILL', delayMs: 2 }, (line) => {
      console.log(line);
      return ++lines > 8;
    });
    console.log('\nThat process was killed. A new one:\n');
    await runVm({ store, steps: 8 });
    const verified = await verifyVm({ store });
    const wrong = verified.flatMap(({ step, problems }) => problems.map((problem) => `step ${step}: ${problem}`));
    if (wrong.length > 0) throw new Error(wrong.join('\n'));
    console.log(
      `\n${verified.length} checkpoints, the memory of each the same to the byte as in a run that was never interrupted.`,
    );
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** What can be done with the stores by hand. */
function commands(folder: string, id: number, sandboxFolder: string): string[] {
  const [path, sandboxPath] = [folder, sandboxFolder].map((one) => (isAbsolute(one) ? one : `./${normalize(one)}`));
  const [store, file] = [quoted(path!), quoted(`${path}-${id}.sqlite`)];
  const [sandboxes, memory] = [quoted(sandboxPath!), quoted(`${sandboxPath}-f0.bin`)];
  return [
    `npx tidemark log ${store}`,
    `npx tidemark show ${store} ${id}`,
    `npx tidemark verify ${store} --read-data`,
    `npx tidemark restore ${store} ${id} --region database --output ${file} --force`,
    `sqlite3 ${file} 'PRAGMA integrity_check; SELECT max(id) AS transactions FROM journal'`,
    `npx tidemark log ${sandboxes} --limit 10`,
    `npx tidemark show ${sandboxes} s1.start`,
    `npx tidemark restore ${sandboxes} f0 --region memory --output ${memory} --force`,
  ];
}

/** For a shell. */
function quoted(path: string): string {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}

/** Removes a store of tidemark, and nothing else. */
async function makeWay(folder: string): Promise<void> {
  if (!existsSync(folder) || readdirSync(folder).length === 0) return;
  if (!existsSync(join(folder, 'TIDEMARK')))
    throw new Error(`${folder} is not a store of tidemark: the demo leaves it alone and ends`);
  await rm(folder, { recursive: true });
}

function title(line: string): void {
  console.log(`\n=== ${line}\n`);
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === import.meta.filename) {
  const { values } = parseArgs({
    options: {
      store: { type: 'string', default: 'demo-store' },
      transactions: { type: 'string', default: '3000' },
      every: { type: 'string', default: '100' },
      kills: { type: 'string', default: '15' },
      sandboxes: { type: 'string', default: '30' },
      seed: { type: 'string', default: '1' },
    },
  });
  const number = (name: 'transactions' | 'every' | 'kills' | 'sandboxes' | 'seed') => wholeNumber(name, values[name], 1);
  await demo({
    folder: values.store,
    transactions: number('transactions'),
    every: number('every'),
    kills: number('kills'),
    sandboxes: number('sandboxes'),
    seed: number('seed'),
  });
}
