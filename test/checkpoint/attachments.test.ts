import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Checkpoint, Checkpointer, CheckpointStore, Engine, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assertSame, copyOf, noise, PAGE, stagingFree, stamp, withCheckpointer } from '../support/kit.js';
import { assertSound, damageExtent, extentNumbers } from '../support/log-files.js';

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** All attachments of a checkpoint, as the store reads them. */
async function attachmentsOf(store: CheckpointStore, target: number | string): Promise<Record<string, Uint8Array>> {
  const snapshot = await store.at(target);
  try {
    const names = Object.keys(snapshot.checkpoint.attachments);
    return Object.fromEntries(await Promise.all(names.map(async (name) => [name, await snapshot.attachment(name)] as const)));
  } finally {
    await snapshot.close();
  }
}

function assertEqual(actual: Record<string, Uint8Array>, expected: Record<string, Uint8Array>): void {
  assert.deepEqual(Object.keys(actual).sort(), Object.keys(expected).sort());
  for (const [name, bytes] of Object.entries(expected)) {
    assert.equal(actual[name]!.length, bytes.length, `${name}: length`);
    assert.equal(Buffer.compare(actual[name]!, bytes), 0, `${name}: bytes`);
  }
}

describe('an attachment', () => {
  const folder = storeFolders();
  let path: string;
  let store: CheckpointStore;
  let region: Region;
  let c: Checkpointer<'r'>;
  let engine: Engine;
  beforeEach(async () => {
    path = folder();
    engine = new Engine({ workers: 2, maxStagingBytes: 4 << 20 });
    store = await CheckpointStore.open(path, { createIfMissing: true, engine });
    region = Region.allocate(64 * PAGE);
    c = await Checkpointer.open(store, { regions: { r: region } });
  });
  afterEach(async () => {
    await c.close();
    await store.close();
    await engine.close();
  });

  const SIZES = [0, 1, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1, (3 << 20) + 1];

  it('of any size is what it was at the call, in all ways of reading it', async () => {
    const given = Object.fromEntries(SIZES.map((size, k) => [`n${size}`, noise(size, k)]));
    const expected = Object.fromEntries(Object.entries(given).map(([name, bytes]) => [name, bytes.slice()]));
    stamp(region, [1, 2], 1);
    const call = c.checkpoint({ attachments: given });
    for (const bytes of Object.values(given)) bytes.fill(0xee);
    stamp(region, [1, 2], 2);
    const checkpoint = await call;
    assert.deepEqual(
      checkpoint.attachments,
      Object.fromEntries(
        Object.entries(expected).map(([name, bytes]) => [name, { byteLength: bytes.length, sha256: sha256(bytes) }]),
      ),
    );
    assert.deepEqual([checkpoint.regions.r!.pages, checkpoint.rawBytes], [2, 2 * PAGE]);
    assert.ok(await stagingFree(engine));
    assertEqual(await attachmentsOf(store, 1), expected);
    const restoration = await c.restore(1);
    const read = SIZES.map(async (size) => [`n${size}`, await restoration.attachment(`n${size}`)] as const);
    assertEqual(Object.fromEntries(await Promise.all(read)), expected);
  });

  it('larger than all of staging is stored, between regions that are', async () => {
    const big = Region.allocate(2048 * PAGE);
    c.attach('big' as 'r', big);
    stamp(big, Array(2048).keys(), 1);
    const model = copyOf(big);
    const attachments = { a: noise(9 << 20, 1), b: noise((5 << 20) + 77, 2) };
    const expected = { a: attachments.a.slice(), b: attachments.b.slice() };
    const calls = [c.checkpoint({ attachments }), c.checkpoint({ attachments }), c.checkpoint()];
    attachments.a.fill(0);
    attachments.b.fill(0);
    new Uint8Array(big.buffer).fill(0);
    const [first, second, third] = (await Promise.all(calls)) as [Checkpoint, Checkpoint, Checkpoint];
    // By reference its pages are listed, with their checksums.
    assert.deepEqual([first.storedBytes > 22 << 20, second.storedBytes < 32_768, third.storedBytes < 1024], [true, true, true]);
    assertEqual(await attachmentsOf(store, 1), expected);
    assertEqual(await attachmentsOf(store, 2), expected);
    assertEqual(await attachmentsOf(store, 3), {});
    const snapshot = await store.at(2);
    assertSame(await snapshot.read('big', 0, big.byteLength), model);
    assert.ok(await stagingFree(engine));
  });

  it('takes nothing of what was in staging before', async () => {
    const all = Region.allocate(1024 * PAGE);
    c.attach('all' as 'r', all);
    stamp(all, Array(1024).keys(), 1);
    await c.checkpoint();
    const { storedBytes } = await c.checkpoint({ attachments: { a: Uint8Array.of(1), b: new Uint8Array(PAGE + 1) } });
    assert.ok(storedBytes < 1024, `${storedBytes}`);
  });

  it('may lie in any kind of memory, also in a part of it', async () => {
    const shared = new Uint8Array(new SharedArrayBuffer(5000));
    shared.set(noise(5000, 1));
    const growable = new Uint8Array(Region.allocate(2 * PAGE, { shared: true }).buffer);
    growable.set(noise(2 * PAGE, 2));
    const part = noise(3 * PAGE, 3).subarray(100, 100 + PAGE + 1);
    const tracked = new Uint8Array(region.buffer).subarray(10, 9000);
    stamp(region, [0, 1, 2], 4);
    const attachments = { shared, growable, part, tracked, buffer: Buffer.from('text') };
    const expected = Object.fromEntries(Object.entries(attachments).map(([name, bytes]) => [name, Uint8Array.from(bytes)]));
    await c.checkpoint({ attachments });
    assertEqual(await attachmentsOf(store, 1), expected);
  });

  it('that is what it was in the checkpoint before is not stored again', async () => {
    const a = noise(300_000, 1);
    const [first, second, third] = [
      await c.checkpoint({ attachments: { a, empty: new Uint8Array(0) } }),
      await c.checkpoint({ attachments: { a: a.slice(), empty: new Uint8Array(0) } }),
      await c.checkpoint({ attachments: { a } }),
    ];
    assert.ok(first.storedBytes > 300_000, `${first.storedBytes}`);
    assert.ok(second.storedBytes < 1024 && third.storedBytes < 1024, `${second.storedBytes}, ${third.storedBytes}`);
    // One byte makes the difference, the length, too.
    const other = a.slice();
    other[299_999]! ^= 1;
    assert.ok((await c.checkpoint({ attachments: { a: other } })).storedBytes > 300_000);
    const shorter = other.subarray(0, 299_999);
    assert.ok((await c.checkpoint({ attachments: { a: shorter } })).storedBytes > 290_000);
    assertEqual(await attachmentsOf(store, 1), { a, empty: new Uint8Array(0) });
    assertEqual(await attachmentsOf(store, 2), { a, empty: new Uint8Array(0) });
    assertEqual(await attachmentsOf(store, 3), { a });
    assertEqual(await attachmentsOf(store, 4), { a: other });
    assertEqual(await attachmentsOf(store, 5), { a: shorter });
    await c.close();
    await store.close();
    assert.equal((await extentNumbers(path)).length, 3);
    assert.deepEqual(await assertSound(path), [1, 2, 3, 4, 5]);
  });

  it('is compared with that of its own name only', async () => {
    const same = noise(PAGE, 1);
    const stored = async (attachments: Record<string, Uint8Array>) => (await c.checkpoint({ attachments })).storedBytes > PAGE;
    assert.ok((await c.checkpoint({ attachments: { a: same, b: same } })).storedBytes > 2 * PAGE);
    assert.deepEqual(await attachmentsOf(store, 1), { a: same, b: same });
    assert.equal(await stored({ a: same, b: same }), false);
    assert.deepEqual(await attachmentsOf(store, 2), { a: same, b: same });
    assert.equal(await stored({ b: same, c: same }), true);
    // Left out once, it is stored anew.
    assert.equal(await stored({ a: same, b: same }), true);
    assert.deepEqual(await attachmentsOf(store, 4), { a: same, b: same });
    assert.deepEqual(await attachmentsOf(store, 3), { b: same, c: same });
  });

  it('with the name of something that objects have', async () => {
    const names = ['constructor', 'toString', 'hasOwnProperty', '__proto__', 'r'];
    const attachments = Object.fromEntries(names.map((name, k) => [name, noise(10, k)]));
    const checkpoint = await c.checkpoint({ attachments });
    assert.deepEqual(Object.keys(checkpoint.attachments), names);
    assertEqual(await attachmentsOf(store, 1), attachments);
    await c.checkpoint({ attachments });
    assertEqual(await attachmentsOf(store, 2), attachments);
  });

  it('is by reference with several in flight, each as it was at its call', async () => {
    const bytes = noise(200_000, 1);
    await c.checkpoint({ attachments: { a: bytes } });
    const models: Uint8Array[] = [];
    const calls: Promise<Checkpoint>[] = [];
    for (const changed of [true, false, true, false, false]) {
      if (changed) bytes[5]!++;
      models.push(bytes.slice());
      calls.push(c.checkpoint({ attachments: { a: bytes } }));
    }
    const done = await Promise.all(calls);
    assert.deepEqual(
      done.map(({ storedBytes }) => storedBytes > 100_000),
      [true, false, true, false, false],
    );
    for (const [k, model] of models.entries()) assertEqual(await attachmentsOf(store, k + 2), { a: model });
  });

  it('is compared with that of the checkpoint that memory went back to', async () => {
    const [a, b] = [noise(PAGE, 1), noise(PAGE, 2)];
    const stored = async (bytes: Uint8Array) => (await c.checkpoint({ attachments: { a: bytes } })).storedBytes > PAGE;
    assert.deepEqual([await stored(a), await stored(b)], [true, true]);
    await c.restore(1);
    assert.equal(await stored(a), false);
    await c.restore(2);
    assert.deepEqual([await stored(a), await stored(a)], [true, false]);
    for (const [id, bytes] of [a, b, a, a, a].entries()) assertEqual(await attachmentsOf(store, id + 1), { a: bytes });
  });

  it('is by reference when a checkpointer is opened again on the same memory', async () => {
    const a = noise(PAGE, 1);
    await c.checkpoint({ attachments: { a } });
    await c.close();
    c = await Checkpointer.open(store, { regions: { r: region } });
    assert.ok((await c.checkpoint({ attachments: { a } })).storedBytes < 1024);
    assertEqual(await attachmentsOf(store, 2), { a });
  });

  it('is there after many checkpoints by reference, whatever is loaded', async () => {
    const a = noise(PAGE + 5, 1);
    for (let k = 0; k < 35; k++) {
      stamp(region, k, k);
      await c.checkpoint({ attachments: { a }, durability: 'relaxed' });
    }
    for (const id of [1, 16, 17, 18, 34, 35]) assertEqual(await attachmentsOf(store, id), { a });
    await c.restore(17);
    stamp(region, 50, 50);
    assert.ok((await c.checkpoint({ attachments: { a } })).storedBytes < PAGE + 1024);
    assertEqual(await attachmentsOf(store, 36), { a });
  });

  it('that is not there is not found, by its own checkpoint', async () => {
    await c.checkpoint({ attachments: { a: noise(10, 1) } });
    await c.checkpoint();
    const snapshot = await store.at(2);
    for (const name of ['a', 'toString', '__proto__'])
      await assert.rejects(snapshot.attachment(name), { code: 'TIDEMARK_NOT_FOUND' });
    await assert.rejects(snapshot.attachment(1 as never), TypeError);
    await snapshot.close();
    await assert.rejects(snapshot.attachment('a'), { code: 'TIDEMARK_CLOSED' });
    const restoration = await c.restore(1);
    await assert.rejects(restoration.attachment('b'), { code: 'TIDEMARK_NOT_FOUND' });
    await assert.rejects(restoration.attachment(undefined as never), TypeError);
    // Still that checkpoint, whatever was restored and taken since.
    await c.restore(2);
    await c.checkpoint({ attachments: { a: noise(10, 2) } });
    assert.deepEqual(await restoration.attachment('a'), noise(10, 1));
    await c.close();
    assert.deepEqual(await restoration.attachment('a'), noise(10, 1));
    await store.close();
    await assert.rejects(restoration.attachment('a'), { code: 'TIDEMARK_CLOSED' });
  });

  it('of the wrong type or name is refused, and nothing is taken', async () => {
    stamp(region, 3, 1);
    const bytes = new Uint8Array(1);
    for (const attachments of [null, 1, 'a', [bytes], { a: undefined }, { a: 'text' }, { a: [1] }, { a: new Uint16Array(1) }])
      await assert.rejects(c.checkpoint({ attachments: attachments as never }), TypeError, JSON.stringify(attachments));
    for (const attachments of [{ a: new ArrayBuffer(1) }, { a: new DataView(new ArrayBuffer(1)) }])
      await assert.rejects(c.checkpoint({ attachments: attachments as never }), TypeError);
    await assert.rejects(c.checkpoint({ attachments: new Map([['a', bytes]]) as never }), TypeError);
    for (const name of ['', '1', 'a b', 'ä', '-a', `a${'b'.repeat(128)}`])
      await assert.rejects(c.checkpoint({ attachments: { [name]: bytes } }), RangeError, name);
    assert.equal(c.head, undefined);
    assert.equal((await c.checkpoint()).regions.r!.pages, 1);
  });

  it('that is damaged is named, and neither the memory nor the other attachments are affected', async () => {
    stamp(region, [1, 2], 1);
    const model = copyOf(region);
    const [a, b] = [noise(3 * PAGE, 1), noise(2 * PAGE, 2)];
    await c.checkpoint();
    await c.checkpoint({ attachments: { a } });
    await c.checkpoint({ attachments: { a, b } });
    await c.close();
    await store.close();
    // In the log: the region's, a's, b's.
    await damageExtent(path, 1);
    store = await CheckpointStore.open(path, { engine });
    c = await Checkpointer.open(store, { regions: { r: Region.allocate(64 * PAGE) } });
    const restoration = await c.restore();
    for (const id of [2, 3]) {
      const snapshot = await store.at(id);
      assertSame(await snapshot.read('r', 0, 64 * PAGE), model);
      await assert.rejects(snapshot.attachment('a'), (error: Error & { code: string }) => {
        assert.equal(error.code, 'TIDEMARK_DAMAGED');
        assert.match(error.message, /attachment a\b/);
        return true;
      });
    }
    await assert.rejects(restoration.attachment('a'), { code: 'TIDEMARK_DAMAGED', message: /attachment a\b/ });
    assert.deepEqual(await restoration.attachment('b'), b);
    for (const readData of [true, false]) {
      const { problems } = await store.verify({ readData });
      assert.deepEqual(
        problems.map(({ code, checkpoint, region, attachment, pages }) => ({ code, checkpoint, region, attachment, pages })),
        [2, 3].map((checkpoint) => ({
          code: 'TIDEMARK_DAMAGED',
          checkpoint,
          region: undefined,
          attachment: 'a',
          pages: [0, 3],
        })),
      );
    }
    // And checkpoints go on.
    await c.checkpoint({ attachments: { b } });
    assertEqual(await attachmentsOf(store, 4), { b });
  });
});

