import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import {
  Checkpointer,
  type CheckpointerOptions,
  CheckpointStore,
  Engine,
  Region,
  type Restoration,
  type Snapshot,
} from '../../lib/index.js';
import { faultyEngine } from '../support/faulty-engine.js';
import { outcome, PAGE, range, stamp } from '../support/kit.js';

const PAGES = 64;
/** What the two checkpoints of a world have. */
const EXTENTS = 3;

/** One of everything, for one cell of the table. */
export class World {
  readonly folder = mkdtempSync(join(tmpdir(), 'tidemark-states-'));
  readonly path = join(this.folder, 'store');
  readonly engine: Engine;
  readonly ownsEngine: boolean;
  readonly region = Region.allocate(PAGES * PAGE);
  /** Belongs to nobody. */
  readonly spare = Region.allocate(PAGE);
  store!: CheckpointStore;
  checkpointer!: Checkpointer;
  snapshot!: Snapshot;
  restoration!: Restoration;
  /** What the state has in flight. */
  readonly #inFlight: Promise<unknown>[] = [];

  constructor(engine: Engine, ownsEngine: boolean) {
    this.engine = engine;
    this.ownsEngine = ownsEngine;
  }

  /** A store with two checkpoints of a region, the memory at the second, a snapshot of the first. */
  async open(): Promise<void> {
    const { engine, path, region } = this;
    this.store = await CheckpointStore.open(path, { createIfMissing: true, engine });
    this.checkpointer = await this.openCheckpointer();
    stamp(region, range(0, PAGES), 1);
    const attachments = { notes: Uint8Array.of(1, 2, 3) };
    await this.checkpointer.checkpoint({ durability: 'relaxed', label: 'first', attachments });
    stamp(region, range(0, 32), 2);
    await this.checkpointer.checkpoint({ durability: 'relaxed', attachments });
    this.snapshot = await this.store.at(1);
    this.restoration = await this.checkpointer.restore(2);
  }

  openCheckpointer(): Promise<Checkpointer> {
    return Checkpointer.open<string>(this.store, { regions: { heap: this.region } });
  }

  /** Another checkpointer of the store, which is closed at once if it can be had. */
  async openAnother(options: CheckpointerOptions): Promise<void> {
    const another = await Checkpointer.open(this.store, options);
    await another.close();
  }

  /** Something that goes on while the method is called; how it ends is another test's business. */
  inFlight(promise: Promise<unknown>): void {
    this.#inFlight.push(outcome(promise));
  }

