import assert from 'node:assert/strict';
import { Buffer } from 'node:buffer';
import { type Checkpoint, Checkpointer, type CheckpointOptions, CheckpointStore, type Engine, Region } from '../../lib/index.js';

export const PAGE = 4096;

/** A region as it must be, a buffer a page. Buffers are never changed, so a state is a list of references. */
type Pages = readonly Buffer[];

/** What a checkpoint must hold. */
interface State {
  branch: string;
  parent: number | null;
  regions: ReadonlyMap<string, Pages>;
  attachments: ReadonlyMap<string, Buffer>;
}

interface Member {
  region: Region;
  pages: Pages;
  /** Pages written, or changed by nobody knows what, since the base: undefined where all may be stored. */
  touched: Set<number> | undefined;
}

/** Memory on a branch, with the checkpointer that stores it. */
export class Machine {
  readonly branch: string;
  readonly members = new Map<string, Member>();
  checkpointer!: Checkpointer<string>;
  base: number | null = null;

  constructor(branch: string) {
    this.branch = branch;
  }

  add(name: string, pageCount: number): void {
    const region = Region.allocate(pageCount * PAGE);
    this.members.set(name, { region, pages: new Array<Buffer>(pageCount).fill(ZERO), touched: undefined });
  }

  async open(world: World, deltas: boolean): Promise<void> {
    const regions = Object.fromEntries([...this.members].map(([name, { region }]) => [name, region]));
    const options = { regions, branch: this.branch, deltas };
    this.checkpointer = await world.insist(() => Checkpointer.open<string>(world.store, options));
  }

  write(pick: (below: number) => number): void {
    const members = [...this.members.values()];
    const member = members[pick(members.length)]!;
    const bytes = new Uint8Array(member.region.buffer);
    const pages = [...member.pages];
    for (let times = 4 + pick(12); times > 0; times--) {
      // Some pages are written again and again.
      const page = pick(pick(3) === 0 ? pages.length : Math.min(pages.length, 8));
      const content = Buffer.from(pages[page]!);
      const kind = pick(12);
      if (kind < 3) content.fill(kind === 0 ? pick(256) : 0);
      else if (kind === 3) for (let at = 0; at < PAGE; at += 4) content.writeUInt32LE(pick(2 ** 31), at);
      // Kind 4: what it held.
      else if (kind > 4) content.writeUInt32LE(pick(2 ** 31), pick(PAGE - 4));
      bytes.set(content, page * PAGE);
      pages[page] = content;
      member.touched?.add(page);
    }
    member.pages = pages;
  }

  check(what: string): void {
    for (const [name, { region, pages }] of this.members)
      compare(new Uint8Array(region.buffer), pages, `${what}: ${this.branch}/${name}`);
  }
}

const ZERO = Buffer.alloc(PAGE);

function compare(bytes: Uint8Array, pages: Pages, what: string): void {
  assert.equal(bytes.length, pages.length * PAGE, `${what}: length`);
  for (const [page, expected] of pages.entries())
    if (!expected.equals(bytes.subarray(page * PAGE, (page + 1) * PAGE))) assert.fail(`${what}: page ${page} is wrong`);
}

/** Codes with which a checkpoint may fail without anything being wrong: the world does such things. */
const EXPECTED = new Set(['TIDEMARK_ABORTED', 'TIDEMARK_NAME_TAKEN']);
/** With fault points. */
const FAULTY = new Set(['TIDEMARK_WRITE_FAILED', 'TIDEMARK_STALLED', 'TIDEMARK_TRACKING_LOST']);

/** A store with machines on its branches, beside a plain model of everything that was acknowledged. */
export class World {
  readonly path: string;
  readonly engine: Engine;
  readonly pick: (below: number) => number;
  readonly states = new Map<number, State>();
  readonly labels = new Map<string, number>();
  readonly heads = new Map<string, number>();
  readonly machines: Machine[] = [];
  readonly #faults: boolean;
  store!: CheckpointStore;
  /** How often a fault point made a call fail. */
  faulted = 0;
  /** Pages that were stored as deltas. */
  deltas = 0;
  #names = 0;

  constructor(path: string, engine: Engine, pick: (below: number) => number, faults: boolean) {
    this.path = path;
    this.engine = engine;
    this.pick = pick;
    this.#faults = faults;
  }

  /** Now and then a machine goes without deltas. */
  async open(): Promise<void> {
    // What was left in the log is removed, and that may be what fails.
    this.store = await this.insist(() => CheckpointStore.open(this.path, { createIfMissing: true, engine: this.engine }));
    for (const machine of this.machines) await machine.open(this, this.pick(5) > 0);
  }

  async close(): Promise<void> {
    for (const { checkpointer } of this.machines) await checkpointer.close();
    await this.store.close();
  }

  machine(): Machine {
    return this.machines[this.pick(this.machines.length)]!;
  }

  anyId(): number | undefined {
    const ids = [...this.states.keys()];
    return ids.length === 0 ? undefined : ids[this.pick(ids.length)]!;
  }

  newName(kind: string): string {
    return `${kind}-${++this.#names}`;
  }

