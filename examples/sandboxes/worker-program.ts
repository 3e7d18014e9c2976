import { readFileSync, writeSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { CheckpointStore, Engine } from '../../lib/index.js';
import { random } from '../random.js';
import { loadProgram } from './program.js';
import { forkName, type Metadata, type Said, sandboxName, startOf } from './protocol.js';
import { type Host, Sandbox } from './sandbox.js';

/** A sandbox with a longer history than this is neither rolled back nor forked: metadata has bounds. */
const longestHistory = 100;

const path = process.argv[2];
const [count, seed] = process.argv.slice(3).map(Number);
if (path === undefined || count === undefined || seed === undefined)
  throw new Error('usage: worker-program.js <store> <sandboxes> <seed>');
const mostForks = Math.ceil(count / 5);

let stopping = false;
process.on('SIGTERM', () => {
  stopping = true;
});

const engine = new Engine();
const host: Host = {
  store: await CheckpointStore.open(path, { createIfMissing: true, engine }),
  program: await loadProgram(),
  seed,
};
const sandboxes = await Promise.all(Array.from({ length: count }, (_, n) => open(sandboxName(n), n)));
let forks = 0;
for (; (await host.store.find(forkName(forks))) !== undefined; forks++) sandboxes.push(await open(forkName(forks), 0));
tell({ event: 'ready', sandboxes: sandboxes.length });

// Ids are never used twice, so that each life does something else.
let salt = await newestId();
const next = random(salt, seed);
/** Rollbacks and forks that are under way. */
const errands = new Set<Promise<void>>();
let forking = false;
let before: Promise<unknown> = Promise.resolve();
while (!stopping) {
  const round = takeRound();
  for (let some = Math.ceil(sandboxes.length / 50); some > 0; some--) begin(rollBackOne());
  begin(forkOne());
  tell({ event: 'usage', ...usage() });
  // While the checkpoints of one round are compressed and written, the sandboxes make the steps of the next.
  await before;
  before = round;
  await nextTurn();
}
await before;
await Promise.all(errands);
await Promise.all(sandboxes.map((sandbox) => sandbox.close()));
await host.store.close();
await engine.close();

async function open(name: string, salt: number): Promise<Sandbox> {
  const sandbox = await Sandbox.open(host, name, salt);
  if (!sandbox.isNew) tell({ event: 'restored', name, history: sandbox.history, digest: sandbox.digest });
  return sandbox;
}

/** About half of the sandboxes make some steps and are checkpointed, all in one go: the commits of checkpoints that are ready share a batch. */
function takeRound(): Promise<unknown> {
  const chosen = sandboxes.filter(({ busy }) => !busy && next(2) === 0);
  for (const sandbox of chosen) sandbox.step(1 + next(300));
  tell(...chosen.map(({ name, history }): Said => ({ event: 'taking', name, history })));
  return Promise.all(
    chosen.map(async (sandbox) => {
      // From the call on the sandbox may be stepped again, whatever becomes of the checkpoint.
      const { timings, storedBytes } = await sandbox.checkpoint();
      tell({ event: 'acknowledged', name: sandbox.name, blockedMs: timings.captureMs, storedBytes });
    }),
  );
}

/** One goes back, to the checkpoint before the one before its newest or to its first, and goes on from there. */
async function rollBackOne(): Promise<void> {
  const sandbox = sandboxes[next(sandboxes.length)]!;
  const { name } = sandbox;
  const target = next(4) === 0 ? startOf(name) : `${name}~2`;
  if (sandbox.busy || sandbox.history.length >= longestHistory) return;
  sandbox.busy = true;
  // What is in flight moves the head of the branch, from which `~2` counts.
  await sandbox.settled();
  if ((await host.store.find(target)) !== undefined) {
    tell({ event: 'rollingBack', name, target });
    await sandbox.rollBack(target);
    tell({ event: 'rolledBack', name, history: sandbox.history, digest: sandbox.digest });
    sandbox.part(++salt);
  }
  sandbox.busy = false;
}

/** A checkpoint becomes the head of a new branch, and a new instance begins there. The one it was taken of goes on undisturbed. */
async function forkOne(): Promise<void> {
  const from = sandboxes[next(sandboxes.length)]!.name;
  if (forking || forks >= mostForks) return;
  forking = true;
  const target = await host.store.find(`${from}~1`);
  const { history } = (target?.metadata ?? { history: [] }) as Metadata;
  if (target !== undefined && history.length < longestHistory) {
    const name = forkName(forks);
    tell({ event: 'forking', name, from, history });
    await host.store.fork(target.id, name);
    tell({ event: 'forked', name });
    forks++;
    const fork = await open(name, 0);
    fork.part(++salt);
    sandboxes.push(fork);
  }
  forking = false;
}

function begin(errand: Promise<void>): void {
  errands.add(errand);
  // One that fails ends the program.
  void errand.then(() => errands.delete(errand));
}

async function newestId(): Promise<number> {
  for await (const { id } of host.store.checkpoints({ reverse: true, limit: 1 })) return id;
  return 0;
}

function usage() {
  const status = readFileSync('/proc/self/status', 'utf8');
  const number = (key: string) => Number(new RegExp(`^${key}:\\s*(\\d+)`, 'm').exec(status)?.[1]);
  return {
    sandboxes: sandboxes.length,
    regionBytes: sandboxes.reduce((sum, { byteLength }) => sum + byteLength, 0),
    residentBytes: number('VmRSS') * 1024,
    threads: number('Threads'),
  };
}

/** Into the pipe at once: what is in there is read even when this process is no more. */
function tell(...said: Said[]): void {
  if (said.length > 0) writeSync(1, said.map((one) => `${JSON.stringify(one)}\n`).join(''));
}
