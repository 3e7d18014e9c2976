import assert from 'node:assert/strict';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assertSame, bytesOf, copyOf, hashOf, outcome, PAGE, range, restoredFresh, stamp, stored } from '../support/kit.js';
import { assertSound, damageExtent } from '../support/log-files.js';

const PAGES = 256;

/** Numbers below `limit` that are the same in each run. */
function dice(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** A checkpoint as it must come back. */
interface State {
  id: number;
  uid: string;
  parent: number | null;
  label: string | undefined;
  models: [Uint8Array, Uint8Array];
}

describe('going back and forward in place', () => {
  const folder = storeFolders();

  for (const seed of [1, 2]) {
    it(`at random through 50 checkpoints (${seed}): each state is exact, and so is what is stored after it`, async () => {
      const path = folder();
      const roll = dice(seed);
      const store = await CheckpointStore.open(path, { createIfMissing: true });
      const regions = { a: Region.allocate(PAGES * PAGE), b: Region.allocate(PAGES * PAGE, { shared: true }) };
      const memories = [regions.a, regions.b] as const;
      let branch = 'main';
      let c = await Checkpointer.open(store, { regions });
      const heads = new Map<string, number>();
      const states: State[] = [];
      const stateOf = (id: number): State => states[id - 1]!;
      /** Pages written since the memory was what the base says. */
      let touched = [new Set<number>(), new Set<number>()];
      const write = () => {
        for (let k = roll(4); k >= 0; k--) {
          const which = roll(2);
          const first = roll(PAGES);
          const pages = range(first, Math.min(1 + roll(roll(3) === 0 ? 80 : 4), PAGES - first));
          stamp(memories[which]!, pages, roll(2 ** 31));
          for (const page of pages) touched[which]!.add(page);
        }
      };
      const ends = () => [c.head?.id, c.base?.id];
      let moves = 0;
      while (states.length < 50) {
        const what = roll(10);
        if (what < 5 || states.length < 3) {
          write();
          if (what === 0) await c.precopy();
          const label = roll(4) === 0 ? `label${states.length}` : undefined;
          const parent = c.base?.id ?? null;
          const models: State['models'] = [copyOf(regions.a), copyOf(regions.b)];
          const taken = await c.checkpoint({ durability: 'relaxed', ...(label === undefined ? {} : { label }) });
          assert.deepEqual([taken.id, taken.parent, taken.branch], [states.length + 1, parent, branch]);
          assert.deepEqual(
            [taken.regions.a!.pages, taken.regions.b!.pages],
            touched.map(({ size }) => size),
            `pages of checkpoint ${taken.id}`,
          );
          states.push({ id: taken.id, uid: taken.uid, parent, label, models });
          touched = [new Set(), new Set()];
          heads.set(branch, taken.id);
          assert.deepEqual(ends(), [taken.id, taken.id]);
        } else if (what < 9) {
          // What was written and not stored is dropped.
          if (roll(2) === 0) write();
          if (roll(3) === 0) await c.precopy();
          const goal = states[roll(states.length)]!;
          const names: (number | string)[] = [goal.id, goal.uid.slice(0, 12)];
          if (goal.label !== undefined) names.push(goal.label);
          const child = states.find(({ parent }) => parent === goal.id);
          if (child !== undefined) names.push(`${child.uid.slice(0, 12)}~1`);
          const restoration = await c.restore(names[roll(names.length)]!);
          assert.deepEqual([restoration.checkpoint.id, restoration.stats().inPlace], [goal.id, true]);
          for (const k of [0, 1] as const) assertSame(memories[k], goal.models[k], `region ${k} as of ${goal.id}`);
          touched = [new Set(), new Set()];
          assert.deepEqual(ends(), [heads.get(branch), goal.id], 'the head does not move');
          assert.equal((await store.find(branch))?.id, heads.get(branch));
          moves++;
        } else {
          // Another branch, or one that is there: the memory stays what it is.
          const base = c.base!.id;
          const [head] = ends();
          await c.close();
          if (head === base || roll(2) === 0) branch = `branch${states.length}-${moves}`;
          c = await Checkpointer.open(store, { regions, branch });
          assert.deepEqual(ends(), [heads.get(branch), base]);
        }
      }
      assert.ok(moves > 10, `${moves} moves`);
      for (const { id, parent, models } of states) {
        assert.equal((await store.find(id))?.parent, parent);
        assertSame(await stored(store, id, 'a'), models[0], `a as of ${id}`);
        assertSame(await stored(store, id, 'b'), models[1], `b as of ${id}`);
      }
      await store.close();
      assert.equal((await assertSound(path)).length, 50);
      for (const [name, id] of heads) assertSame(await restoredFresh(path, name, 'a'), stateOf(id).models[0], name);
    });
  }

  it('takes back growth and zero pages, and brings them back', async () => {
    const path = folder();
    const region = Region.allocate(PAGES * PAGE);
    const c = await Checkpointer.open(path, { regions: { r: region } });
    stamp(region, range(0, 100), 1);
    await c.checkpoint();
    const first = copyOf(region);
    bytesOf(region).fill(0, 10 * PAGE, 60 * PAGE);
    stamp(region, range(120, 20), 2);
    await c.checkpoint();
    const second = copyOf(region);
    for (let k = 0; k < 3; k++) {
      let { filledPages, zeroedPages } = (await c.restore(1)).stats();
      assertSame(region, first);
      assert.deepEqual([filledPages, zeroedPages], [50, 20]);
      ({ filledPages, zeroedPages } = (await c.restore(2)).stats());
      assertSame(region, second);
      assert.deepEqual([filledPages, zeroedPages], [20, 50]);
    }
    const idle = await c.checkpoint();
    assert.deepEqual([idle.regions.r!.pages, idle.regions.r!.zeroPages], [0, 0]);
    await c.close();
  });

  it('a crash comes up at the old head, until the next checkpoint is there', async () => {
    for (const how of ['back', 'written', 'precopied', 'committed'] as const) {
      const path = folder();
      const [second, now] = await inChild(
        {},
        async ({ Checkpointer, Region, PAGE, stamp, range, hashOf, crash }, path, how) => {
          const region = Region.allocate(64 * PAGE);
          const c = await Checkpointer.open(path, { regions: { r: region } });
          const hashes: string[] = [];
          for (const k of [1, 2]) {
            stamp(region, range(0, 20 * k), k);
            await c.checkpoint();
            hashes.push(hashOf(region));
          }
          await c.restore(1);
          if (how !== 'back') stamp(region, [5, 50], 3);
          if (how === 'precopied') await c.precopy();
          if (how === 'committed') await c.checkpoint();
          return crash([hashes[1]!, hashOf(region)] as const);
        },
        path,
        how,
      );
      assert.deepEqual(await assertSound(path), how === 'committed' ? [1, 2, 3] : [1, 2]);
      assert.equal(hashOf(await restoredFresh(path)), how === 'committed' ? now : second, how);
      assert.equal(hashOf(await restoredFresh(path, 2)), second, how);
    }
  });

  it('leaves the memory as it was when only what an older checkpoint needs is damaged', async () => {
    const path = folder();
    const region = Region.allocate(PAGES * PAGE);
    let c = await Checkpointer.open(path, { regions: { r: region } });
    stamp(region, range(0, PAGES), 1);
    await c.checkpoint();
    stamp(region, range(0, PAGES), 2);
    await c.checkpoint();
    const second = copyOf(region);
    stamp(region, range(0, 40), 3);
    await c.checkpoint();
    await c.close();
    await damageExtent(path, 0);
    c = await Checkpointer.open(path, { regions: { r: region } });
    assert.equal(c.base?.id, 3, 'the memory still descends from it');
    stamp(region, [7, 200], 4);
    await c.precopy();
    stamp(region, [8], 4);
    const model = copyOf(region);
    assert.equal(await outcome(c.restore(1)), 'TIDEMARK_DAMAGED');
    assertSame(region, model);
    assert.equal(c.base?.id, 3);
    const next = await c.checkpoint();
    assert.deepEqual([next.parent, next.regions.r!.pages], [3, 3]);
    await c.restore(2);
    assertSame(region, second);
    await c.restore(next.id);
    assertSame(region, model);
    await c.close();
  });

  it('that fails half-way refuses checkpoint() and precopy() until a restore succeeds', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'codec.fill:2' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, hashOf, outcome, crash }, path) => {
        const region = Region.allocate(2048 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region }, engine: new Engine({ workers: 1 }) });
        const hashes: string[] = [];
        for (const k of [1, 2]) {
          stamp(region, range(0, 2048), k);
          await c.checkpoint();
          hashes.push(hashOf(region));
        }
        stamp(region, range(0, 10), 3);
        await c.precopy();
        const outcomes = [
          await outcome(c.restore(1)),
          await outcome(c.precopy()),
          await outcome(c.checkpoint()),
          await outcome(c.checkpoint({ ifChanged: true })),
          await outcome(c.restore(1, { signal: AbortSignal.abort() })),
          await outcome(c.restore(9)),
          await outcome(c.precopy()),
          await outcome(c.restore(2)),
        ];
        const whole = hashOf(region) === hashes[1];
        stamp(region, [1, 2, 3], 4);
        await c.precopy();
        stamp(region, 3, 5);
        const { parent, regions } = await c.checkpoint();
        return crash({ outcomes, whole, parent, pages: regions.r!.pages, hash: hashOf(region) });
      },
      path,
    );
    const TORN = 'TIDEMARK_REGION_TORN';
    assert.deepEqual(result.outcomes, [TORN, TORN, TORN, TORN, 'TIDEMARK_ABORTED', 'TIDEMARK_NOT_FOUND', TORN, 'ok']);
    assert.deepEqual([result.whole, result.parent, result.pages], [true, 2, 3]);
    await assertSound(path);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });
});
