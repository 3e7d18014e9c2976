import assert from 'node:assert/strict';
import { type Checkpoint, Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, bytesOf, copyOf, PAGE, range, stamp } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';
import { Memory } from '../support/memories.js';

const PAGES = 32;
type Contents = Record<string, Uint8Array>;

/** Pages stored of each region. */
const pagesOf = ({ regions }: Checkpoint) =>
  Object.fromEntries(Object.entries(regions).map(([name, { pages }]) => [name, pages]));

describe('attach and detach', () => {
  const folder = storeFolders();
  let path: string;
  let store: CheckpointStore;
  let a: Region;
  let b: Region;
  let c: Checkpointer;
  /** What every checkpoint must hold, by id. */
  const models = new Map<number, Contents>();

  const region = (value: number, pages: Iterable<number> = range(0, PAGES)): Region => {
    const made = Region.allocate(PAGES * PAGE);
    stamp(made, pages, value);
    return made;
  };
  /** A checkpoint of what is in these regions now. */
  const take = async (regions: Record<string, Region>, from = c): Promise<Checkpoint> => {
    const call = from.checkpoint();
    const contents = Object.fromEntries(Object.entries(regions).map(([name, memory]) => [name, copyOf(memory)]));
    const checkpoint = await call;
    models.set(checkpoint.id, contents);
    return checkpoint;
  };
  const assertStored = async (id: number, contents: Contents): Promise<void> => {
    const snapshot = await store.at(id);
    assert.deepEqual(Object.keys(snapshot.checkpoint.regions).sort(), Object.keys(contents).sort(), `regions of ${id}`);
    for (const [name, bytes] of Object.entries(contents))
      assertSame(await snapshot.read(name, 0, bytes.length), bytes, `region ${name} of checkpoint ${id}`);
    await snapshot.close();
  };

  beforeEach(async () => {
    models.clear();
    path = folder();
    store = await CheckpointStore.open(path, { createIfMissing: true });
    [a, b] = [region(1), region(2)];
    c = await Checkpointer.open<string>(store, { regions: { a } });
  });
  afterEach(async () => {
    await c.close();
    await store.close();
  });
  /** A test, after which the store is opened again: every checkpoint is what it was, as it is read from the log and not as this process has it in mind. */
  const test = (title: string, body: () => Promise<void>) =>
    it(title, async () => {
      await body();
      await c.close();
      await store.close();
      store = await CheckpointStore.open(path);
      for (const [id, contents] of models) await assertStored(id, contents);
      await store.close();
      await assertSound(path);
    });

  test('a region is in the checkpoints from the next one on, whole first, and not in those after it is detached', async () => {
    assert.deepEqual(pagesOf(await take({ a })), { a: PAGES });
    c.attach('b', b);
    stamp(a, 3, 3);
    assert.deepEqual(pagesOf(await take({ a, b })), { a: 1, b: PAGES });
    stamp(b, [4, 5], 4);
    const third = await take({ a, b });
    assert.deepEqual([third.kind, pagesOf(third)], ['incremental', { a: 0, b: 2 }]);
    assert.equal(c.detach('b'), b);
    stamp(b, 6, 5);
    assert.deepEqual(pagesOf(await take({ a })), { a: 0 });
    stamp(a, 7, 6);
    assert.deepEqual(pagesOf(await take({ a })), { a: 1 });
  });

  test('of a region that was written only here and there, what has content is stored', async () => {
    await take({ a });
    const sparse = region(5, [0, 7, 31]);
    c.attach('sparse', sparse);
    assert.deepEqual(pagesOf(await take({ a, sparse })), { a: 0, sparse: 3 });
    bytesOf(sparse).fill(0, 7 * PAGE, 8 * PAGE);
    stamp(sparse, 8, 6);
    const { pages, zeroPages } = (await take({ a, sparse })).regions.sparse!;
    assert.deepEqual([pages, zeroPages], [1, 1]);
  });

  test('a region that comes back without a checkpoint between goes on where it was', async () => {
    c.attach('b', b);
    await take({ a, b });
    stamp(b, 3, 3);
    c.detach('b');
    stamp(b, 4, 4);
    c.attach('b', b);
    stamp(b, 5, 5);
    assert.deepEqual(pagesOf(await take({ a, b })), { a: 0, b: 3 });
    // Under another name it is another one.
    c.detach('b');
    c.attach('d', b);
    assert.deepEqual(pagesOf(await take({ a, d: b })), { a: 0, d: PAGES });
  });

  test('a region that comes back after a checkpoint is stored whole', async () => {
    c.attach('b', b);
    await take({ a, b });
    c.detach('b');
    stamp(b, 3, 3);
    await take({ a });
    c.attach('b', b);
    assert.deepEqual(pagesOf(await take({ a, b })), { a: 0, b: PAGES });
    stamp(b, 4, 4);
    assert.deepEqual(pagesOf(await take({ a, b })), { a: 0, b: 1 });
  });

  test('two regions that exchange their names are stored whole', async () => {
    c.attach('b', b);
    await take({ a, b });
    c.detach('a');
    c.detach('b');
    c.attach('a', b);
    c.attach('b', a);
    assert.deepEqual(pagesOf(await take({ a: b, b: a })), { a: PAGES, b: PAGES });
    stamp(a, 1, 9);
    assert.deepEqual(pagesOf(await take({ a: b, b: a })), { a: 0, b: 1 });
  });

  test('another region in the place of one, the content of which is smaller, has nothing of it', async () => {
    c.attach('b', b);
    await take({ a, b });
    c.detach('b');
    const sparse = region(7, [3]);
    c.attach('b', sparse);
    assert.deepEqual(pagesOf(await take({ a, b: sparse })), { a: 0, b: 1 });
    stamp(sparse, 4, 7);
    assert.deepEqual(pagesOf(await take({ a, b: sparse })), { a: 0, b: 1 });
  });

  test('the last region can go; a checkpoint waits for another one', async () => {
    await take({ a });
    c.detach('a');
    await assert.rejects(c.checkpoint(), TypeError);
    await assert.rejects(c.checkpoint({ ifChanged: true }), TypeError);
    await assert.rejects(c.restore(), { code: 'TIDEMARK_REGION_MISMATCH' });
    assert.equal(c.base?.id, 1);
    c.attach('b', b);
    const next = await take({ b });
    assert.deepEqual([next.kind, next.parent, pagesOf(next)], ['incremental', 1, { b: PAGES }]);
  });

  test('of the regions of a full checkpoint they may be others, too', async () => {
    c.detach('a');
    c.attach('b', b);
    const first = await take({ b });
    assert.deepEqual([first.kind, pagesOf(first)], ['full', { b: PAGES }]);
  });

  test('with checkpoints in flight change nothing in them', async () => {
    const calls = [take({ a })];
    c.attach('b', b);
    stamp(a, 1, 3);
    calls.push(take({ a, b }));
    stamp(b, [2, 3], 4);
    calls.push(take({ a, b }));
    c.detach('a');
    stamp(a, range(0, 5), 5);
    calls.push(take({ b }));
    c.attach('a', a);
    stamp(b, 4, 6);
    calls.push(take({ a, b }));
    stamp(a, 9, 7);
    calls.push(take({ a, b }));
    assert.deepEqual((await Promise.all(calls)).map(pagesOf), [
      { a: PAGES },
      { a: 1, b: PAGES },
      { a: 0, b: 2 },
      { b: 0 },
      { a: PAGES, b: 1 },
      { a: 1, b: 0 },
    ]);
  });

  test('a region that goes while its pages are in flight, and comes back before or after they are committed, is stored whole', async () => {
    c.attach('b', b);
    await take({ a, b });
    for (const late of [false, true]) {
      stamp(b, 3, late ? 5 : 3);
      const call = take({ a, b });
      c.detach('b');
      stamp(b, 4, late ? 6 : 4);
      if (late) await call;
      c.attach('b', b);
      const [first, second] = [await call, await take({ a, b })];
      assert.deepEqual(
        [pagesOf(first), pagesOf(second)],
        [
          { a: 0, b: 1 },
          { a: 0, b: PAGES },
        ],
      );
    }
  });

  test('a region goes from one checkpointer to another while it is in flight at the first', async () => {
    const other = await Checkpointer.open<string>(store, { regions: { b }, branch: 'other' });
    await take({ a });
    await take({ b }, other);
    stamp(a, [1, 2], 3);
    const first = take({ a });
    other.attach('a', c.detach('a'));
    stamp(a, 5, 4);
    const second = take({ a, b }, other);
    stamp(a, 6, 5);
    const third = take({ a, b }, other);
    assert.deepEqual((await Promise.all([first, second, third])).map(pagesOf), [{ a: 2 }, { a: PAGES, b: 0 }, { a: 1, b: 0 }]);
    // And back, with what it has written there.
    c.attach('a', other.detach('a'));
    assert.deepEqual(pagesOf(await take({ a })), { a: PAGES });
    await other.close();
  });

  test('a region that another checkpointer has taken pages of in the meantime is stored whole, whatever commits late', async () => {
    const other = await Checkpointer.open<string>(store, { regions: { a: region(8) }, branch: 'other' });
    await other.checkpoint();
    c.attach('b', b);
    const late = take({ a, b });
    other.attach('x', c.detach('b'));
    stamp(b, 7, 9);
    // It takes page 7, and does not keep the region until that is committed.
    const taken = other.checkpoint();
    other.detach('x');
    c.attach('b', region(3));
    await late;
    await taken;
    c.detach('b');
    c.attach('b', b);
    assert.deepEqual(pagesOf(await take({ a, b })), { a: 0, b: PAGES });
    await other.close();
  });

  for (const inFlight of [true, false]) {
    test(`a region that goes ${inFlight ? 'with' : 'without'} pages in flight ${inFlight ? 'does not descend' : 'descends'} from the checkpoint before, for another checkpointer`, async () => {
      c.attach('b', b);
      const { id } = await take({ a, b });
      const copy = Region.allocate(PAGES * PAGE);
      const other = await Checkpointer.open<string>(store, { regions: { a: copy }, branch: 'other' });
      await other.restore(id, { regions: ['a'] });
      stamp(b, 3, 9);
      const call = inFlight ? take({ a, b }) : undefined;
      other.attach('b', c.detach('b'));
      stamp(b, 4, 9);
      const next = await take({ a: copy, b }, other);
      assert.deepEqual([next.parent, pagesOf(next)], [id, { a: 0, b: inFlight ? PAGES : 2 }]);
      await call;
      await other.close();
    });
  }

  test("with something in flight nothing that is attached counts as known, for its checkpoint may not be the next one's parent", async () => {
    c.attach('b', b);
    await take({ a, b });
    c.detach('b');
    stamp(b, 3, 9);
    // This one commits without b: what b descends from is not the parent of the next.
    const call = take({ a });
    c.attach('b', b);
    stamp(b, 4, 9);
    const next = take({ a, b });
    assert.deepEqual([pagesOf(await call), pagesOf(await next)], [{ a: 0 }, { a: 0, b: PAGES }]);
  });

  test('grow with their source', async () => {
    const memory = new Memory({ initial: 1, maximum: 8 });
    const bytes = () => new Uint8Array(memory.buffer);
    const grows = Region.of(memory);
    stamp(bytes(), range(0, 16), 3);
    await take({ a });
    c.attach('m', grows);
    memory.grow(1);
    stamp(bytes(), 20, 4);
    const first = await c.checkpoint();
    models.set(first.id, { a: copyOf(a), m: bytes().slice() });
    assert.deepEqual([first.regions.m!.byteLength, first.regions.m!.pages], [32 * PAGE, 17]);
    c.detach('m');
    memory.grow(1);
    stamp(bytes(), [2, 40], 5);
    c.attach('m', grows);
    const second = await c.checkpoint();
    models.set(second.id, { a: copyOf(a), m: bytes().slice() });
    assert.deepEqual([second.regions.m!.byteLength, second.regions.m!.pages], [48 * PAGE, 2]);
  });

  test('a region that is detached is free: to be closed, to be tracked by others, to be used by another checkpointer', async () => {
    await take({ a });
    const call = take({ a });
    c.detach('a');
    a.close();
    const again = Region.of(new Uint8Array(a.buffer, 0, PAGES * PAGE));
    await call;
    c.attach('a', again);
    stamp(a.buffer instanceof ArrayBuffer ? new Uint8Array(a.buffer) : a, 3, 8);
    const next = await c.checkpoint();
    models.set(next.id, { a: copyOf(new Uint8Array(again.buffer)) });
    assert.deepEqual(pagesOf(next), { a: PAGES });
    c.detach('a');
    assert.deepEqual([...again.takeDirtyRanges()], []);
    stamp(new Uint8Array(again.buffer), 5, 9);
    assert.deepEqual([...again.takeDirtyRanges()], [5, 1]);
    // Its dirty pages were taken by others.
    c.attach('a', again);
    const last = await c.checkpoint();
    models.set(last.id, { a: copyOf(new Uint8Array(again.buffer)) });
    assert.deepEqual(pagesOf(last), { a: PAGES });
  });

  test('what is refused', async () => {
    await take({ a });
    const other = await Checkpointer.open<string>(store, { regions: { b }, branch: 'other' });
    assert.throws(() => c.attach('b', b), { code: 'TIDEMARK_REGION_BUSY' });
    assert.throws(() => c.attach('c', a), { code: 'TIDEMARK_REGION_BUSY' });
    const free = region(3);
    assert.throws(() => c.attach('a', free), TypeError);
    assert.throws(() => c.attach('a b', free), RangeError);
    assert.throws(() => c.attach('x', {} as never), TypeError);
    assert.throws(() => c.detach('b'), { code: 'TIDEMARK_NOT_FOUND' });
    assert.throws(() => c.detach('constructor'), { code: 'TIDEMARK_NOT_FOUND' });
    const closed = region(4);
    closed.close();
    assert.throws(() => c.attach('x', closed), { code: 'TIDEMARK_CLOSED' });
    const restoring = c.restore();
    assert.throws(() => c.attach('x', free), { code: 'TIDEMARK_REGION_BUSY' });
    assert.throws(() => c.detach('a'), { code: 'TIDEMARK_REGION_BUSY' });
    await restoring;
    // Nothing of it has had an effect, and what was refused here is free for others.
    stamp(a, 1, 5);
    assert.deepEqual(pagesOf(await take({ a })), { a: 1 });
    c.attach('x', free);
    await other.close();
    b.close();
  });

  test('a checkpointer that closes gives the regions free that it has by then', async () => {
    c.attach('b', b);
    c.detach('a');
    a.close();
    await take({ b });
    await c.close();
    assert.throws(() => c.attach('a', region(1)), { code: 'TIDEMARK_CLOSED' });
    assert.throws(() => c.detach('b'), { code: 'TIDEMARK_CLOSED' });
    // The memory goes on where it was.
    stamp(b, 2, 6);
    c = await Checkpointer.open<string>(store, { regions: { b } });
    assert.equal(c.base?.id, 1);
    assert.deepEqual(pagesOf(await take({ b })), { b: 1 });
  });

  test('opened again in the same process without what was detached, or with it: what does not fit is not built on', async () => {
    c.attach('b', b);
    await take({ a, b });
    c.detach('b');
    await c.close();
    c = await Checkpointer.open<string>(store, { regions: { a } });
    assert.equal(c.base, undefined);
    await assert.rejects(c.checkpoint(), { code: 'TIDEMARK_NOT_RESTORED' });
    await c.close();
    c = await Checkpointer.open<string>(store, { regions: { a, b } });
    assert.equal(c.base?.id, 1);
    stamp(b, 3, 3);
    assert.deepEqual(pagesOf(await take({ a, b })), { a: 0, b: 1 });
  });

  test('checkpoints with other regions are restored when the regions are those, or are named', async () => {
    await take({ a });
    c.attach('b', b);
    await take({ a, b });
    stamp(a, 1, 3);
    await assert.rejects(c.restore(1), { code: 'TIDEMARK_REGION_MISMATCH' });
    c.detach('b');
    await c.restore(1);
    assertSame(a, models.get(1)!.a!);
    await assert.rejects(c.restore(2), { code: 'TIDEMARK_REGION_MISMATCH' });
    c.attach('b', b);
    stamp(b, [4, 5], 4);
    await c.restore(2);
    assertSame(a, models.get(2)!.a!);
    assertSame(b, models.get(2)!.b!);
    stamp(b, 6, 6);
    assert.deepEqual(pagesOf(await take({ a, b })), { a: 0, b: 1 });
  });

  test('go back and forth with undo: what was attached on the other branch of time has nothing in common', async () => {
    await take({ a });
    c.attach('b', b);
    await take({ a, b });
    c.detach('b');
    await c.restore(1);
    const other = region(9, [0, 1, 2]);
    c.attach('o', other);
    assert.deepEqual(pagesOf(await take({ a, o: other })), { a: 0, o: 3 });
    stamp(other, 5, 5);
    assert.deepEqual(pagesOf(await take({ a, o: other })), { a: 0, o: 1 });
    c.detach('o');
    c.attach('b', b);
    await c.restore(2);
    assertSame(b, models.get(2)!.b!);
  });

  for (const count of [16, 256]) {
    test(`a number is not used again: ${count} checkpoints with regions that come and go, across page tables`, async () => {
      const live = new Map<string, Region>([['a', a]]);
      for (let k = 0; k < count + 20; k++) {
        // Every seventh checkpoint the region goes and another one comes under the same or another name, with fewer pages.
        if (k % 7 === 3 || k === count - 1) {
          const name = k % 2 === 0 ? 'x' : 'y';
          if (live.delete(name)) c.detach(name).close();
          const fresh = region(k, [k % PAGES, (k * 3) % PAGES]);
          live.set(name, fresh);
          c.attach(name, fresh);
        }
        if (k % 11 === 10 && live.delete('x')) c.detach('x').close();
        for (const memory of live.values()) stamp(memory, (k * 5) % PAGES, k);
        const call = c.checkpoint({ durability: 'relaxed' });
        // Not every state is kept: those around the tables, and some.
        const kept =
          k % 16 < 2 || k > count - 2 ? Object.fromEntries([...live].map(([name, memory]) => [name, copyOf(memory)])) : undefined;
        const { id } = await call;
        if (kept !== undefined) models.set(id, kept);
      }
      // The tables that the checkpointer has in mind are those that are loaded.
      await c.restore(count + 10, { regions: ['a'] });
      const loaded = await c.checkpoint();
      assert.equal(loaded.parent, count + 10);
      for (const name of live.keys()) if (name !== 'a') c.detach(name);
      models.set(loaded.id, Object.fromEntries([...live].map(([name, memory]) => [name, copyOf(memory)])));
    }).timeout(120_000);
  }
});