  /** Calls `checkpoint`, and enters what it resolves with as it was at the call. */
  async checkpoint(machine: Machine, options: CheckpointOptions<string> = {}): Promise<Checkpoint | undefined> {
    const { branch, members } = machine;
    const regions = new Map([...members].map(([name, { pages }]) => [name, pages]));
    const given = Object.entries(options.attachments ?? {}).map(([name, bytes]) => [name, Buffer.from(bytes)] as const);
    const touched = new Map([...members].map(([name, { touched }]) => [name, touched]));
    const promise = machine.checkpointer.checkpoint(options);
    // Captured: what is written from here on is the next one's.
    for (const member of members.values()) member.touched = new Set();
    const outcome = await promise.catch((error) => error as { code?: string });
    if (!('id' in outcome)) {
      this.expectFailure(outcome);
      for (const [name, member] of members) {
        const before = touched.get(name);
        member.touched =
          before === undefined || member.touched === undefined ? undefined : new Set([...member.touched, ...before]);
      }
      return undefined;
    }
    if (options.ifChanged === true && this.states.has(outcome.id)) return outcome;
    assert.ok(!this.states.has(outcome.id), `id ${outcome.id} was given out twice`);
    this.states.set(outcome.id, { branch, parent: outcome.parent, regions, attachments: new Map(given) });
    this.heads.set(branch, outcome.id);
    if (options.label !== undefined) this.labels.set(options.label, outcome.id);
    machine.base = outcome.id;
    for (const [name, region] of Object.entries(outcome.regions)) {
      const stored = region.pages + region.zeroPages;
      this.deltas += region.deltaPages;
      const most = touched.get(name)?.size;
      if (most !== undefined)
        assert.ok(stored <= most, `checkpoint ${outcome.id} stored ${stored} pages of ${name}, ${most} were touched`);
    }
    return outcome;
  }

  expectFailure(error: { code?: string }): void {
    if (!EXPECTED.has(error.code ?? '') && !(this.#faults && FAULTY.has(error.code ?? ''))) throw error;
    if (FAULTY.has(error.code ?? '')) this.faulted++;
  }

  /**
   * What has to succeed in the end. After a rejected write every call that needs the store tries to open the log again, and fails when that
   * fails: as often as the fault points say, whichever calls these are.
   */
  async insist<T>(call: () => Promise<T>, tries = 5): Promise<T> {
    try {
      return await call();
    } catch (error) {
      this.expectFailure(error as { code?: string });
      if (tries === 1 || !FAULTY.has((error as { code: string }).code)) throw error;
      return this.insist(call, tries - 1);
    }
  }

  /** Restores a checkpoint, or the regions of it that both have. @returns false when a fault point made it fail */
  async restore(machine: Machine, id: number): Promise<boolean> {
    const state = this.states.get(id)!;
    const common = [...machine.members]
      .filter(([name, { pages }]) => state.regions.get(name)?.length === pages.length)
      .map(([name]) => name);
    if (common.length === 0) return true;
    const all = common.length === machine.members.size && common.length === state.regions.size;
    const asked = all && this.pick(3) > 0 ? common : common.slice(0, 1 + this.pick(common.length));
    const options = asked.length === machine.members.size && all ? {} : { regions: asked };
    const restoration = await machine.checkpointer.restore(id, options).catch((error) => this.expectFailure(error));
    if (restoration === undefined) {
      machine.check(`a restore of ${id} that failed`);
      return false;
    }
    machine.base = id;
    for (const [name, member] of machine.members) {
      if (asked.includes(name)) Object.assign(member, { pages: state.regions.get(name)!, touched: new Set() });
      else member.touched = undefined;
    }
    machine.check(`restored ${id}`);
    for (const [name, bytes] of state.attachments)
      assert.ok(bytes.equals(await this.insist(() => restoration.attachment(name))), `attachment ${name} of ${id}`);
    return true;
  }

  /** Restores fresh memory: what is not restored has no checkpoints. */
  async begin(machine: Machine, id: number): Promise<void> {
    for (let tries = 5; !(await this.restore(machine, id)); tries--) assert.ok(tries > 1, `${id} cannot be restored`);
  }

  /** Everything that was acknowledged is there, and nothing else. */
  async finish(): Promise<void> {
    for (const machine of this.machines) machine.check('at the end');
    await this.insist(() => this.store.find('main'));
    const listed: number[] = [];
    for await (const { id } of this.store.checkpoints()) listed.push(id);
    assert.deepEqual(
      listed,
      [...this.states.keys()].sort((a, b) => a - b),
    );
    for (const [id, state] of this.states) {
      const snapshot = await this.store.at(id);
      assert.equal(snapshot.checkpoint.parent, state.parent);
      assert.deepEqual(Object.keys(snapshot.checkpoint.regions).sort(), [...state.regions.keys()].sort());
      for (const [name, pages] of state.regions)
        compare(await snapshot.read(name, 0, pages.length * PAGE), pages, `checkpoint ${id}: ${name}`);
      assert.deepEqual(Object.keys(snapshot.checkpoint.attachments).sort(), [...state.attachments.keys()].sort());
      for (const [name, bytes] of state.attachments)
        assert.ok(bytes.equals(await snapshot.attachment(name)), `checkpoint ${id}: attachment ${name}`);
      assert.deepEqual(
        [...snapshot.checkpoint.labels].sort(),
        [...this.labels].flatMap(([label, named]) => (named === id ? [label] : [])).sort(),
        `labels of ${id}`,
      );
      await snapshot.close();
    }
    for (const [branch, id] of this.heads) assert.equal((await this.store.find(branch))?.id, id, `head of ${branch}`);
    for (const [label, id] of this.labels) assert.equal((await this.store.find(label))?.id, id, label);
    assert.deepEqual((await this.store.verify()).problems, []);
  }

  release(): void {
    for (const { members } of this.machines) for (const { region } of members.values()) region.close();
  }
}