describe('attachments after a crash', () => {
  const folder = storeFolders();

  for (const index of ['with the index', 'with an index that is made anew']) {
    it(`are there, by reference or not, ${index}`, async () => {
      const path = folder();
      await inChild(
        {},
        async ({ Checkpointer, Region, PAGE, stamp, noise, crash }, path) => {
          const region = Region.allocate(64 * PAGE);
          const c = await Checkpointer.open(path, { regions: { r: region } });
          const big = noise(3_000_000, 1);
          for (const k of [0, 1, 2, 3]) {
            stamp(region, k, k);
            const durability = k === 3 ? 'relaxed' : 'sync';
            await c.checkpoint({ attachments: { big, small: noise(10, k), empty: noise(0, 0) }, durability });
          }
          // Captured, and never committed as far as anybody knows.
          void c.checkpoint({ attachments: { big: noise(2_000_000, 2) } }).catch(() => {});
          return crash('done');
        },
        path,
      );
      if (index !== 'with the index') rmSync(join(path, 'index'), { recursive: true });
      const store = await CheckpointStore.open(path);
      const big = noise(3_000_000, 1);
      for (const k of [0, 1, 2, 3])
        assertEqual(await attachmentsOf(store, k + 1), { big, small: noise(10, k), empty: noise(0, 0) });
      // Going on from there: by reference to what another process has stored.
      const region = Region.allocate(64 * PAGE);
      await withCheckpointer(store, { regions: { r: region } }, async (c) => {
        const { checkpoint } = await c.restore(4);
        assert.deepEqual(checkpoint.attachments.big, { byteLength: 3_000_000, sha256: sha256(big) });
        const next = await c.checkpoint({ attachments: { big } });
        assert.ok(next.storedBytes < 8192, `${next.storedBytes}`);
        assertEqual(await attachmentsOf(store, next.id), { big });
      });
      await store.close();
      await assertSound(path);
    });
  }
});
