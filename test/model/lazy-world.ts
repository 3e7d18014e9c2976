import assert from 'node:assert/strict';
import { type Checkpoint, Checkpointer, CheckpointStore, type Restoration } from '../../lib/index.js';
import { content, NAMES, type Name, type Pages, Part, type Pick } from './lazy-memory.js';
import { endOnce, engineOf, KINDS, type Kind, startHelpers } from './lazy-threads.js';
import { PAGE, random } from './model.js';
import { ProgramMemory, type Trace } from './program-memory.js';

/** What calls may fail with, where there are fault points. */
const FAULTY = new Set(['TIDEMARK_WRITE_FAILED', 'TIDEMARK_DAMAGED']);

/** A store with one branch, whose checkpoints are restored lazily again and again, beside a plain model. */
export class LazyWorld {
  readonly #path: string;
  readonly #pick: Pick;
  readonly #trace: Trace;
  readonly #states = new Map<number, ReadonlyMap<Name, Pages>>();
  readonly #kinds: Kind[];
  readonly #memory: ProgramMemory;
  #kind!: Kind;
  #store!: CheckpointStore;
  #checkpointer!: Checkpointer<Name>;
  #restoration: Restoration | undefined;
  #inFlight: Promise<void>[] = [];
  /** How often things happened: that anything was tried shows here. */
  readonly counts = {
    restores: 0,
    faults: 0,
    ahead: 0,
    byFault: 0,
    missingAtCheckpoint: 0,
    failed: 0,
    deltas: 0,
    drops: 0,
    grown: 0,
  };

  constructor(path: string, seed: number, trace: Trace) {
    this.#path = path;
    this.#pick = random(seed);
    for (let k = 0; k < 8; k++) this.#pick(2);
    this.#trace = trace;
    // Two of them, one after the other, are enough at a time.
    this.#kinds = [KINDS[this.#pick(KINDS.length)]!, KINDS[this.#pick(KINDS.length)]!];
    this.#memory = new ProgramMemory(path, this.#pick, trace, this.counts);
  }

