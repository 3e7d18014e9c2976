import type { Checkpointer, CheckpointStore } from '../../lib/index.js';
import {
  assert,
  assertSame,
  type CheckpointerOptions,
  copyOf,
  edit,
  PAGE,
  range,
  stored,
  withCheckpointer,
} from '../support/kit.js';
import { type Kind, type Made, withMade } from './kinds.js';

/** A huge page. */
export const PAGES = 512;

/** What a step has to work with: a kind of memory, and a store with checkpoints of it. */
export interface World {
  kind: Kind;
  store: CheckpointStore;
  deltas: boolean;
  /** The memory that the checkpoints were taken of. */
  original: Made;
  /** What it was at checkpoint 1, 2 and 3. */
  models: Uint8Array[];
}

/** Nothing here is about what survives a power loss. */
function options({ region }: Made, deltas: boolean): CheckpointerOptions<'r'> {
  return { regions: { r: region }, deltas, durability: 'relaxed' };
}

/** Touched after a restore: full pages, some of them once zero, holes, the first and the last. */
export const TOUCHED = [0, 25, 99, 100, 125, 149, 150, 299, 310, 350, 500, 511];

/** Checkpoint 1: pages 0 to 299. 2: 10 of these edited, 50 made zero, 20 holes written. 3: 5 edited, 5 written with what they hold. Pages 320 on are holes. */
export async function takeThree(world: Omit<World, 'models'>): Promise<Uint8Array[]> {
  const { original, store, deltas } = world;
  const models: Uint8Array[] = [];
  await withCheckpointer(store, options(original, deltas), async (c) => {
    const take = async (pages: number, deltaPages: number, zeroPages: number) => {
      const { r } = (await c.checkpoint()).regions;
      assert.deepEqual(
        [r!.pages, r!.deltaPages, r!.zeroPages],
        [pages, deltas ? deltaPages : 0, zeroPages],
        `checkpoint ${models.length + 1}`,
      );
      models.push(copyOf(original.bytes()));
    };
    await original.write(range(0, 300), 1);
    await take(300, 0, 0);
    edit(original.bytes(), range(20, 10), 2);
    original.bytes().fill(0, 100 * PAGE, 150 * PAGE);
    await original.write(range(300, 20), 2);
    await take(30, 10, 50);
    edit(original.bytes(), range(50, 5), 3);
    await original.write(range(150, 5), 1);
    await take(deltas ? 5 : 10, 5, 0);
  });
  return models;
}

/** Touches pages after a restore, and checks that the next checkpoint holds exactly these. */
async function assertExact(c: Checkpointer<'r'>, { store }: World, memory: Made, value: number): Promise<void> {
  const base = c.base!.id;
  assert.deepEqual([...memory.region.dirtyRanges()], [], 'a restore leaves nothing dirty');
  const idle = await c.checkpoint();
  assert.deepEqual([idle.parent, idle.regions.r!.pages, idle.regions.r!.zeroPages], [base, 0, 0], 'nothing was touched');
  await memory.write(TOUCHED, value);
  const model = copyOf(memory.bytes());
  const next = await c.checkpoint();
  assert.deepEqual([next.parent, next.regions.r!.pages, next.regions.r!.zeroPages], [idle.id, TOUCHED.length, 0]);
  assertSame(await stored(store, next.id), model, `checkpoint ${next.id}`);
}

/** Restores each checkpoint into fresh memory of the kind, one after the other, and goes on from there. */
async function fresh(world: World): Promise<void> {
  const { kind, store, deltas, models } = world;
  for (const id of [3, 1]) {
    await withMade(kind, PAGES, async (memory) => {
      await withCheckpointer(store, options(memory, deltas), async (c) => {
        const { inPlace, filledPages, zeroedPages } = (await c.restore(id)).stats();
        assertSame(memory.bytes(), models[id - 1]!, `checkpoint ${id}`);
        const filled = id === 3 ? 270 : 300;
        assert.deepEqual([inPlace, filledPages, zeroedPages], [false, filled, kind.populated ? PAGES - filled : 0]);
        await assertExact(c, world, memory, 50 + id);
      });
    });
  }
}

/** Restores into memory of the kind that holds something else. */
async function used(world: World): Promise<void> {
  const { kind, store, deltas, models } = world;
  await withMade(kind, PAGES, async (memory) => {
    await memory.write([...range(0, 50), ...range(125, 30), ...range(275, 50), ...range(400, 100)], 60);
    await withCheckpointer(store, options(memory, deltas), async (c) => {
      await c.restore(2);
      assertSame(memory.bytes(), models[1]!);
      await assertExact(c, world, memory, 61);
    });
  });
}

/** Forwards and backwards in the memory that the checkpoints were taken of: only what differs is changed, and views stay valid. */
async function inPlace(world: World): Promise<void> {
  const { store, deltas, models, original } = world;
  const view = original.bytes();
  await withCheckpointer(store, options(original, deltas), async (c) => {
    const back = async (id: number, filled: number, zeroed: number, what: string) => {
      const { inPlace, filledPages, zeroedPages } = (await c.restore(id)).stats();
      assertSame(view, models[id - 1]!, what);
      assert.deepEqual([inPlace, filledPages, zeroedPages], [true, filled, zeroed], what);
      assert.deepEqual([...original.region.dirtyRanges()], [], what);
    };
    await original.write([7, 8, 450], 70);
    await back(3, 2, 1, 'undone');
    // 10 + 50 + 5 pages get older contents, and where there are no deltas 5 the same; 20 become holes again.
    await back(1, deltas ? 65 : 70, 20, 'to 1');
    await back(3, deltas ? 35 : 40, 50, 'to 3');
    await back(3, 0, 0, 'nothing to do');
    await original.write(range(0, PAGES), 71);
    await back(2, 270, PAGES - 270, 'everything was written');
    await assertExact(c, world, original, 72);
  });
}

