import assert from 'node:assert/strict';
import { type Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, bytesOf, copyOf, PAGE, range, stamp, stored, withCheckpointer } from '../support/kit.js';
import { Memory, resizable } from '../support/memories.js';

const PAGES = 1024;

/** Touches pages after a restore, and checks that the next checkpoint holds exactly these. */
async function assertExact(
  c: Checkpointer<'r'>,
  store: CheckpointStore,
  memory: Region | Uint8Array,
  pages: number[],
): Promise<void> {
  const base = c.base!.id;
  const idle = await c.checkpoint();
  assert.deepEqual([idle.parent, idle.regions.r!.pages, idle.regions.r!.zeroPages], [base, 0, 0], 'nothing was touched');
  stamp(memory, pages, 99);
  const model = copyOf(memory);
  const next = await c.checkpoint();
  assert.deepEqual([next.parent, next.regions.r!.pages, next.regions.r!.zeroPages], [idle.id, pages.length, 0]);
  assertSame(await stored(store, next.id), model, `checkpoint ${next.id}`);
}

describe('m pages touched after a restore make a checkpoint of m pages', () => {
  const folder = storeFolders();
  let store: CheckpointStore;
  let models: Uint8Array[];
  let original: Region;
  /** 1: pages 0 to 599. 2: 10 of these written, 100 zeroed, 20 holes written. 3: 5 more. Pages 700 on are holes. */
  beforeEach(async () => {
    store = await CheckpointStore.open(folder(), { createIfMissing: true });
    original = Region.allocate(PAGES * PAGE);
    models = [];
    await withCheckpointer(store, { regions: { r: original } }, async (c) => {
      stamp(original, range(0, 600), 1);
      await c.checkpoint();
      models.push(copyOf(original));
      stamp(original, [...range(40, 10), ...range(600, 20)], 2);
      bytesOf(original).fill(0, 200 * PAGE, 300 * PAGE);
      await c.checkpoint();
      models.push(copyOf(original));
      stamp(original, range(100, 5), 3);
      await c.checkpoint();
      models.push(copyOf(original));
    });
  });
  afterEach(() => store.close());
  const touched = [0, 45, 199, 200, 250, 299, 300, 599, 610, 700, 1000, 1023];

  it('in fresh memory', async () => {
    const region = Region.allocate(PAGES * PAGE);
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      const restoration = await c.restore();
      assertSame(region, models[2]!);
      const { inPlace, filledPages } = restoration.stats();
      assert.deepEqual([inPlace, filledPages], [false, 520]);
      await assertExact(c, store, region, touched);
    });
  });

  it('in fresh shared memory', async () => {
    const region = Region.allocate(PAGES * PAGE, { shared: true });
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      await c.restore(2);
      assertSame(region, models[1]!);
      await assertExact(c, store, region, touched);
    });
  });

  for (const shared of [false, true]) {
    it(`in ${shared ? 'shared ' : ''}memory that held something else`, async () => {
      const region = Region.allocate(PAGES * PAGE, { shared });
      stamp(region, [...range(0, 50), ...range(550, 100), ...range(800, 100)], 50);
      await withCheckpointer(store, { regions: { r: region } }, async (c) => {
        await c.restore();
        assertSame(region, models[2]!);
        await assertExact(c, store, region, touched);
      });
    });
  }

  it('in place, forwards and backwards, with only what differs filled', async () => {
    await withCheckpointer(store, { regions: { r: original } }, async (c) => {
      const view = bytesOf(original);
      stamp(original, [7, 8, 900], 60);
      let stats = (await c.restore(3)).stats();
      assertSame(original, models[2]!);
      assert.deepEqual([stats.inPlace, stats.filledPages, stats.zeroedPages], [true, 2, 1], 'undo');
      stats = (await c.restore(1)).stats();
      assertSame(original, models[0]!);
      // Back: 10 + 100 + 5 pages get older contents, 20 become holes again.
      assert.deepEqual([stats.inPlace, stats.filledPages, stats.zeroedPages], [true, 115, 20], 'to 1');
      stats = (await c.restore(3)).stats();
      assertSame(original, models[2]!);
      assert.deepEqual([stats.inPlace, stats.filledPages, stats.zeroedPages], [true, 35, 100], 'to 3');
      stats = (await c.restore(3)).stats();
      assert.deepEqual([stats.filledPages, stats.zeroedPages], [0, 0], 'nothing to do');
      await c.restore(2);
      assertSame(view, models[1]!, 'the old view');
      await assertExact(c, store, original, touched);
    });
  });

  it('in place, with everything written since', async () => {
    await withCheckpointer(store, { regions: { r: original } }, async (c) => {
      stamp(original, range(0, PAGES), 70);
      await c.restore(1);
      assertSame(original, models[0]!);
      await assertExact(c, store, original, touched);
    });
  });

  it('in memory of which parts were dropped', async () => {
    const buffer = resizable(PAGES * PAGE);
    const region = Region.of(buffer);
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      await c.restore(3);
      buffer.resize(256 * PAGE);
      buffer.resize(PAGES * PAGE);
      await c.restore(3);
      assertSame(region, models[2]!, 'after dropping');
      await assertExact(c, store, region, touched);
      buffer.resize(512 * PAGE);
      buffer.resize(PAGES * PAGE);
      const model = copyOf(region);
      // 512 to 619 and what the touches added behind it.
      const { pages, zeroPages } = (await c.checkpoint()).regions.r!;
      assert.deepEqual([pages, zeroPages], [0, 108 + 3]);
      assertSame(await stored(store, c.head!.id), model, 'dropped');
    });
  });

  it('in WebAssembly memory that grows to what is stored, or is larger', async () => {
    const memory = new Memory({ initial: 1, maximum: 128 });
    await withCheckpointer(store, { regions: { r: Region.of(memory) } }, async (c) => {
      stamp(new Uint8Array(memory.buffer), range(0, 16), 80);
      await c.restore(2);
      assert.equal(memory.buffer.byteLength, PAGES * PAGE);
      assertSame(new Uint8Array(memory.buffer), models[1]!);
      await assertExact(c, store, new Uint8Array(memory.buffer), touched);
      memory.grow(2);
      stamp(new Uint8Array(memory.buffer), [1030, 1040], 81);
      assert.equal((await c.checkpoint()).regions.r!.pages, 2);
      await c.restore(1);
      const bytes = new Uint8Array(memory.buffer);
      assertSame(bytes.subarray(0, PAGES * PAGE), models[0]!);
      assert.ok(
        bytes.subarray(PAGES * PAGE).every((byte) => byte === 0),
        'the tail',
      );
      await assertExact(c, store, bytes, [...touched, 1030, 1055]);
    });
  });
});