  async run(rounds: number): Promise<void> {
    startHelpers();
    this.#trace.begin('the first checkpoints');
    this.#renew();
    await this.#openStore();
    for (let k = 3 + this.#pick(4); k > 0; k--) {
      for (let times = 10 + this.#pick(10); times > 0; times--) this.#memory.write();
      if (k % 3 === 0)
        for (const part of this.#memory.parts.values())
          part.write(0, content(part.byteLength - this.#pick(part.byteLength), this.#pick));
      await this.#checkpoint(true);
    }
    for (let tries = 5; this.#states.size === 0 && tries > 0; tries--) await this.#checkpoint(true);
    for (let round = 0; round < rounds; round++) await this.#round(round);
    await this.#finish();
  }

  async release(): Promise<void> {
    for (const kind of this.#kinds) await endOnce(kind);
    this.#memory.release();
  }

  async #round(number: number): Promise<void> {
    const pick = this.#pick;
    this.#trace.begin(`round ${number}, ${this.#kind.options.workers} workers`);
    if (pick(3) === 0) await this.#anew();
    await this.#restore(true);
    for (let steps = 4 + pick(16); steps > 0; steps--) await this.#step();
    await this.#settle();
    await this.#resident();
    this.#checkAll('at the end of the round');
    if (pick(2) === 0) await this.#checkExact();
  }

  /** Fresh memory, or memory that holds something else. */
  async #anew(): Promise<void> {
    this.#trace.add('anew');
    await this.#settle();
    this.#letFill();
    await this.#close();
    for (const { region } of this.#memory.parts.values()) region.close();
    this.#renew();
    // What was written before it grew and after that is in mappings of its own.
    if (this.#pick(2) === 0)
      for (let times = this.#pick(16); times > 0; times--) this.#pick(4) === 0 ? this.#memory.grow() : this.#memory.write();
    await this.#open();
  }

  #renew(): void {
    this.#memory.parts = new Map(NAMES.map((name) => [name, new Part(name, this.#pick)]));
  }

  async #openStore(): Promise<void> {
    this.#kind = this.#kinds[this.#pick(2)]!;
    const engine = await engineOf(this.#kind, this.#pick);
    this.#store = await this.#insist(() => CheckpointStore.open(this.#path, { createIfMissing: true, engine }));
    await this.#open();
  }

  async #open(): Promise<void> {
    const regions = Object.fromEntries([...this.#memory.parts].map(([name, { region }]) => [name, region])) as Record<
      Name,
      Part['region']
    >;
    const deltas = this.#pick(4) > 0;
    this.#checkpointer = await this.#insist(() => Checkpointer.open<Name>(this.#store, { regions, deltas }));
    this.#restoration = undefined;
  }

  async #close(): Promise<void> {
    await this.#checkpointer.close();
    if (this.#restoration !== undefined) await this.#restoration.done;
    this.#noteStats();
  }

  async #step(): Promise<void> {
    const pick = this.#pick;
    const what = pick(40);
    if (what < 9) return this.#memory.read();
    if (what < 18) return this.#memory.write();
    if (what < 21) return this.#memory.drop();
    if (what < 23) return this.#memory.grow();
    if (what < 27) return this.#checkpoint(pick(2) === 0);
    if (what < 30) return this.#memory.fileWrite();
    if (what < 32) return this.#memory.fileRead();
    if (what < 34) return this.#memory.helped();
    if (what < 36) return this.#ensure();
    if (what === 36) return this.#restore(pick(2) === 0);
    if (what === 37 && pick(2) === 0) return this.#reopen();
    if (what === 38) return this.#precopy();
    this.#trace.add('wait');
    await new Promise((resolve) => (pick(2) === 0 ? setImmediate(resolve) : setTimeout(resolve, pick(4))));
  }

  async #checkpoint(wait: boolean): Promise<void> {
    const pick = this.#pick;
    if (this.#restoration !== undefined) this.counts.missingAtCheckpoint += this.#missing();
    const controller = new AbortController();
    const abort = pick(8) === 0;
    const regions = new Map([...this.#memory.parts.values()].map((part) => [part.name, part.pages]));
    const touched = new Map([...this.#memory.parts.values()].map((part) => [part, part.touched]));
    this.#trace.add(`checkpoint${wait ? '' : ' in flight'}${abort ? ' aborted' : ''}`);
    const taken = this.#checkpointer.checkpoint({
      durability: pick(6) === 0 ? 'sync' : 'relaxed',
      signal: controller.signal,
    });
    for (const part of touched.keys()) part.touched = new Set();
    if (abort) setImmediate(() => controller.abort());
    const noted = taken.then(
      (checkpoint) => this.#taken(checkpoint, regions, touched),
      (error) => {
        this.#expectFailure(error);
        for (const [part, before] of touched)
          part.touched = before === undefined || part.touched === undefined ? undefined : new Set([...before, ...part.touched]);
      },
    );
    // Held back: nobody looks at what went wrong until it is awaited.
    noted.catch(() => {});
    this.#inFlight.push(noted);
    if (wait || this.#inFlight.length > 3) await this.#settle();
  }

  #taken(checkpoint: Checkpoint, regions: ReadonlyMap<Name, Pages>, touched: ReadonlyMap<Part, Set<number> | undefined>): void {
    assert.ok(!this.#states.has(checkpoint.id), `id ${checkpoint.id} was given out twice`);
    this.#states.set(checkpoint.id, regions);
    for (const [{ name }, before] of touched) {
      const { byteLength, deltaPages } = checkpoint.regions[name]!;
      assert.equal(byteLength, regions.get(name)!.length * PAGE, `length of ${name} in checkpoint ${checkpoint.id}`);
      this.counts.deltas += deltaPages;
      const stored = reported(checkpoint, name);
      if (before !== undefined)
        assert.ok(
          stored <= before.size,
          `checkpoint ${checkpoint.id} has ${stored} pages of ${name}, ${before.size} were touched`,
        );
    }
  }

  async #settle(): Promise<void> {
    for (const one of this.#inFlight.splice(0)) await one;
  }

  async #precopy(): Promise<void> {
    this.#trace.add('precopy');
    const ahead = this.#checkpointer.precopy().catch((error) => this.#expectFailure(error));
    this.#memory.write();
    await ahead;
  }

  async #ensure(): Promise<void> {
    const { part, first, count } = this.#memory.range(200);
    this.#trace.add(`ensure ${part.name} ${first}+${count}`);
    if (this.#restoration === undefined) return;
    const restored = this.#restored.get(part.name) ?? 0;
    if (first + count > restored) return;
    const [at, length] = [first * PAGE, count * PAGE];
    await this.#restoration.ensureResident(part.name, at, length);
    part.check('ensured', first, count);
  }

  /** Pages that the regions of the last restore had then. */
  #restored = new Map<Name, number>();

  /** Restores any checkpoint, as a whole or a region of it; what cannot be restored is as it was, or torn and restored again. */
  async #restore(lazy: boolean): Promise<void> {
    const pick = this.#pick;
    await this.#settle();
    this.#letFill();
    const ids = [...this.#states.keys()];
    const id = ids[pick(3) === 0 ? ids.length - 1 : pick(ids.length)]!;
    const regions = this.#checkpointer.base !== undefined && pick(8) === 0 ? [NAMES[pick(NAMES.length)]!] : undefined;
    this.#trace.add(`restore ${id} ${lazy ? 'lazily' : 'eagerly'} ${regions?.join() ?? ''}`);
    this.#noteStats();
    let isTorn = false;
    for (let tries = 8; ; tries--) {
      try {
        this.#restoration = await this.#checkpointer.restore(id, regions === undefined ? { lazy } : { lazy, regions });
        break;
      } catch (error) {
        const { code } = error as { code?: string };
        isTorn ||= code === 'TIDEMARK_REGION_TORN';
        if (code !== 'TIDEMARK_REGION_TORN') this.#expectFailure(error as { code?: string });
        // What grew for it is longer.
        for (const part of this.#memory.parts.values()) part.follow();
        if (!isTorn) this.#checkAll(`a restore that failed: ${code}`);
        assert.ok(tries > 1, `checkpoint ${id} cannot be restored: ${error}`);
      }
    }
    this.counts.restores++;
    const state = this.#states.get(id)!;
    for (const [name, part] of this.#memory.parts) {
      if (regions === undefined || regions.includes(name)) part.become(state.get(name)!);
      else part.touched = undefined;
    }
    this.#restored = new Map((regions ?? NAMES).map((name) => [name, this.#memory.parts.get(name)!.pages.length]));
    if (!lazy) this.#checkAll(`restored ${id}`);
  }

  async #reopen(): Promise<void> {
    this.#trace.add('close and open');
    await this.#settle();
    this.#letFill();
    const whole = this.#checkpointer.base;
    await this.#close();
    await this.#store.close();
    await this.#openStore();
    const { base } = this.#checkpointer;
    if (base !== undefined) assert.equal(base.id, whole?.id);
    // Not all regions descend from one checkpoint.
    else await this.#restore(this.#pick(2) === 0);
  }

  /** Those that wait for it to be filled are not to wait for ever. */
  #letFill(): void {
    if (this.#restoration === undefined || !this.#kind.held) return;
    const [name] = this.#restored.keys();
    this.#restoration.ensureResident(name!, 0, PAGE).catch(() => {});
  }

  async #resident(): Promise<void> {
    this.#letFill();
    await this.#restoration?.done;
    if (this.#restoration !== undefined) assert.equal(this.#missing(), 0);
  }

  #missing(): number {
    return this.#restoration?.stats().lazy?.missingPages ?? 0;
  }

  #noteStats(): void {
    const lazy = this.#restoration?.stats().lazy;
    if (lazy === undefined) return;
    assert.equal(lazy.poisonedPages, 0);
    this.counts.faults += lazy.faults;
    this.counts.ahead += lazy.filledAhead;
    this.counts.byFault += lazy.filledByFault;
  }

  /** After a quiet checkpoint, touching some pages makes one of exactly these. */
  async #checkExact(): Promise<void> {
    const pick = this.#pick;
    this.#trace.add('exact');
    const quiet = await this.#insist(() => this.#checkpointer.checkpoint({ durability: 'relaxed' }));
    this.#taken(quiet, this.#state(), new Map());
    const idle = await this.#insist(() => this.#checkpointer.checkpoint({ durability: 'relaxed' }));
    this.#taken(idle, this.#state(), new Map());
    for (const name of NAMES) assert.equal(reported(idle, name), 0, `pages of ${name} though nothing was touched`);
    const touched = new Map<Name, Set<number>>();
    for (const part of this.#memory.parts.values()) {
      const pages = new Set(Array.from({ length: pick(12) }, () => pick(part.pages.length)));
      for (const page of pages) part.edit(page, pick);
      touched.set(part.name, pages);
    }
    const exact = await this.#insist(() => this.#checkpointer.checkpoint({ durability: 'relaxed' }));
    this.#taken(exact, this.#state(), new Map());
    for (const [name, pages] of touched) assert.equal(reported(exact, name), pages.size, `pages of ${name} after a restore`);
    for (const part of this.#memory.parts.values()) part.touched = new Set();
  }

  #state(): ReadonlyMap<Name, Pages> {
    return new Map([...this.#memory.parts.values()].map((part) => [part.name, part.pages]));
  }

  #checkAll(what: string): void {
    for (const part of this.#memory.parts.values()) part.check(what);
  }

  async #finish(): Promise<void> {
    this.#trace.begin('the end');
    this.#noteStats();
    this.#restoration = undefined;
    const listed: number[] = [];
    await this.#insist(() => this.#store.find('main'));
    for await (const { id } of this.#store.checkpoints()) listed.push(id);
    assert.deepEqual(
      listed,
      [...this.#states.keys()].sort((a, b) => a - b),
    );
    for (let k = 0; k < 5; k++) {
      const id = listed[this.#pick(listed.length)]!;
      const snapshot = await this.#store.at(id);
      for (const [name, pages] of this.#states.get(id)!)
        assert.ok(Buffer.concat(pages).equals(await snapshot.read(name, 0, pages.length * PAGE)), `checkpoint ${id}: ${name}`);
      await snapshot.close();
    }
    assert.deepEqual((await this.#store.verify({ readData: true })).problems, []);
    await this.#close();
    await this.#store.close();
  }

  #expectFailure(error: { code?: string }): void {
    // What was called before it may have been aborted.
    if (error.code === 'TIDEMARK_ABORTED') return;
    if (this.#kind.faults === undefined || !FAULTY.has(error.code ?? '')) throw error;
    this.counts.failed++;
  }

  /** What has to succeed in the end. */
  async #insist<T>(call: () => Promise<T>, tries = 5): Promise<T> {
    try {
      return await call();
    } catch (error) {
      this.#expectFailure(error as { code?: string });
      if (tries === 1) throw error;
      return this.#insist(call, tries - 1);
    }
  }
}

/** Pages of a region that a checkpoint was told of by the kernel. */
function reported({ regions }: Checkpoint, name: Name): number {
  const { pages, zeroPages, unchangedPages } = regions[name]!;
  return pages + zeroPages + unchangedPages;
}
