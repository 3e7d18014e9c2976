import assert from 'node:assert/strict';
import { type Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { LAZY } from '../support/kernel-faults.js';
import { assertSame, copyOf, edit, PAGE, range, stamp, stored, withCheckpointer } from '../support/kit.js';

const PAGES = 1024;

/** Checkpoint 1: pages 0 to 699. 2: of these 10 are edited and 100 zero, and 20 are new. 3: others are edited. */
async function makeStore(store: CheckpointStore): Promise<{ region: Region; models: Uint8Array[] }> {
  const region = Region.allocate(PAGES * PAGE);
  const models: Uint8Array[] = [];
  await withCheckpointer(store, { regions: { r: region } }, async (c) => {
    const take = async (): Promise<void> => {
      await c.checkpoint();
      models.push(copyOf(region));
    };
    stamp(region, range(0, 700), 1);
    await take();
    edit(region, range(40, 10), 2);
    new Uint8Array(region.buffer).fill(0, 200 * PAGE, 300 * PAGE);
    stamp(region, range(800, 20), 2);
    await take();
    edit(region, [...range(45, 10), 805], 3);
    await take();
  });
  return { region, models };
}

describe('a lazy restore', () => {
  const folder = storeFolders();
  let store: CheckpointStore;
  let models: Uint8Array[];
  let original: Region;
  beforeEach(async () => {
    store = await CheckpointStore.open(folder(), { createIfMissing: true });
    ({ region: original, models } = await makeStore(store));
  });
  afterEach(() => store.close());

  for (const deltas of [true, false]) {
    it(`makes fresh memory what each checkpoint holds, ${deltas ? 'with' : 'without'} shadows`, async () => {
      for (const [k, model] of models.entries()) {
        const region = Region.allocate(PAGES * PAGE);
        await withCheckpointer(store, { regions: { r: region }, deltas, branch: 'main' }, async (c) => {
          const restoration = await c.restore(k + 1, { lazy: LAZY });
          assertSame(region, model, `checkpoint ${k + 1}, touched at once`);
          await restoration.done;
          assertSame(region, model, `checkpoint ${k + 1}`);
          const { filledPages, inPlace, lazy } = restoration.stats();
          assert.deepEqual([filledPages, inPlace], [k === 0 ? 700 : 620, false]);
          assert.deepEqual(
            [lazy!.missingPages, lazy!.poisonedPages, lazy!.filledByFault + lazy!.filledAhead],
            [0, 0, filledPages],
          );
          assert.ok(lazy!.worstWaitMs >= lazy!.medianWaitMs && (lazy!.faults === 0) === (lazy!.worstWaitMs === 0));
        });
        region.close();
      }
    });
  }

  it('is the base of a checkpoint of exactly the pages that are touched after it', async () => {
    const region = Region.allocate(PAGES * PAGE);
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      const { done } = await c.restore(undefined, { lazy: LAZY });
      await assertExact(c, store, region, models[2]!, [0, 45, 250, 699, 720, 805, 1023]);
      await done;
      await assertExact(c, store, region, copyOf(region), [1, 46, 251, 698, 721, 806, 1022]);
      assert.equal(c.head!.regions.r!.deltaPages > 0, true, 'what was restored has shadows');
    });
  });

  it('of memory that descends from the chain drops only what differs', async () => {
    await withCheckpointer(store, { regions: { r: original } }, async (c) => {
      stamp(original, [5, 900], 7);
      const restoration = await c.restore(1, { lazy: LAZY });
      assertSame(original, models[0]!);
      await restoration.done;
      const { inPlace, filledPages } = restoration.stats();
      // 15 edited pages, 100 that were zero, and what was written since; the 20 new ones and page 900 are zero.
      assert.deepEqual([inPlace, filledPages], [true, 116]);
      assertSame(original, models[0]!);
      await assertExact(c, store, original, models[0]!, [5, 47, 200, 800, 900]);
      await c.restore(3, { lazy: LAZY });
      assertSame(original, models[2]!);
    });
  });

  it('of memory that holds something else leaves nothing of that', async () => {
    const region = Region.allocate(PAGES * PAGE);
    stamp(region, range(100, 900), 9);
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      const { done } = await c.restore(2, { lazy: LAZY });
      assertSame(region, models[1]!);
      await done;
      await assertExact(c, store, region, models[1]!, [0, 250, 950]);
    });
  });

  it('can follow another at once, lazy or not', async () => {
    const region = Region.allocate(PAGES * PAGE);
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      const first = await c.restore(1, { lazy: LAZY });
      const second = await c.restore(3, { lazy: LAZY });
      assertSame(region, models[2]!);
      await c.restore(2);
      assertSame(region, models[1]!);
      await Promise.all([first.done, second.done]);
      await assertExact(c, store, region, models[1]!, [3, 220, 810]);
    });
  });

  it('ensureResident() resolves when the pages are there', async () => {
    const region = Region.allocate(PAGES * PAGE);
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      const restoration = await c.restore(undefined, { lazy: LAZY });
      await restoration.ensureResident('r', 10, 600 * PAGE);
      await assert.rejects(restoration.ensureResident('other', 0, 1), { code: 'TIDEMARK_NOT_FOUND' });
      await assert.rejects(restoration.ensureResident('r', 0, PAGES * PAGE + 1), RangeError);
      await restoration.done;
      await restoration.ensureResident('r', 0, PAGES * PAGE);
      assert.equal(restoration.stats().lazy!.faults, 0);
    });
    const eager = Region.allocate(PAGES * PAGE);
    await withCheckpointer(store, { regions: { r: eager } }, async (c) => {
      const restoration = await c.restore();
      await restoration.ensureResident('r', 0, PAGES * PAGE);
      assert.equal(restoration.stats().lazy, undefined);
    });
  });

  it('tells of its progress, and stops when it is there', async () => {
    const region = Region.allocate(PAGES * PAGE);
    const seen: number[] = [];
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      const { done } = await c.restore(1, {
        lazy: LAZY,
        onProgress: ({ donePages, totalPages }) => seen.push(donePages, totalPages),
      });
      await done;
    });
    assert.deepEqual(seen.slice(-2), [700, 700]);
  });

  it('refuses other values of `lazy`', async () => {
    await withCheckpointer(store, { regions: { r: original } }, async (c) => {
      await assert.rejects(c.restore(1, { lazy: 'yes' as never }), TypeError);
    });
  });
});

/** Touches pages, and checks that the next checkpoint holds exactly these. */
async function assertExact(
  c: Checkpointer<'r'>,
  store: CheckpointStore,
  region: Region,
  before: Uint8Array,
  pages: number[],
): Promise<void> {
  const base = c.base!.id;
  const idle = await c.checkpoint();
  assert.deepEqual([idle.parent, idle.regions.r!.pages, idle.regions.r!.zeroPages], [base, 0, 0], 'nothing was touched');
  const model = before.slice();
  edit(region, pages, idle.id);
  edit(model, pages, idle.id);
  const next = await c.checkpoint();
  assert.deepEqual([next.parent, next.regions.r!.pages, next.regions.r!.zeroPages], [idle.id, pages.length, 0]);
  assertSame(await stored(store, next.id), model, `checkpoint ${next.id}`);
}
