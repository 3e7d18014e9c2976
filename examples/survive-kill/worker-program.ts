import { writeSync } from 'node:fs';
import { type Checkpoint, Checkpointer, Region } from '../../lib/index.js';
import { random } from '../random.js';
import { HashIndex } from './hash-index.js';
import { fingerprint, type Metadata, regionBytes } from './protocol.js';
import { apply } from './workload.js';

/** Done before the first checkpoint, so that it has something to store. */
const first = 20_000;
/** Checkpoints on their way at once: while one is written, the next ones are taken. */
const mostInFlight = 4;

const store = process.argv[2];
const seed = Number(process.argv[3]);
if (store === undefined || !Number.isSafeInteger(seed)) throw new Error('usage: worker-program.js <store> <seed>');

const region = Region.allocate(regionBytes);
const bytes = new Uint8Array(region.buffer);
const checkpointer = await Checkpointer.open(store, { regions: { index: region }, fingerprint: fingerprint(seed) });
const index = await begin();

let stopping = false;
process.on('SIGTERM', () => {
  stopping = true;
});

const inFlight: Promise<void>[] = [];
while (!stopping) {
  const next = random(index.operations, seed + 1);
  goTo(Math.max(first, index.operations + 1 + next(40)));
  inFlight.push(checkpoint());
  // From here on the index changes again, whatever has become of the checkpoint.
  if (inFlight.length >= mostInFlight) await inFlight.shift();
}
await Promise.all(inFlight);
await checkpointer.close();
region.close();

/** What the newest checkpoint says, or a new index. */
async function begin(): Promise<HashIndex> {
  if (checkpointer.head === undefined) {
    tell('restored', 0);
    return HashIndex.create(bytes);
  }
  const { checkpoint } = await checkpointer.restore();
  const restored = HashIndex.open(bytes);
  const { operations } = checkpoint.metadata as Metadata;
  const problems = restored.check();
  if (problems.length > 0) throw new Error(`checkpoint ${checkpoint.id} is damaged: ${problems.join('; ')}`);
  if (restored.operations !== operations) throw new Error(`operation ${restored.operations} is the last one, not ${operations}`);
  tell('restored', operations);
  return restored;
}

function goTo(operation: number): void {
  while (index.operations < operation) {
    const n = index.operations + 1;
    apply(index, n, seed);
    index.operations = n;
  }
}

function checkpoint(): Promise<void> {
  const metadata: Metadata = { operations: index.operations };
  // Before the call: it may be committed, and this process killed, before another line is said.
  tell('taken', metadata.operations);
  const taken: Promise<Checkpoint> = checkpointer.checkpoint({ metadata });
  const acknowledged = taken.then(() => tell('acknowledged', metadata.operations));
  // One that fails ends the program when its turn comes.
  acknowledged.catch(() => {});
  return acknowledged;
}

/** Into the pipe at once: what is in there is read even when this process is no more. */
function tell(event: string, operation: number): void {
  writeSync(1, `${event} ${operation}\n`);
}
