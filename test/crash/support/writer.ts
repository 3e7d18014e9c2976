/**
 * A program that takes checkpoints as fast as it can, for the crash tests to kill, starve and lie to. It restores the newest checkpoint
 * of each of its branches, goes on from there, and prints what was acknowledged, a JSON object a line, to a pipe.
 */
import { writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Checkpoint, Checkpointer, CheckpointStore, Engine, Region, TidemarkError } from '../../../lib/index.js';
import { attachmentOf, type History, mix, PAGE, type Plan, pagesOf, random, STEPS_OF_A_LIFE, State, writePage } from './model.js';
import type { WriterEvent, WriterOptions } from './protocol.js';

const options = JSON.parse(process.argv[2]!) as WriterOptions;

// Tests that are killed leave nothing running.
const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent) process.exit(3);
}, 500).unref();

function say(event: WriterEvent): void {
  const line = Buffer.from(`${JSON.stringify(event)}\n`);
  for (let at = 0; at < line.length; ) {
    try {
      at += writeSync(1, line, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
  }
}

class Branch {
  readonly name: string;
  readonly state: State;
  readonly #memory: Uint8Array;
  readonly #checkpointer: Checkpointer<'memory'>;
  readonly #random: (below: number) => number;
  /** What is used where a call says nothing. */
  readonly #own: 'sync' | 'relaxed';
  /** The step of which precopy() has been given a part. */
  #begun = 0;
  readonly #acknowledgedUids = new Set<string>();
  #step = options.life * STEPS_OF_A_LIFE;

  private constructor(name: string, plan: Plan, region: Region, checkpointer: Checkpointer<'memory'>, own: 'sync' | 'relaxed') {
    this.name = name;
    this.state = new State(plan);
    this.#memory = new Uint8Array(region.buffer, 0, region.byteLength);
    this.#checkpointer = checkpointer;
    this.#own = own;
    this.#random = random(mix(plan.seed, options.life, 77));
  }

  static async open(store: CheckpointStore, name: string, plan: Plan, engine: Engine): Promise<Branch> {
    const region = Region.allocate(plan.pages * PAGE);
    const own = options.everything === true && mix(plan.seed, options.life) % 2 === 0 ? 'relaxed' : 'sync';
    const checkpointer = await Checkpointer.open(store, { regions: { memory: region }, branch: name, engine, durability: own });
    const branch = new Branch(name, plan, region, checkpointer, own);
    if (checkpointer.head !== undefined) {
      const { checkpoint } = await checkpointer.restore();
      branch.state.become((checkpoint.metadata as { history: History }).history);
      branch.checkMemory('after the restore');
    }
    return branch;
  }

  checkMemory(when: string): void {
    if (this.#begun > this.#step) {
      // Not to come any more.
      for (const page of pagesOf(this.state.plan, this.#begun))
        writePage(this.state.plan, page, this.state.lastStep[page]!, this.#memory, page * PAGE);
    }
    const page = this.state.firstDifference(this.#memory);
    if (page >= 0) say({ event: 'wrong', message: `branch ${this.name}: page ${page} of the memory is wrong ${when}` });
  }

  /** Writes the next step and calls checkpoint(); resolves to whether it was acknowledged. */
  step(): Promise<boolean> {
    const step = ++this.#step;
    const pages = this.state.apply(step);
    // Half of it has been written already.
    const from = this.#begun === step ? pages.length >> 1 : 0;
    for (const page of pages.slice(from)) writePage(this.state.plan, page, step, this.#memory, page * PAGE);
    say({ event: 'called', branch: this.name, step });
    return this.#take(step, false);
  }

  /** Writes half of the next step and has it taken ahead. */
  async ahead(): Promise<void> {
    const step = this.#step + 1;
    const pages = pagesOf(this.state.plan, step);
    for (const page of pages.slice(0, pages.length >> 1)) writePage(this.state.plan, page, step, this.#memory, page * PAGE);
    this.#begun = step;
    try {
      await this.#checkpointer.precopy();
    } catch (error) {
      this.#failed(error, step);
    }
  }

  /** Nothing was written since the last step, unless that has failed meanwhile. */
  again(): Promise<boolean> {
    return this.#begun > this.#step ? Promise.resolve(true) : this.#take(this.#step, true);
  }

  async #take(step: number, ifChanged: boolean): Promise<boolean> {
    const { plan, history } = this.state;
    const mixed = this.#random(options.syncOneIn ?? 3) === 0 ? 'sync' : 'relaxed';
    const drawn = options.durability === 'mixed' ? mixed : options.durability;
    // Left to the checkpointer where that would do the same.
    const left = options.everything === true && drawn === this.#own;
    const note = Math.floor(step / 3);
    const more = options.everything === true ? { ifChanged, attachments: { note: attachmentOf(plan, note) } } : {};
    try {
      const checkpoint = await this.#checkpointer.checkpoint({
        ...(left ? {} : { durability: drawn }),
        ...more,
        metadata: { plan, history, ...(options.everything === true ? { note } : {}) } as never,
      });
      this.#acknowledged(checkpoint, step, drawn === 'sync');
      return true;
    } catch (error) {
      this.#failed(error, step);
      return false;
    }
  }

  /** What the store says of the newest checkpoints of the branch. */
  async ask(store: CheckpointStore): Promise<void> {
    try {
      const newest = await store.find({ branch: this.name });
      if (newest?.durable) say({ event: 'durable', branch: this.name, uid: newest.uid, id: newest.id });
      for await (const { durable, uid, id } of store.checkpoints({ branch: this.name, reverse: true, limit: 4 }))
        if (durable) say({ event: 'durable', branch: this.name, uid, id });
    } catch (error) {
      this.#failed(error, this.#step);
    }
  }

  async flush(): Promise<void> {
    try {
      const newest = await this.#checkpointer.flush();
      if (newest?.durable === false) say({ event: 'wrong', message: `checkpoint ${newest.id} was flushed, but is not durable` });
      say({ event: 'flushed', branch: this.name, id: newest?.id ?? 0 });
    } catch (error) {
      this.#failed(error, 0);
    }
  }

  close(): Promise<void> {
    return this.#checkpointer.close();
  }

  #acknowledged({ id, uid, parent, durable }: Checkpoint, step: number, sync: boolean): void {
    if (sync && !durable) say({ event: 'wrong', message: `checkpoint ${id} was acknowledged as synced, but is not durable` });
    // An `ifChanged` that found nothing gives the one before.
    if (!this.#acknowledgedUids.has(uid)) say({ event: 'acknowledged', branch: this.name, step, id, uid, parent, sync, durable });
    else if (durable) say({ event: 'durable', branch: this.name, uid, id });
    this.#acknowledgedUids.add(uid);
  }

  #failed(error: unknown, step: number): void {
    const { code, message } = describe(error);
    say({ event: 'failed', branch: this.name, step, code, message });
  }
}

function describe(error: unknown): { code: string; message: string } {
  if (error instanceof TidemarkError) return { code: error.code, message: `${error.message}; ${String(error.cause)}` };
  return { code: 'none', message: error instanceof Error ? `${error.stack}` : String(error) };
}

/** A store that cannot be opened is tried again: errors may go away. */
async function openAll(engine: Engine): Promise<{ store: CheckpointStore; branches: Branch[] } | undefined> {
  for (let attempt = 0; ; attempt++) {
    let store: CheckpointStore | undefined;
    try {
      store = await CheckpointStore.open(options.store, { createIfMissing: true, engine });
      const branches: Branch[] = [];
      for (const [name, plan] of Object.entries(options.branches)) branches.push(await Branch.open(store, name, plan, engine));
      return { store, branches };
    } catch (error) {
      say({ event: 'open-failed', ...describe(error) });
      await store?.close();
      if (attempt >= (options.openRetries ?? 0)) return undefined;
      await sleep(5);
    }
  }
}

process.on('unhandledRejection', (error) => {
  say({ event: 'wrong', message: `unhandled rejection: ${describe(error).message}` });
});

const engine = new Engine({ workers: 2, maxStagingBytes: 48 << 20 });
const opened = await openAll(engine);
if (opened !== undefined) {
  const { store, branches } = opened;
  say({ event: 'ready' });
  const next = random(mix(options.life, 5));
  const inFlight = new Set<Promise<void>>();
  let failures = 0;
  let waited = false;
  for (let k = 0; k < options.steps && failures < (options.maxFailures ?? 1e9); k++) {
    for (const branch of branches) {
      const one = branch.step().then((stored) => {
        inFlight.delete(one);
        if (!stored) failures++;
      });
      inFlight.add(one);
    }
    while (inFlight.size >= options.overlap) await Promise.race(inFlight);
    if (options.everything === true) {
      const branch = branches[next(branches.length)]!;
      const what = next(5);
      if (what === 0) await branch.ahead();
      if (what === 1 && !(await branch.again())) failures++;
      if (what === 2) await branch.ask(store);
    }
    if (options.flushes === true && next(6) === 0) await branches[next(branches.length)]!.flush();
    if (!waited && failures >= (options.waitAfterFailures ?? 1e9)) {
      // Nothing more is tried until whoever started this has made room.
      waited = true;
      await Promise.all(inFlight);
      for (const branch of branches) branch.checkMemory('after a failed checkpoint');
      const told = new Promise((resolve) => process.once('SIGUSR2', resolve));
      say({ event: 'waiting' });
      const keepAlive = setInterval(() => {}, 1000);
      await told;
      clearInterval(keepAlive);
      k = options.steps - 4;
    }
  }
  await Promise.all(inFlight);
  for (const branch of branches) branch.checkMemory('at the end');
  say({ event: 'done' });
  if (options.end === 'stay') setInterval(() => {}, 1000);
  else {
    if (options.end === 'close') {
      for (const branch of branches) await branch.close();
      await store.close();
      say({ event: 'closed' });
    }
    if (options.end === 'kill') process.kill(process.pid, 'SIGKILL');
    await engine.close();
  }
} else {
  await engine.close();
}
