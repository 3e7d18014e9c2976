import assert from 'node:assert/strict';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assertSame, bytesOf, copyOf, hashOf, PAGE, range, restoredFresh, stamp, stored } from '../support/kit.js';
import { Memory } from '../support/memories.js';

describe('a restore of some regions', () => {
  const folder = storeFolders();
  let path: string;
  let store: CheckpointStore;
  let a: Region;
  let b: Region;
  let d: Region;
  let c: Checkpointer;
  const models: Record<string, Uint8Array>[] = [];
  beforeEach(async () => {
    models.length = 0;
    path = folder();
    store = await CheckpointStore.open(path, { createIfMissing: true });
    [a, b, d] = [Region.allocate(32 * PAGE), Region.allocate(16 * PAGE), Region.allocate(8 * PAGE)];
    c = await Checkpointer.open<string>(store, { regions: { a, b, d } });
    for (const k of [1, 2, 3]) {
      stamp(a, range(0, 10 * k), k);
      stamp(b, [k, 5], k);
      stamp(d, k, k);
      models.push({ a: copyOf(a), b: copyOf(b), d: copyOf(d) });
      await c.checkpoint();
    }
  });
  afterEach(async () => {
    await c.close();
    await store.close();
  });
  const at = (id: number, name: string) => models[id - 1]![name]!;

  it('changes these and no others; what is left out is stored whole next', async () => {
    stamp(a, [0, 31], 8);
    stamp(b, 9, 8);
    const [mine, own] = [copyOf(b), copyOf(d)];
    const restoration = await c.restore(1, { regions: ['a'] });
    assert.deepEqual([restoration.checkpoint.id, restoration.stats().inPlace], [1, true]);
    assertSame(a, at(1, 'a'));
    assertSame(b, mine);
    assertSame(d, own);
    assert.deepEqual([c.head?.id, c.base?.id], [3, 1]);
    const next = await c.checkpoint();
    assert.deepEqual([next.id, next.parent, next.kind], [4, 1, 'incremental']);
    // Of b there are pages 1, 2, 3, 5, 9, of d 1, 2, 3.
    assert.deepEqual(
      Object.values(next.regions).map(({ pages }) => pages),
      [0, 5, 3],
    );
    assertSame(await stored(store, 4, 'a'), at(1, 'a'));
    assertSame(await stored(store, 4, 'b'), mine);
    assertSame(await stored(store, 4, 'd'), own);
    stamp(b, 4, 9);
    const last = await c.checkpoint();
    assert.deepEqual(
      Object.values(last.regions).map(({ pages }) => pages),
      [0, 1, 0],
    );
    for (const id of [1, 2, 3]) for (const name of ['a', 'b', 'd']) assertSame(await stored(store, id, name), at(id, name));
  });

  it('changes only what differs, and what was never stored becomes zero', async () => {
    stamp(a, 31, 9);
    const { filledPages, zeroedPages } = (await c.restore(2, { regions: ['a', 'd'] })).stats();
    // a: 30 pages were written in checkpoint 3, of which 20 were there; d: page 3 is zero again.
    assert.deepEqual([filledPages, zeroedPages], [20, 12]);
    assertSame(a, at(2, 'a'));
    assertSame(d, at(2, 'd'));
    assertSame(b, at(3, 'b'));
  });

  it('back and forth: each region at a time of its own', async () => {
    await c.restore(1, { regions: ['a'] });
    await c.restore(2, { regions: ['b'] });
    await c.restore(3, { regions: ['d', 'd'] });
    assertSame(a, at(1, 'a'));
    assertSame(b, at(2, 'b'));
    assertSame(d, at(3, 'd'));
    stamp(a, 3, 7);
    const model = { a: copyOf(a), b: copyOf(b), d: copyOf(d) };
    const mixed = await c.checkpoint();
    assert.deepEqual([mixed.parent, mixed.regions.a!.pages, mixed.regions.b!.pages, mixed.regions.d!.pages], [3, 10, 3, 0]);
    for (const id of [1, 3, 2]) {
      await c.restore(id);
      for (const [name, memory] of Object.entries({ a, b, d })) assertSame(memory, at(id, name), `${name} at ${id}`);
    }
    await c.restore('main');
    for (const [name, memory] of Object.entries({ a, b, d })) assertSame(memory, model[name as 'a'], name);
  });

  it('undo and redo with writes between', async () => {
    const other = copyOf(d);
    for (const id of [2, 1, 3, 1, 2, 3]) {
      stamp(a, [id, 30], 50 + id);
      stamp(b, id, 50 + id);
      await c.restore(id, { regions: ['a', 'b'] });
      assertSame(a, at(id, 'a'), `a at ${id}`);
      assertSame(b, at(id, 'b'), `b at ${id}`);
      assertSame(d, other);
    }
    const next = await c.checkpoint();
    assert.deepEqual([next.parent, next.regions.a!.pages, next.regions.b!.pages, next.regions.d!.pages], [3, 0, 0, 3]);
  });

  it('with all names is the same as without', async () => {
    await c.restore(1, { regions: ['d', 'b', 'a'] });
    const next = await c.checkpoint();
    assert.deepEqual([next.parent, next.rawBytes], [1, 0]);
  });

  it('of a checkpoint that has others, or lacks some', async () => {
    const e = Region.allocate(4 * PAGE);
    stamp(e, 1, 1);
    c.attach('e', e);
    c.detach('b');
    await c.restore(2, { regions: ['a', 'd'] });
    assertSame(a, at(2, 'a'));
    await assert.rejects(c.restore(2, { regions: ['a', 'e'] }), { code: 'TIDEMARK_REGION_MISMATCH' });
    await assert.rejects(c.restore(2), { code: 'TIDEMARK_REGION_MISMATCH', hint: /regions/ });
    assert.equal(c.base?.id, 2);
    const next = await c.checkpoint();
    assert.deepEqual(Object.keys(next.regions).sort(), ['a', 'd', 'e']);
    assert.deepEqual([next.parent, next.regions.a!.pages, next.regions.d!.pages, next.regions.e!.pages], [2, 0, 0, 1]);
    assertSame(await stored(store, next.id, 'e'), copyOf(e));
  });

  it('that fails before anything is changed leaves all as it was', async () => {
    stamp(b, 9, 8);
    const model = { a: copyOf(a), b: copyOf(b), d: copyOf(d) };
    await assert.rejects(c.restore(77, { regions: ['a'] }), { code: 'TIDEMARK_NOT_FOUND' });
    const small = Region.allocate(PAGE);
    c.detach('d');
    c.attach('d', small);
    await assert.rejects(c.restore(1, { regions: ['d'] }), { code: 'TIDEMARK_REGION_MISMATCH' });
    c.detach('d');
    await assert.rejects(c.restore(1, { regions: ['a'], signal: AbortSignal.abort() }), { code: 'TIDEMARK_ABORTED' });
    c.attach('d', d);
    for (const [name, memory] of Object.entries({ a, b, d })) assertSame(memory, model[name as 'a'], name);
    const next = await c.checkpoint();
    assert.deepEqual([next.parent, next.regions.a!.pages, next.regions.b!.pages, next.regions.d!.pages], [3, 0, 1, 0]);
  });

  it('names are checked', async () => {
    for (const regions of [[], 'a', {}, null, [1], ['x'], ['a', 'x']])
      await assert.rejects(c.restore(1, { regions: regions as never }), TypeError, JSON.stringify(regions));
    await assert.rejects(c.restore(1, { regions: ['a b'] }), RangeError);
    assertSame(a, at(3, 'a'));
  });

  it('into memory that is larger than what was stored: the rest is zero', async () => {
    const memory = new Memory({ initial: 1, maximum: 8 });
    const bytes = () => new Uint8Array(memory.buffer);
    const m = Region.of(memory);
    c.attach('m', m);
    stamp(bytes(), range(0, 16), 1);
    const small = bytes().slice();
    await c.checkpoint();
    for (const known of [true, false]) {
      if (known) memory.grow(2);
      stamp(bytes(), [3, 16, 47], 2);
      const before = copyOf(b);
      if (!known) {
        c.detach('m');
        await c.checkpoint();
        c.attach('m', m);
      }
      await c.restore(4, { regions: ['m'] });
      assert.equal(bytes().length, 48 * PAGE);
      assertSame(bytes().slice(0, 16 * PAGE), small);
      assert.ok(
        bytes()
          .subarray(16 * PAGE)
          .every((byte) => byte === 0),
      );
      assertSame(b, before);
      stamp(bytes(), [20, 47], 3);
      const next = await c.checkpoint();
      assert.deepEqual([next.parent, next.regions.m!.byteLength, next.regions.m!.pages], [4, 48 * PAGE, 2]);
      assertSame(await stored(store, next.id, 'm'), bytes().slice());
    }
    // And into memory that is smaller it grows.
    const fresh = new Memory({ initial: 1, maximum: 8 });
    c.detach('m');
    c.attach('m', Region.of(fresh));
    await c.restore('main', { regions: ['m'] });
    assertSame(new Uint8Array(fresh.buffer), bytes().slice());
  });

  it('in another process, with the rest of the memory as it was there', async () => {
    await c.close();
    await store.close();
    const result = await inChild(
      {},
      async ({ Checkpointer, Region, PAGE, stamp, hashOf, crash }, path) => {
        const [a, b] = [Region.allocate(32 * PAGE), Region.allocate(16 * PAGE)];
        stamp(b, [0, 15], 77);
        const before = hashOf(b);
        const c = await Checkpointer.open<string>(path, { regions: { a, b } });
        const { stats } = await c.restore(2, { regions: ['a'] });
        const restored = hashOf(a);
        const same = hashOf(b) === before;
        const { parent, regions } = await c.checkpoint();
        const pages = Object.entries(regions).map(([name, region]) => [name, region.pages]);
        return crash({ inPlace: stats().inPlace, restored, same, parent, pages, hashes: [hashOf(a), hashOf(b)] });
      },
      path,
    );
    assert.deepEqual([result.inPlace, result.same, result.parent], [false, true, 2]);
    assert.deepEqual(result.pages, [
      ['a', 0],
      ['b', 2],
    ]);
    assert.equal(result.restored, hashOf(at(2, 'a')));
    for (const [k, name] of ['a', 'b'].entries()) assert.equal(hashOf(await restoredFresh(path, 'main', name)), result.hashes[k]);
    store = await CheckpointStore.open(path);
    const whole = { a: Region.allocate(32 * PAGE), b: Region.allocate(16 * PAGE), d: Region.allocate(8 * PAGE) };
    c = await Checkpointer.open<string>(store, { regions: whole });
    // Over what is in memory, though nothing of it is known.
    stamp(whole.d, range(0, 8), 9);
    bytesOf(whole.a).fill(1);
    await c.restore(3, { regions: ['d'] });
    assertSame(whole.d, at(3, 'd'));
    assert.ok(bytesOf(whole.a).every((byte) => byte === 1));
    await c.restore(3);
    for (const name of ['a', 'b', 'd'] as const) assertSame(whole[name], at(3, name), name);
  });
});
