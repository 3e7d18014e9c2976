import { realpathSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { seconds, wholeNumber } from '../arguments.js';
import type { KillOptions } from '../mortal.js';
import { random } from '../random.js';
import { table } from '../table.js';
import { type Death, type Life, live } from './life.js';
import { compare, type Found, verifyHeads, verifyHistory } from './verify.js';

export interface RunOptions extends KillOptions {
  /** Not counting those that are forked of them: a fifth more, in time. */
  sandboxes: number;
}

/** One life of the program, and what was there after it. */
export interface Kill extends Life {
  death: Death;
  /** Sandboxes that were found in the store, exact to the byte. */
  found: number;
  /** Of these, the ones that were further than what was acknowledged: committed, and killed before it could be said. */
  further: number;
}

export interface RunResult {
  kills: Kill[];
  /** The last life, which ended by itself. */
  last: Life;
  sandboxes: number;
  checkpoints: number;
  /** Older checkpoints that were compared as well. */
  compared: number;
}

const row = table([6, 31, 10, 15, 13, 8, 11, 8, 9]);

/** Kills the program again and again. @throws at the first state that is not the one that was stored, or older than what was acknowledged */
export async function run({
  store,
  sandboxes,
  kills,
  seconds: most = Number.POSITIVE_INFINITY,
  seed,
  log = console.log,
}: RunOptions): Promise<RunResult> {
  const next = random(0, seed);
  const deadline = performance.now() + most * 1000;
  const done: Kill[] = [];
  let before = await verifyHeads(store, sandboxes, seed);
  log(row('kill', 'when', 'restored', 'acknowledged', 'rolled back', 'forked', 'in flight', 'found', 'further'));
  while (done.length < kills && performance.now() < deadline) {
    const death = chooseDeath(done.length, sandboxes, next);
    const life = await live(store, sandboxes, seed, death);
    const found = await verifyHeads(store, sandboxes, seed);
    compare(life, before, found, seed);
    const kill = { ...life, death, found: found.size, further: countFurther(life, found) };
    done.push(kill);
    log(
      row(
        done.length,
        describe(death),
        life.restored.size,
        life.blockedMs.length,
        life.rolledBack.length,
        life.forks,
        life.inFlight,
        kill.found,
        kill.further,
      ),
    );
    before = found;
  }

  const last = await live(store, sandboxes, seed, { after: 'acknowledged', count: 4 * sandboxes, delayMs: 0, signal: 'SIGTERM' });
  const found = await verifyHeads(store, sandboxes, seed);
  compare(last, before, found, seed);
  if (last.inFlight > 0 || countFurther(last, found) > 0)
    throw new Error('the program was asked to end, and did not finish what it had begun');
  const history = await verifyHistory(store, seed, next);
  const result = { kills: done, last, sandboxes: found.size, ...history };
  for (const line of summary(result)) log(line);
  return result;
}

/** The states in which it is to be caught: nothing there yet, the first checkpoints, restoring, going back, forking, and in full work. */
function chooseDeath(kill: number, sandboxes: number, next: (below: number) => number): Death {
  const soonAfter = (after: Death['after'], count: number, mostMs: number): Death => ({
    after,
    count,
    delayMs: next(mostMs),
    signal: 'SIGKILL',
  });
  if (kill === 0) return soonAfter('start', 0, 200);
  if (kill === 1) return soonAfter('taking', 1, 8);
  if (kill === 2) return soonAfter('forked', 1 + next(4), 4);
  const dice = next(8);
  if (dice === 0) return soonAfter('start', 0, 1000);
  if (dice === 1) return soonAfter('restored', 1 + next(sandboxes), 5);
  if (dice === 2) return soonAfter('forking', 1 + next(4), 3);
  if (dice === 3) return soonAfter('rollingBack', 1 + next(8), 3);
  return soonAfter('acknowledged', 1 + next(3 * sandboxes), 6);
}

function describe({ after, count, delayMs }: Death): string {
  return after === 'start' ? `${delayMs} ms after the start` : `${delayMs} ms after "${after}" ${count}`;
}

/** Sandboxes whose state in the store is later than the one that was acknowledged last. */
function countFurther(life: Life, found: Found): number {
  let count = 0;
  for (const [name, { states, acknowledged }] of life.branches) {
    const state = JSON.stringify(found.get(name)?.history);
    if (states.slice(acknowledged).some((one) => JSON.stringify(one) === state)) count++;
  }
  return count;
}

/** What a person wants to know. */
function* summary({ kills, last, sandboxes, checkpoints, compared }: RunResult): Generator<string> {
  const lives = [...kills, last];
  const sum = (of: (life: Life) => number) => lives.reduce((total, life) => total + of(life), 0);
  const blocked = lives.flatMap(({ blockedMs }) => blockedMs).sort((a, b) => a - b);
  const { regionBytes = 0, residentBytes = 0, threads = 0 } = last.usage ?? {};
  const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MiB`;
  yield `the last life ended by itself: ${sandboxes} sandboxes with ${mib(regionBytes)} of memory, in one process of ${mib(residentBytes)} and ${threads} threads`;
  yield `${blocked.length} checkpoints acknowledged, ${Math.round(blocked.length / (sum(({ activeMs }) => activeMs) / 1000))} in a second, each synced; ${Math.round(sum(({ storedBytes }) => storedBytes) / blocked.length)} bytes stored for one; the caller blocked for ${blocked[blocked.length >> 1]?.toFixed(3)} ms (median)`;
  yield `${sum(({ rolledBack }) => rolledBack.length)} times a sandbox went back, ${sum(({ forks }) => forks)} times one was forked`;
  yield `${kills.length} kills, ${kills.filter(({ inFlight }) => inFlight > 0).length} of them in the middle of checkpoints: every sandbox came back, exact to the byte, at its last acknowledged checkpoint or a later one`;
  yield `${checkpoints} checkpoints in the store, all whole; ${compared} of them compared byte by byte`;
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === import.meta.filename) {
  const { values } = parseArgs({
    options: {
      store: { type: 'string', default: 'sandboxes.tidemark' },
      sandboxes: { type: 'string', default: '300' },
      kills: { type: 'string', default: '6' },
      seconds: { type: 'string', default: '3600' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    },
  });
  console.log(`seed ${values.seed}`);
  await run({
    store: values.store,
    sandboxes: wholeNumber('sandboxes', values.sandboxes, 1),
    kills: wholeNumber('kills', values.kills, 0),
    seconds: seconds('seconds', values.seconds),
    seed: wholeNumber('seed', values.seed, 0),
  });
}