/** Memory that is restored is what the next ones build on: deltas on deltas, restored again elsewhere. */
async function goesOn(world: World): Promise<void> {
  const { kind, store, deltas, original } = world;
  const models = new Map<number, Uint8Array>();
  await withCheckpointer(store, options(original, deltas), async (c) => {
    await c.restore(2);
    for (let round = 0; round < 3; round++) {
      const pages = [...range(20 + 2 * round, 10), 310, 450 + round];
      edit(original.bytes(), pages, 80 + round);
      const taken = await c.checkpoint();
      assert.equal(taken.regions.r!.pages, pages.length);
      models.set(taken.id, copyOf(original.bytes()));
      await c.restore(round === 1 ? 1 : taken.id);
    }
  });
  await withMade(kind, PAGES, async (memory) => {
    await withCheckpointer(store, options(memory, deltas), async (c) => {
      for (const [id, model] of models) {
        await c.restore(id);
        assertSame(memory.bytes(), model, `checkpoint ${id}`);
      }
      await assertExact(c, world, memory, 90);
    });
  });
}

/** Pages that become zero: written, stored so, restored so, and without content afterwards. */
async function zeroes(world: World): Promise<void> {
  const { kind, store, deltas, original } = world;
  await withCheckpointer(store, options(original, deltas), async (c) => {
    await c.restore(3);
    original.bytes().fill(0);
    const { r } = (await c.checkpoint()).regions;
    assert.deepEqual([r!.pages, r!.zeroPages], [0, 270]);
    assertSame(await stored(store, c.head!.id), new Uint8Array(PAGES * PAGE));
    const empty = c.head!.id;
    await c.restore(1);
    await c.restore(empty);
    assertSame(original.bytes(), new Uint8Array(PAGES * PAGE));
    await c.restore(1);
    await original.write([1], 95);
    await c.restore(empty);
    await assertExact(c, world, original, 96);
  });
  // A region that is made of nothing but holes again takes no memory.
  await withMade(kind, PAGES, async ({ region, write }) => {
    await write(range(0, PAGES), 1);
    region.empty(Uint32Array.of(0, PAGES));
    assert.deepEqual([...region.populated()], []);
    assert.deepEqual([...region.dirtyRanges()], []);
  });
}

/** Memory that has grown is stored with the size it had, and fresh memory grows to that. */
async function grows(world: World): Promise<void> {
  const { kind, store, deltas, original } = world;
  let model!: Uint8Array;
  await withCheckpointer(store, options(original, deltas), async (c) => {
    await c.restore(2);
    original.grow!(64);
    await original.write([5, PAGES, PAGES + 63], 97);
    const taken = await c.checkpoint();
    assert.deepEqual([taken.regions.r!.byteLength, taken.regions.r!.pages], [(PAGES + 64) * PAGE, 3]);
    model = copyOf(original.bytes());
    await c.restore(1);
    assertSame(original.bytes().subarray(PAGES * PAGE), new Uint8Array(64 * PAGE), 'the tail');
  });
  await withMade(kind, PAGES, async (memory) => {
    await withCheckpointer(store, options(memory, deltas), async (c) => {
      await c.restore();
      assertSame(memory.bytes(), model);
      await assertExact(c, world, memory, 98);
    });
  });
}

/** Fills pages when they are touched: fresh memory, memory that held something else, in place; each goes on from there, before and after everything is there. */
async function lazily(world: World): Promise<void> {
  const { kind, store, deltas, models, original } = world;
  for (const before of [[], [...range(0, 50), ...range(125, 30), ...range(400, 100)]]) {
    await withMade(kind, PAGES, async (memory) => {
      if (before.length > 0) await memory.write(before, 60);
      await withCheckpointer(store, options(memory, deltas), async (c) => {
        const { done } = await c.restore(3, { lazy: true });
        await assertExact(c, world, memory, 61);
        await done;
        await c.restore(2, { lazy: true });
        assertSame(memory.bytes(), models[1]!, 'in place');
        await c.restore(1);
        assertSame(memory.bytes(), models[0]!, 'in place, not lazily');
        await assertExact(c, world, memory, 62);
      });
    });
  }
  await withCheckpointer(store, options(original, deltas), async (c) => {
    await original.write([7, 8, 450], 70);
    const restoration = await c.restore(1, { lazy: true });
    await restoration.done;
    assertSame(original.bytes(), models[0]!);
    const { inPlace, filledPages } = restoration.stats();
    // 60 pages were others, and pages 7 and 8 written; without deltas five more were stored anew.
    assert.deepEqual([inPlace, filledPages], [true, deltas ? 67 : 72]);
    await assertExact(c, world, original, 72);
  });
}

export interface Step {
  what: string;
  run(world: World): Promise<void>;
  /** Only kinds for which it says so. Default: all. */
  suits?(kind: Kind): boolean;
}

/** What every kind goes through. Each step finds the store as `takeThree` leaves it. */
export const STEPS: readonly Step[] = [
  { what: 'restores into fresh memory', run: fresh },
  { what: 'restores into memory that held something else', run: used },
  { what: 'restores in place', run: inPlace },
  { what: 'goes on incrementally', run: goesOn },
  { what: 'becomes zero', run: zeroes },
  { what: 'restores lazily', run: lazily },
  { what: 'grows', run: grows, suits: ({ growing }) => growing === true },
];
