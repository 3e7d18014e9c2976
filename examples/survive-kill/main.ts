import { realpathSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Region } from '../../lib/index.js';
import { seconds, wholeNumber } from '../arguments.js';
import type { KillOptions } from '../mortal.js';
import { random } from '../random.js';
import { table } from '../table.js';
import { type Death, type Life, live } from './life.js';
import { regionBytes } from './protocol.js';
import { verifyHistory, verifyNewest } from './verify.js';
import { Model } from './workload.js';

/** One life of the program, and what was there after it. */
export interface Kill extends Life {
  death: Death;
  /** The last operation of the state that was found in the store. */
  found: number;
}

export interface RunResult {
  kills: Kill[];
  /** The last operation of the newest checkpoint. */
  operations: number;
  entries: number;
  checkpoints: number;
  /** Older checkpoints that were compared as well. */
  compared: number;
}

const row = table([6, 31, 15, 12, 15, 14, 12]);

/** Kills the program again and again. @throws at the first state that is not the one that was stored, or older than what was acknowledged */
export async function run({
  store,
  kills,
  seconds: most = Number.POSITIVE_INFINITY,
  seed,
  log = console.log,
}: KillOptions): Promise<RunResult> {
  const next = random(0, seed);
  const model = new Model(seed);
  const region = Region.allocate(regionBytes);
  try {
    const deadline = performance.now() + most * 1000;
    const done: Kill[] = [];
    let before = (await verifyNewest(store, seed, region, model))?.operations ?? 0;
    log(row('kill', 'when', 'restored from', 'taken up to', 'acknowledged', 'found after', 'in flight'));
    while (done.length < kills && performance.now() < deadline) {
      const death = chooseDeath(done.length, next);
      const life = await live(store, seed, death);
      const found = (await verifyNewest(store, seed, region, model))?.operations ?? 0;
      compare(life, before, found);
      done.push({ ...life, death, found });
      log(
        row(
          done.length,
          describe(death),
          life.restored ?? '-',
          life.taken.at(-1) ?? '-',
          life.acknowledged || '-',
          found,
          life.inFlight,
        ),
      );
      before = found;
    }

    const last = await live(store, seed, { after: 'taken', count: 20, delayMs: 0, signal: 'SIGTERM' });
    const newest = await verifyNewest(store, seed, region, model);
    compare(last, before, newest?.operations ?? 0);
    if (newest === undefined || last.inFlight > 0 || newest.operations !== last.acknowledged)
      throw new Error('the program was asked to end, and did not finish what it had begun');
    const history = await verifyHistory(store, seed, next);
    log(`the last life ended by itself: ${newest.operations} operations, ${newest.entries} entries`);
    log(`${history.checkpoints} checkpoints in the store, all whole; ${history.compared} of them compared entry by entry`);
    return { kills: done, ...newest, ...history };
  } finally {
    region.close();
  }
}

/** The states in which it is to be caught: nothing there yet, the first and full checkpoint, restoring, several checkpoints on their way. */
function chooseDeath(kill: number, next: (below: number) => number): Death {
  const signal = 'SIGKILL';
  const soonAfter = (after: Death['after'], count: number, mostMs: number): Death => ({
    after,
    count,
    delayMs: next(mostMs),
    signal,
  });
  if (kill === 0) return soonAfter('start', 0, 60);
  if (kill < 3) return soonAfter('taken', 1, kill === 1 ? 1 : 12);
  const dice = next(10);
  if (dice < 2) return soonAfter('start', 0, 400);
  if (dice < 4) return soonAfter('restored', 0, 60);
  return soonAfter('taken', 1 + next(60), 6);
}

function compare({ restored, taken, acknowledged }: Life, before: number, found: number): void {
  if (restored !== undefined && restored !== before)
    throw new Error(`the program went on from operation ${restored}, and ${before} was in the store`);
  if (found < Math.max(before, acknowledged))
    throw new Error(`operation ${found} is the last one in the store, and ${Math.max(before, acknowledged)} was acknowledged`);
  if (found !== before && !taken.includes(found))
    throw new Error(`no checkpoint was taken after operation ${found}, which is in the store`);
}

function describe({ after, count, delayMs }: Death): string {
  const event = { start: 'the start', restored: 'it has restored', taken: `checkpoint ${count}` }[after];
  return `${delayMs} ms after ${event}`;
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === import.meta.filename) {
  const { values } = parseArgs({
    options: {
      store: { type: 'string', default: 'survive-kill.tidemark' },
      kills: { type: 'string', default: '20' },
      seconds: { type: 'string', default: '3600' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    },
  });
  console.log(`seed ${values.seed}`);
  await run({
    store: values.store,
    kills: wholeNumber('kills', values.kills, 0),
    seconds: seconds('seconds', values.seconds),
    seed: wholeNumber('seed', values.seed, 0),
  });
}
