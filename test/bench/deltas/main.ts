import { availableParallelism, cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { DELTA_FRAME_PAGES, DELTA_LEVEL } from '../../../lib/chain/extent.js';
import { MAX_WORDS } from '../../../lib/engine/shadows.js';
import { capabilities, Engine } from '../../../lib/index.js';
import { hot, parts, sqlite, sqliteShop, uniform, vm, type Workload } from './epochs.js';
import type { Parameters } from './offline.js';
import { sweep } from './sweep.js';

/** What deltas save and cost, by what is chosen about them: `npm run bench -- deltas --mib 256 --rounds 5`. */
const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '256' },
    rounds: { type: 'string', default: '5' },
  },
});
const mib = Number(values.mib);
const rounds = Number(values.rounds);

console.log(`${cpus()[0]!.model}, ${availableParallelism()} cores, Linux ${capabilities().kernel}, Node ${process.version}`);
console.log(`${rounds} rounds, in turn: the least of them (and their median)\n`);

const chosen: Parameters = {
  maxDeltas: new Engine().maxDeltas,
  framePages: DELTA_FRAME_PAGES,
  level: DELTA_LEVEL,
  maxWords: MAX_WORDS,
};
const workloads: (() => Workload | Promise<Workload>)[] = [
  () => uniform(mib, 40),
  () => hot(mib, 70),
  () => parts(Math.ceil(mib / 4), 70),
  () => sqlite(35, 200),
  () => sqliteShop(35, 200),
  () => vm(60),
];
for (const make of workloads) sweep(await make(), chosen, rounds);