  /**
   * Everything can be closed, whatever was called, and is free then.
   * @throws what is not
   */
  async end(): Promise<void> {
    await Promise.all(this.#inFlight);
    await this.checkpointer.close();
    await this.store.close();
    this.region.close();
    this.spare.close();
    if (this.ownsEngine) await this.engine.close();
    const store = await CheckpointStore.open(this.path);
    const found = await store.find('first');
    await store.close();
    if (found?.id !== 1) throw new Error('the first checkpoint is gone');
    rmSync(this.folder, { recursive: true, force: true });
  }
}

interface State {
  /** Default: one that all cells share. */
  engine?: () => Engine | Promise<Engine>;
  /** Goes there; the method is called before anything else can happen. */
  enter(world: World): void | Promise<void>;
}

const newEngine = () => new Engine({ workers: 1 });

async function expect(expected: string, promise: Promise<unknown>): Promise<void> {
  assert.equal(await outcome(promise), expected);
}

/** With something to do for a checkpoint, a precopy or a restore. */
function dirty({ region }: World): void {
  stamp(region, range(0, PAGES), 3);
}

/** The states of the table. */
export const STATES = {
  open: { enter() {} },
  /** A checkpointer is being opened. */
  opening: {
    async enter(world) {
      await world.checkpointer.close();
      world.inFlight(
        world.openCheckpointer().then((checkpointer) => {
          world.checkpointer = checkpointer;
        }),
      );
    },
  },
  checkpointing: {
    enter(world) {
      dirty(world);
      world.inFlight(world.checkpointer.checkpoint());
    },
  },
  /** What it has taken is not written. */
  precopying: {
    async enter(world) {
      dirty(world);
      let ended = false;
      const free = world.engine.stats().stagingFreeBytes;
      world.inFlight(
        world.checkpointer.precopy().finally(() => {
          ended = true;
        }),
      );
      while (world.engine.stats().stagingFreeBytes === free) await setImmediate();
      assert.equal(ended, false);
    },
  },
  /** The storage thread has been asked. */
  restoring: {
    async enter(world) {
      dirty(world);
      world.inFlight(world.checkpointer.restore(1));
      while (world.engine.stats().pendingCalls === 0) await Promise.resolve();
    },
  },
  /** While a checkpoint is in flight. */
  closing: {
    enter(world) {
      dirty(world);
      world.inFlight(world.checkpointer.checkpoint());
      world.inFlight(world.checkpointer.close());
    },
  },
  closed: { enter: ({ checkpointer }) => checkpointer.close() },
  snapshotClosed: { enter: ({ snapshot }) => snapshot.close() },
  storeClosing: {
    enter(world) {
      dirty(world);
      world.inFlight(world.checkpointer.checkpoint());
      world.inFlight(world.store.close());
    },
  },
  storeClosed: { enter: ({ store }) => store.close() },
  regionClosed: {
    async enter({ checkpointer, region }) {
      await checkpointer.close();
      region.close();
    },
  },
  engineClosing: {
    engine: newEngine,
    enter(world) {
      dirty(world);
      world.inFlight(world.checkpointer.checkpoint());
      world.inFlight(world.engine.close());
    },
  },
  engineClosed: { engine: newEngine, enter: ({ engine }) => engine.close() },
  storageEnded: {
    engine: () => faultyEngine(`storage.exit:${EXTENTS + 1}`),
    async enter(world) {
      dirty(world);
      await expect('TIDEMARK_WRITE_FAILED', world.checkpointer.checkpoint());
    },
  },
  torn: {
    engine: () => faultyEngine('codec.fill'),
    async enter(world) {
      dirty(world);
      await expect('TIDEMARK_REGION_TORN', world.checkpointer.restore(1));
    },
  },
  checkpointAborted: {
    async enter(world) {
      // One that is being committed is not aborted any more.
      for (let end = 'ok'; end !== 'TIDEMARK_ABORTED'; ) {
        dirty(world);
        const controller = new AbortController();
        const checkpoint = world.checkpointer.checkpoint({ signal: controller.signal });
        controller.abort();
        end = await outcome(checkpoint);
      }
    },
  },
  precopyAborted: {
    async enter(world) {
      dirty(world);
      const controller = new AbortController();
      const precopy = world.checkpointer.precopy({ signal: controller.signal });
      controller.abort();
      await expect('TIDEMARK_ABORTED', precopy);
    },
  },
  restoreAborted: {
    async enter(world) {
      dirty(world);
      const controller = new AbortController();
      const restore = world.checkpointer.restore(1, { signal: controller.signal });
      controller.abort();
      await expect('TIDEMARK_ABORTED', restore);
    },
  },
} satisfies Record<string, State>;

export type StateName = keyof typeof STATES;

let shared: Engine | undefined;

/** A world in a state. @param ownEngine the engine is to be closed */
export async function worldIn(name: StateName, ownEngine: boolean): Promise<World> {
  const state: State = STATES[name];
  shared ??= newEngine();
  const engine = (await state.engine?.()) ?? (ownEngine ? newEngine() : shared);
  const world = new World(engine, engine !== shared);
  await world.open();
  await state.enter(world);
  return world;
}

export async function closeSharedEngine(): Promise<void> {
  await shared?.close();
  shared = undefined;
}
