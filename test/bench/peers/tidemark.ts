import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Checkpointer, Region } from '../../../lib/index.js';
import { Records } from '../support/data.js';
import type { Outcome } from './outcome.js';
import { sumOf } from './sum.js';

/**
 * What native/peers.cc does, with tidemark, in a process of its own: `node --expose-gc tidemark.js MEBIBYTES SHARE ROUNDS FOLDER [--no-deltas]`
 * prints one line of JSON.
 */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { 'no-deltas': { type: 'boolean', default: false } },
});
const [mebibytes, share, rounds] = positionals.slice(0, 3).map(Number) as [number, number, number];
const folder = positionals[3]!;
const bytes = mebibytes * 2 ** 20;
const dirty = Math.floor((bytes / 4096) * share);
const options = { durability: 'sync', ...(values['no-deltas'] ? { deltas: false } : {}) } as const;

function processBytes(field: 'VmRSS' | 'VmHWM'): number {
  return Number(new RegExp(`^${field}:\\s*(\\d+) kB$`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;
}

const region = Region.allocate(bytes);
const memory = new Uint8Array(region.buffer);
const records = new Records();
records.fill(memory);
const filled = sumOf(memory);
globalThis.gc!();
const before = processBytes('VmRSS');
// From now on VmHWM is the largest size from now on.
writeFileSync('/proc/self/clear_refs', '5');

const checkpointer = await Checkpointer.open(folder, { regions: { memory: region }, ...options });
const outcome: Outcome = {
  blockedMs: [],
  durableMs: [],
  storedBytes: [],
  pages: [],
  dirty,
  extraBytes: 0,
  enlarged: 0,
  sums: [filled, ''],
};
for (let round = 0; round <= rounds; round++) {
  if (round > 0) records.touch(memory, dirty);
  const start = performance.now();
  const promise = checkpointer.checkpoint();
  // Of the whole call, a little more than `timings.captureMs`.
  outcome.blockedMs.push(performance.now() - start);
  const checkpoint = await promise;
  outcome.durableMs.push(performance.now() - start);
  outcome.storedBytes.push(checkpoint.storedBytes);
  outcome.pages.push(checkpoint.regions.memory!.pages);
}
outcome.extraBytes = processBytes('VmHWM') - before;
await checkpointer.close();
outcome.sums[1] = sumOf(memory);
region.close();

const target = Region.allocate(bytes);
const restorer = await Checkpointer.open(folder, { regions: { memory: target } });
await restorer.restore();
if (sumOf(new Uint8Array(target.buffer)) !== outcome.sums[1]) throw new Error('what was stored is not what the memory was');
await restorer.close();
target.close();
console.log(JSON.stringify(outcome));
