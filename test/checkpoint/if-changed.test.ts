import assert from 'node:assert/strict';
import { type Checkpoint, Checkpointer, type CheckpointOptions, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assertSame, bytesOf, copyOf, hashOf, noise, PAGE, range, restoredFresh, stamp, stored } from '../support/kit.js';
import { logRecords } from '../support/log-files.js';
import { Memory } from '../support/memories.js';

describe('ifChanged', () => {
  const folder = storeFolders();
  let path: string;
  let store: CheckpointStore;
  let region: Region;
  let c: Checkpointer;
  beforeEach(async () => {
    path = folder();
    store = await CheckpointStore.open(path, { createIfMissing: true });
    region = Region.allocate(32 * PAGE);
    stamp(region, range(0, 32), 1);
    c = await Checkpointer.open<string>(store, { regions: { r: region } });
  });
  afterEach(async () => {
    await c.close();
    await store.close();
  });
  const take = (options: CheckpointOptions = {}) => c.checkpoint({ ifChanged: true, ...options });
  const id = async (options: CheckpointOptions = {}) => (await take(options)).id;

  it('takes the first one, and then none while nothing was written: nothing goes into the log', async () => {
    const empty = Region.allocate(PAGE);
    const other = await Checkpointer.open(store, { regions: { empty }, branch: 'empty' });
    assert.equal((await other.checkpoint({ ifChanged: true })).id, 1);
    assert.equal((await other.checkpoint({ ifChanged: true })).id, 1);
    await other.close();
    const first = await take();
    assert.deepEqual([first.id, first.kind], [2, 'full']);
    for (let k = 0; k < 3; k++) assert.deepEqual(await take(), first);
    assert.deepEqual([c.head?.id, c.base?.id, c.stats().checkpoints], [2, 2, 1]);
    await c.close();
    await store.close();
    const records = (await logRecords(path)).length;
    // Of each a manifest, of this an extent.
    assert.equal(records, 3);
    store = await CheckpointStore.open(path);
    c = await Checkpointer.open<string>(store, { regions: { r: region } });
    for (const durability of ['relaxed', 'sync'] as const) assert.equal(await id({ durability }), 2);
    await c.close();
    await store.close();
    assert.equal((await logRecords(path)).length, records);
  });

  it('takes one for a single byte, for zeros, for a page written with what it had', async () => {
    await take();
    bytesOf(region)[5 * PAGE]!++;
    assert.equal(await id(), 2);
    bytesOf(region).fill(0, 6 * PAGE, 7 * PAGE);
    assert.equal(await id(), 3);
    bytesOf(region)[9 * PAGE] = bytesOf(region)[9 * PAGE]!;
    assert.equal(await id(), 4);
    assert.equal(await id(), 4);
    assertSame(await stored(store, 4), copyOf(region));
  });

  it('metadata and lengths make no difference, a label does', async () => {
    await take({ metadata: 1, lengths: { r: 100 } });
    const same = await take({ metadata: 2, lengths: { r: 200 } });
    assert.deepEqual([same.id, same.metadata, same.regions.r!.length], [1, 1, 100]);
    const labelled = await take({ label: 'x' });
    assert.deepEqual([labelled.id, labelled.label, labelled.regions.r!.pages], [2, 'x', 0]);
    assert.equal(await id(), 2);
    await assert.rejects(take({ label: 'x' }), { code: 'TIDEMARK_NAME_TAKEN' });
    await assert.rejects(take({ ifChanged: 1 as never }), TypeError);
    await assert.rejects(take({ lengths: { r: 33 * PAGE } }), RangeError);
  });

  it('attachments make a difference: bytes, names, one more, one less', async () => {
    const [a, b] = [noise(100, 1), noise(100, 2)];
    const ids: number[] = [];
    const sets = [{ a }, { a: a.slice() }, { a: b }, { b }, { b, a }, { a, b }, { a }, {}, {}, { e: new Uint8Array(0) }, {}];
    for (const attachments of sets) ids.push(await id({ attachments }));
    assert.deepEqual(ids, [1, 1, 2, 3, 4, 4, 5, 6, 6, 7, 8]);
    assert.equal(await id(), 8);
  });

  it('what is compared with is the newest, in flight or not', async () => {
    const calls: Promise<Checkpoint>[] = [
      take(),
      take({ attachments: { a: noise(10, 1) } }),
      take({ attachments: { a: noise(10, 1) } }),
    ];
    stamp(region, 1, 2);
    calls.push(take({ attachments: { a: noise(10, 1) } }), take(), take(), take({ label: 'x' }), take());
    const order: number[] = [];
    for (const [k, call] of calls.entries()) void call.then(() => order.push(k));
    assert.deepEqual(
      (await Promise.all(calls)).map((checkpoint) => checkpoint.id),
      [1, 2, 2, 3, 4, 4, 5, 5],
    );
    assert.deepEqual(order, range(0, 8));
    assert.equal(await id(), 5);
  });

  it('after memory has gone back one is taken, which moves the branch; after a restore of the head none', async () => {
    await take();
    stamp(region, 3, 3);
    await take();
    await c.restore();
    assert.equal(await id(), 2);
    await c.restore(1);
    const moved = await take();
    assert.deepEqual([moved.id, moved.parent, moved.regions.r!.pages], [3, 1, 0]);
    assert.equal((await store.find('main'))?.id, 3);
    assert.equal(await id(), 3);
    // Written, and undone by a restore.
    stamp(region, 4, 4);
    await c.restore();
    assert.equal(await id(), 3);
  });

  it('a checkpoint that fails behind the going back is not what it is compared with', async () => {
    await take();
    stamp(region, 3, 3);
    await take({ label: 'x' });
    await c.restore(1);
    await assert.rejects(take({ label: 'x' }), { code: 'TIDEMARK_NAME_TAKEN' });
    const moved = await take();
    assert.deepEqual([moved.id, moved.parent], [3, 1]);
  });

  it('on a new branch one is taken, though another branch has it', async () => {
    await take();
    await c.close();
    c = await Checkpointer.open<string>(store, { regions: { r: region }, branch: 'side' });
    const side = await take();
    assert.deepEqual([side.id, side.parent, side.branch, side.regions.r!.pages], [2, 1, 'side', 0]);
    assert.equal(await id(), 2);
  });

  it('regions that come or go are a change, also when they are empty; coming back at once is none', async () => {
    const memory = Region.allocate(4 * PAGE);
    await take();
    c.attach('m', memory);
    assert.equal(await id(), 2);
    assert.equal(await id(), 2);
    c.detach('m');
    c.attach('m', memory);
    assert.equal(await id(), 2);
    c.detach('m');
    assert.equal(await id(), 3);
    c.attach('m', memory);
    c.detach('m');
    assert.equal(await id(), 3);
    c.attach('m', Region.allocate(4 * PAGE));
    assert.equal(await id(), 4);
    // Another one of the same size in its place.
    c.detach('m');
    c.attach('m', Region.allocate(4 * PAGE));
    assert.equal(await id(), 5);
    await c.restore(5, { regions: ['r'] });
    assert.equal(await id(), 6, 'what was left out is stored whole');
  });

  it('growth is a change', async () => {
    const memory = new Memory({ initial: 1, maximum: 8 });
    c.attach('m', Region.of(memory));
    await take();
    assert.equal(await id(), 1);
    memory.grow(1);
    const grown = await take();
    assert.deepEqual([grown.id, grown.regions.m!.byteLength, grown.regions.m!.pages], [2, 131_072, 0]);
    assert.equal(await id(), 2);
  });

  it('needs memory that descends from the branch', async () => {
    await take();
    await c.close();
    c = await Checkpointer.open<string>(store, { regions: { r: Region.allocate(32 * PAGE) } });
    await assert.rejects(take(), { code: 'TIDEMARK_NOT_RESTORED' });
    await c.restore();
    assert.equal(await id(), 1);
  });

  it('when what is in flight fails it fails, too, and the next one has everything', async () => {
    const own = folder();
    const result = await inChild(
      { faults: 'log.write:2' },
      async ({ Checkpointer, Region, PAGE, stamp, hashOf, outcome, crash }, path) => {
        const region = Region.allocate(32 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        await c.checkpoint();
        stamp(region, [1, 2], 2);
        const calls = [
          c.checkpoint(),
          c.checkpoint({ ifChanged: true }),
          c.checkpoint({ ifChanged: true, durability: 'relaxed' }),
        ];
        const outcomes = await Promise.all(calls.map(outcome));
        const next = await c.checkpoint({ ifChanged: true });
        const last = await c.checkpoint({ ifChanged: true });
        return crash({ outcomes, next: [next.parent, next.regions.r!.pages], same: next.id === last.id, hash: hashOf(region) });
      },
      own,
    );
    assert.deepEqual(result.outcomes, Array(3).fill('TIDEMARK_WRITE_FAILED'));
    assert.deepEqual([result.next, result.same], [[1, 2], true]);
    assert.equal(hashOf(await restoredFresh(own)), result.hash);
  });

  it('a scan that fails loses nothing: everything counts as written', async () => {
    const result = await inChild(
      { faults: 'capture.scan:2' },
      async ({ Checkpointer, Region, PAGE, stamp }, path) => {
        const region = Region.allocate(32 * PAGE);
        stamp(region, [1, 2, 3], 1);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        const ids: number[] = [];
        for (let k = 0; k < 3; k++) ids.push((await c.checkpoint({ ifChanged: true })).id);
        await c.close();
        return ids;
      },
      folder(),
    );
    assert.deepEqual(result, [1, 2, 2]);
  });
});
