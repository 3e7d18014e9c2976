import assert from 'node:assert/strict';
import { type Checkpoint, Checkpointer, CheckpointStore, Engine, type EngineOptions, Region } from '../../lib/index.js';
import { addon } from '../../lib/kernel/addon.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, bytesOf, copyOf, edit, outcome, PAGE, range, stagingFree, stamp, stored } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

const PAGES = 1200;
const VERSIONS = 12;

const deltaPages = ({ regions }: Checkpoint): number => regions.r!.deltaPages;

describe('a restore of pages that are stored as deltas', () => {
  let path: string;
  let engine: Engine;
  let store: CheckpointStore;
  let region: Region;
  let c: Checkpointer<'r'>;
  let models: Map<number, Uint8Array>;

  const open = async (options: EngineOptions = {}): Promise<void> => {
    engine = new Engine({ maxStagingBytes: 4 << 20, workers: 2, ...options });
    store = await CheckpointStore.open(path, { createIfMissing: true, engine });
    c = await Checkpointer.open(store, { regions: { r: region } });
  };

  const take = async (): Promise<Checkpoint> => {
    const model = copyOf(region);
    const taken = await c.checkpoint({ durability: 'relaxed' });
    models.set(taken.id, model);
    return taken;
  };

  /** 1: pages 0 to 999. 2 to 12: most of them changed a little, some became zero, some noise, some are new. */
  beforeEach(async () => {
    path = folder();
    region = Region.allocate(PAGES * PAGE);
    models = new Map();
    await open();
    stamp(region, range(0, 1000), 1);
    await take();
    for (let k = 2; k <= VERSIONS; k++) {
      edit(region, range(20 * k, 700), k);
      bytesOf(region).fill(0, 10 * k * PAGE, (10 * k + 5) * PAGE);
      stamp(region, [...range(500 + k, 3), 1000 + k], k);
      assert.ok(deltaPages(await take()) > 600);
    }
  });
  afterEach(async () => {
    for (const id of [...models.keys()].slice(-3)) assertSame(await stored(store, id), models.get(id)!, `checkpoint ${id}`);
    await c.close();
    assert.ok(await stagingFree(engine), 'staging that is not free');
    await store.close();
    await engine.close();
    await assertSound(path);
    region.close();
  });
  // Its own hook, which removes them, comes last.
  const folder = storeFolders();

  /** The next checkpoint has exactly what is edited now, as deltas but for `full` of them. */
  async function assertNext(pages: readonly number[], full: number): Promise<void> {
    edit(region, pages, 77);
    const next = await take();
    assert.deepEqual([next.regions.r!.pages, deltaPages(next)], [pages.length, pages.length - full]);
  }

  it('goes back and forward in place, and the next checkpoint has deltas', async () => {
    for (const id of [11, 3, 4, 9, 2, 12, 1, 7]) {
      const { inPlace } = (await c.restore(id)).stats();
      assert.equal(inPlace, true);
      assertSame(region, models.get(id)!, `restored ${id}`);
      assert.deepEqual([...region.dirtyRanges()], []);
    }
    // 10 and 11 are zero in none; 1,100 is a hole.
    await assertNext([0, 10, 11, 600, 999, 1100], 1);
    await c.restore(12);
    await c.restore(13);
    assertSame(region, models.get(13)!);
  });

  it('undoes what was written, whatever it was', async () => {
    stamp(region, range(100, 100), 50);
    edit(region, range(300, 300), 50);
    bytesOf(region).fill(0, 700 * PAGE, 900 * PAGE);
    await c.restore(12);
    assertSame(region, models.get(12)!);
    edit(region, range(0, PAGES), 51);
    await c.restore(5);
    assertSame(region, models.get(5)!);
    await assertNext(range(300, 10), 0);
  });

  for (const shared of [false, true]) {
    it(`fills fresh ${shared ? 'shared ' : ''}memory, and the next checkpoint has deltas at once`, async () => {
      for (const [k, id] of [12, 1, 6].entries()) {
        await c.close();
        region.close();
        region = Region.allocate(PAGES * PAGE, { shared });
        // Fresh, or with something in it.
        if (k > 0) stamp(region, range(50, 900), 9);
        c = await Checkpointer.open(store, { regions: { r: region } });
        assert.equal((await c.restore(id)).stats().inPlace, false);
        assertSame(region, models.get(id)!, `restored ${id}`);
        await assertNext([0, 300, 640, 650, 999, 1199], 1);
      }
    });
  }

  it('finds memory changed that the kernel saw nobody write, and makes it from what is stored', async () => {
    edit(region, range(0, 1000), 40);
    await take();
    // As this goes past the tracking, the memory is not what it is taken for.
    const wrong = Uint32Array.of(5, 6, 300, 999);
    addon().regionFill(region.nativeId, new Uint8Array(4 * PAGE).fill(3), wrong);
    assert.deepEqual([...region.dirtyRanges()], []);
    await c.restore(12);
    assertSame(region, models.get(12)!);
  });

  it('tells how far it is, up to all of it', async () => {
    const seen: number[][] = [];
    const { filledPages } = (
      await c.restore(1, { onProgress: ({ donePages, totalPages }) => void seen.push([donePages, totalPages]) })
    ).stats();
    assert.ok(filledPages > 700);
    assert.deepEqual(seen.at(-1), [filledPages, filledPages]);
    let before = 0;
    for (const [done, total] of seen as [number, number][]) {
      assert.ok(done <= total && total === filledPages, `${done} of ${total}`);
      // It starts again after the checking pass.
      assert.ok(done >= before || before === total, `${done} after ${before}`);
      before = done;
    }
  });

  it('can be aborted, and leaves the memory as it was', async () => {
    for (let turns = 0; turns < 6; turns++) {
      const controller = new AbortController();
      const restored = outcome(c.restore(1, { signal: controller.signal }));
      for (let k = 0; k < turns; k++) await new Promise(setImmediate);
      controller.abort();
      const result = await restored;
      assertSame(region, models.get(result === 'ok' ? 1 : 12)!, result);
      if (result === 'ok') await c.restore(12);
      assert.ok(await stagingFree(engine));
    }
    await assertNext(range(300, 10), 0);
  });

  it('of one region of two leaves the other, which is stored whole next', async () => {
    const other = Region.allocate(64 * PAGE);
    (c as Checkpointer).attach('other', other);
    stamp(other, range(0, 64), 1);
    await take();
    edit(other, range(0, 64), 2);
    edit(region, range(0, 10), 2);
    assert.deepEqual((await take()).regions.other!.deltaPages, 64);
    await c.restore(13, { regions: ['r'] });
    assertSame(region, models.get(13)!);
    edit(other, range(0, 3), 3);
    edit(region, range(0, 3), 3);
    const { r, other: o } = (await take()).regions as Record<string, { pages: number; deltaPages: number }>;
    assert.deepEqual([r!.deltaPages, o!.pages, o!.deltaPages], [3, 64, 0]);
    edit(other, range(0, 64), 4);
    assert.equal((await take()).regions.other!.deltaPages, 64);
  });

  it('of many regions needs no more staging than there is', async () => {
    const others = range(0, 8).map((k) => ({ name: `other-${k}`, memory: Region.allocate(20 * PAGE) }));
    for (const { name, memory } of others) {
      (c as Checkpointer).attach(name, memory);
      stamp(memory, range(0, 20), 1);
    }
    await take();
    const copies = others.map(({ memory }) => copyOf(memory));
    for (let k = 2; k < 4; k++) {
      for (const { memory } of others) edit(memory, range(0, 20), k);
      await take();
    }
    await c.restore(13);
    for (const [k, { memory }] of others.entries()) assertSame(memory, copies[k]!);
    assertSame(region, models.get(13)!);
    // Fresh, and with something in it.
    for (const memory of [region, ...others.map((one) => one.memory)]) stamp(memory, 3, 3);
    await c.restore(15);
    await c.restore(13);
    for (const [k, { memory }] of others.entries()) assertSame(memory, copies[k]!);
  });

  it('goes on beside others on the same engine, which has little staging', async () => {
    const machines = await Promise.all(
      [2, 5, 9].map(async (id) => {
        await store.fork(id, `fork-${id}`);
        const memory = Region.allocate(PAGES * PAGE);
        return { id, memory, checkpointer: await Checkpointer.open(store, { regions: { r: memory }, branch: `fork-${id}` }) };
      }),
    );
    const restored = machines.map(({ checkpointer }) => checkpointer.restore());
    for (let k = 0; k < 5; k++) {
      edit(region, range(0, 700), 100 + k);
      await take();
    }
    await Promise.all(restored);
    for (const { id, memory } of machines) assertSame(memory, models.get(id)!, `fork-${id}`);
    for (const ids of [
      [2, 1, 12],
      [12, 12, 1],
    ]) {
      await Promise.all([c.restore(12), ...machines.map(({ checkpointer }, k) => checkpointer.restore(ids[k]!))]);
      for (const [k, { memory }] of machines.entries()) assertSame(memory, models.get(ids[k]!)!);
      assertSame(region, models.get(12)!);
    }
    await Promise.all(machines.map(({ checkpointer }) => checkpointer.close()));
    for (const { memory } of machines) memory.close();
  });
});
