/**
 * Opens a store after a crash, in a process of its own: verifies it, compares every checkpoint byte for byte with what the model says,
 * restores each branch, takes one more checkpoint of it and reads that too. Prints its findings.
 */
import { type Checkpoint, Checkpointer, CheckpointStore, Engine, Region } from '../../../lib/index.js';
import { attachmentOf, type History, PAGE, type Plan, STEPS_OF_A_LIFE, State, writePage } from './model.js';
import type { Findings, ReaderOptions } from './protocol.js';

const options = JSON.parse(process.argv[2]!) as ReaderOptions;
const findings: Findings = { checkpoints: [], problems: [] };

const historyOf = ({ metadata }: Checkpoint): History => (metadata as { history: History }).history;

async function compare(store: CheckpointStore, checkpoint: Checkpoint, state: State): Promise<void> {
  state.become(historyOf(checkpoint));
  const snapshot = await store.at(checkpoint.id);
  let page = 0;
  try {
    for await (const bytes of snapshot.stream('memory')) {
      const wrong = state.firstDifference(bytes, page);
      if (wrong >= 0) {
        findings.problems.push(`checkpoint ${checkpoint.id}: page ${wrong} is not what was written`);
        break;
      }
      page += bytes.length / PAGE;
    }
    const { note } = checkpoint.metadata as { note?: number };
    if (note !== undefined && Buffer.compare(await snapshot.attachment('note'), attachmentOf(state.plan, note)) !== 0)
      findings.problems.push(`checkpoint ${checkpoint.id}: its attachment is not what was stored`);
  } finally {
    await snapshot.close();
  }
}

/** Restores a branch, goes on with it, and reads what that has stored. */
async function goOn(store: CheckpointStore, branch: string, plan: Plan, engine: Engine): Promise<void> {
  const region = Region.allocate(plan.pages * PAGE);
  const memory = new Uint8Array(region.buffer, 0, region.byteLength);
  const state = new State(plan);
  const checkpointer = await Checkpointer.open(store, { regions: { memory: region }, branch, engine });
  try {
    if (checkpointer.head !== undefined) {
      const { checkpoint } = await checkpointer.restore();
      state.become(historyOf(checkpoint));
      const wrong = state.firstDifference(memory);
      if (wrong >= 0) findings.problems.push(`branch ${branch}: page ${wrong} was not restored`);
    }
    const step = options.life * STEPS_OF_A_LIFE;
    for (const page of state.apply(step)) writePage(plan, page, step, memory, page * PAGE);
    const next = await checkpointer.checkpoint({ metadata: { plan, history: state.history } as never });
    await compare(store, next, state);
  } finally {
    await checkpointer.close();
  }
}

async function problemsOf(store: CheckpointStore): Promise<void> {
  const { problems } = await store.verify();
  for (const { code, message, checkpoint } of problems)
    findings.problems.push(`verify: checkpoint ${checkpoint}: ${code}: ${message}`);
}

const engine = new Engine({ workers: 2, maxStagingBytes: 48 << 20 });
try {
  const store = await CheckpointStore.open(options.store, { createIfMissing: true, engine });
  try {
    await problemsOf(store);
    const states = new Map(Object.entries(options.branches).map(([name, plan]) => [name, new State(plan)]));
    for await (const checkpoint of store.checkpoints()) {
      const { id, uid, branch, parent, durable } = checkpoint;
      findings.checkpoints.push({ id, uid, branch, parent, step: historyOf(checkpoint).at(-1)![1], durable });
      if (id > (options.seen ?? 0) || id % 8 === 0) await compare(store, checkpoint, states.get(branch)!);
    }
    for (const [branch, plan] of Object.entries(options.branches)) await goOn(store, branch, plan, engine);
    await problemsOf(store);
  } finally {
    await store.close();
  }
} catch (error) {
  findings.error = error instanceof Error ? `${error.stack}; ${String(error.cause)}` : String(error);
  findings.code = String((error as { code?: unknown }).code);
}
process.stdout.write(JSON.stringify(findings));
await engine.close();
