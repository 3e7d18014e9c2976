import assert from 'node:assert/strict';
import { type Checkpoint, Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { copyOf, noise, PAGE, range, stamp } from '../support/kit.js';
import { Memory } from '../support/memories.js';

describe('lengths', () => {
  const folder = storeFolders();
  let path: string;
  let store: CheckpointStore;
  let a: Region;
  let memory: InstanceType<typeof Memory>;
  let c: Checkpointer;
  beforeEach(async () => {
    path = folder();
    store = await CheckpointStore.open(path, { createIfMissing: true });
    a = Region.allocate(8 * PAGE);
    stamp(a, range(0, 8), 1);
    memory = new Memory({ initial: 1, maximum: 8 });
    stamp(new Uint8Array(memory.buffer), range(0, 16), 2);
    c = await Checkpointer.open<string>(store, { regions: { a, m: Region.of(memory) } });
  });
  afterEach(async () => {
    await c.close();
    await store.close();
  });
  const lengthsOf = ({ regions }: Checkpoint) => Object.values(regions).map(({ length }) => length);
  const streamed = async (id: number, name: string): Promise<Buffer> => {
    const snapshot = await store.at(id);
    const pieces: Uint8Array[] = [];
    for await (const piece of snapshot.stream(name)) pieces.push(piece);
    await snapshot.close();
    return Buffer.concat(pieces);
  };

  it('are of one checkpoint each, and end what is streamed', async () => {
    const model = copyOf(a);
    const given = [{}, { a: 0 }, { a: 1 }, { a: PAGE + 1 }, { a: 8 * PAGE }, { m: 5 }, { a: 7, m: 65_536 }, undefined];
    const expected = [8 * PAGE, 0, 1, PAGE + 1, 8 * PAGE, 8 * PAGE, 7, 8 * PAGE];
    for (const [k, lengths] of given.entries()) {
      const checkpoint = await c.checkpoint(lengths === undefined ? {} : { lengths: lengths as Record<string, number> });
      assert.deepEqual(lengthsOf(checkpoint), [expected[k], k === 5 ? 5 : 65_536]);
    }
    await c.close();
    await store.close();
    store = await CheckpointStore.open(path);
    for (const [k, length] of expected.entries()) {
      assert.equal((await store.find(k + 1))!.regions.a!.length, length);
      const bytes = await streamed(k + 1, 'a');
      assert.equal(Buffer.compare(bytes, model.subarray(0, length)), 0, `checkpoint ${k + 1}`);
    }
    assert.equal((await streamed(6, 'm')).length, 5);
    // Behind the length the bytes are there all the same.
    const snapshot = await store.at(2);
    assert.deepEqual(await snapshot.read('a', 0, 8 * PAGE), model);
    await snapshot.close();
  });

  it('do not keep what lies behind them from being stored or restored', async () => {
    await c.checkpoint({ lengths: { a: 10 } });
    stamp(a, 7, 3);
    const model = copyOf(a);
    assert.equal((await c.checkpoint({ lengths: { a: 10 } })).regions.a!.pages, 1);
    stamp(a, 7, 4);
    const { checkpoint } = await c.restore();
    assert.deepEqual(lengthsOf(checkpoint), [10, 65_536]);
    assert.equal(Buffer.compare(copyOf(a), model), 0);
    await c.restore(1);
    assert.deepEqual(lengthsOf(await c.checkpoint()), [8 * PAGE, 65_536]);
  });

  it('may be as large as the memory is at the call, which may have grown', async () => {
    await c.checkpoint();
    memory.grow(1);
    const grown = await c.checkpoint({ lengths: { m: 65_537 } });
    assert.deepEqual([lengthsOf(grown), grown.regions.m!.byteLength], [[8 * PAGE, 65_537], 131_072]);
    await assert.rejects(c.checkpoint({ lengths: { m: 131_073 } }), RangeError);
    assert.deepEqual(lengthsOf(await c.checkpoint()), [8 * PAGE, 131_072]);
  });

  it('of the wrong kind are refused, and nothing is taken', async () => {
    await c.checkpoint();
    stamp(a, 3, 5);
    for (const lengths of [null, 5, [], { a: '5' }, { a: 1.5 }, { a: Number.NaN }, { b: 5 }, { toString: 5 }])
      await assert.rejects(c.checkpoint({ lengths: lengths as never }), TypeError, JSON.stringify(lengths));
    for (const length of [-1, 8 * PAGE + 1]) await assert.rejects(c.checkpoint({ lengths: { a: length } }), RangeError);
    c.detach('m');
    await assert.rejects(c.checkpoint({ lengths: { m: 5 } }), TypeError);
    assert.equal(c.head?.id, 1);
    assert.equal((await c.checkpoint({ lengths: { a: 5 } })).regions.a!.pages, 1);
  });

  it('belong to the region that has the name at the call, and to no attachment', async () => {
    c.detach('a');
    const other = Region.allocate(2 * PAGE);
    c.attach('a', other);
    await assert.rejects(c.checkpoint({ lengths: { a: 8 * PAGE } }), RangeError);
    const { regions, attachments } = await c.checkpoint({ lengths: { a: 2 * PAGE - 1 }, attachments: { a: noise(10, 1) } });
    assert.deepEqual([regions.a!.length, attachments.a!.byteLength], [2 * PAGE - 1, 10]);
  });
});
