import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { CheckpointStore, hashOf, restoredFresh } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

const FAILED = 'TIDEMARK_WRITE_FAILED';
const PAGE = 4096;

/** Pages stored by a checkpoint of each region; hashes of what a checkpoint must hold. */
type Pages = Record<string, number>;
type Hashes = Record<string, string>;

async function assertHashes(path: string, target: number | string, hashes: Hashes): Promise<void> {
  const store = await CheckpointStore.open(path);
  const snapshot = await store.at(target);
  const { regions } = snapshot.checkpoint;
  assert.deepEqual(Object.keys(regions).sort(), Object.keys(hashes).sort());
  for (const [name, hash] of Object.entries(hashes))
    assert.equal(hashOf(await snapshot.read(name, 0, regions[name]!.byteLength)), hash, `${name} of ${target}`);
  await store.close();
  for (const [name, hash] of Object.entries(hashes)) assert.equal(hashOf(await restoredFresh(path, target, name)), hash, name);
}

describe('attach and detach when checkpoints fail', () => {
  const folder = storeFolders();

  for (const inFlight of [1, 3]) {
    it(`a region is stored whole again when the checkpoint fails that it was new in (${inFlight} in flight)`, async () => {
      const path = folder();
      const result = await inChild(
        { faults: 'log.write:2' },
        async ({ Checkpointer, Region, PAGE, stamp, range, hashOf, outcome, crash }, path, inFlight) => {
          const [a, b] = [Region.allocate(32 * PAGE), Region.allocate(32 * PAGE)];
          const c = await Checkpointer.open<string>(path, { regions: { a } });
          stamp(a, range(0, 32), 1);
          stamp(b, range(0, 20), 2);
          await c.checkpoint();
          c.attach('b', b);
          const calls: Promise<string>[] = [];
          for (let k = 0; k < inFlight; k++) {
            stamp(a, k, 3);
            stamp(b, 25 + k, 4);
            calls.push(outcome(c.checkpoint()));
          }
          const outcomes = await Promise.all(calls);
          const pages: Record<string, number>[] = [];
          for (const page of [30, 31]) {
            stamp(b, page, 5);
            const { regions } = await c.checkpoint();
            pages.push(Object.fromEntries(Object.entries(regions).map(([name, region]) => [name, region.pages])));
          }
          return crash({ outcomes, pages, hashes: { a: hashOf(a), b: hashOf(b) } });
        },
        path,
        inFlight,
      );
      assert.deepEqual(result.outcomes, Array(inFlight).fill(FAILED));
      const expected: Pages[] = [
        { a: inFlight, b: 20 + inFlight + 1 },
        { a: 0, b: 1 },
      ];
      assert.deepEqual(result.pages, expected);
      await assertHashes(path, 'main', result.hashes);
      await assertSound(path);
    });
  }

  it('a region that was new in a capture that fails half-way is stored whole by the next', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'capture.copy:3' },
      async ({ Checkpointer, Region, PAGE, stamp, range, hashOf, outcome, crash }, path) => {
        const [a, b] = [Region.allocate(32 * PAGE), Region.allocate(32 * PAGE)];
        const c = await Checkpointer.open<string>(path, { regions: { a } });
        stamp(a, range(0, 32), 1);
        stamp(b, range(0, 20), 2);
        await c.checkpoint();
        c.attach('b', b);
        stamp(a, 5, 3);
        // It copies a, then fails to copy b.
        const failed = await outcome(c.checkpoint());
        const { regions } = await c.checkpoint();
        return crash({ failed, pages: [regions.a!.pages, regions.b!.pages], hashes: { a: hashOf(a), b: hashOf(b) } });
      },
      path,
    );
    assert.deepEqual([result.failed, result.pages], ['TIDEMARK_TRACKING_LOST', [1, 20]]);
    await assertHashes(path, 'main', result.hashes);
    await assertSound(path);
  });

  for (const faults of ['log.write:3', 'log.acknowledge:3', 'log.write:4', '']) {
    it(`no page is lost of a region that goes to another checkpointer while the first has it in flight (${faults || 'no faults'})`, async () => {
      const path = folder();
      const result = await inChild(
        { faults },
        async ({ Checkpointer, CheckpointStore, Region, PAGE, stamp, range, hashOf, outcome, retried, crash }, path) => {
          const store = await CheckpointStore.open(path, { createIfMissing: true });
          const regions = [Region.allocate(32 * PAGE), Region.allocate(32 * PAGE), Region.allocate(32 * PAGE)] as const;
          const [a, b, moved] = regions;
          for (const [k, region] of regions.entries()) stamp(region, range(0, 30), k);
          const one = await Checkpointer.open<string>(store, { regions: { a, m: moved }, branch: 'one' });
          const two = await Checkpointer.open<string>(store, { regions: { b }, branch: 'two' });
          await one.checkpoint();
          await two.checkpoint();
          stamp(a, 1, 10);
          stamp(moved, [1, 2], 10);
          const calls = [outcome(one.checkpoint())];
          two.attach('m', one.detach('m'));
          stamp(moved, 3, 11);
          calls.push(outcome(two.checkpoint()));
          stamp(moved, 4, 12);
          stamp(a, 2, 12);
          calls.push(outcome(two.checkpoint()), outcome(one.checkpoint()));
          const outcomes = await Promise.all(calls);
          // Everything is acknowledged once more, and the region goes back.
          await retried(() => two.checkpoint());
          const there = hashOf(moved);
          one.attach('m', two.detach('m'));
          stamp(moved, 5, 13);
          await one.checkpoint();
          await two.checkpoint();
          const heads = [two.head!.parent, one.head!.id];
          return crash({ outcomes, there, heads, hashes: [hashOf(a), hashOf(b), hashOf(moved)] });
        },
        path,
      );
      // What was written although it was rejected is acknowledged after all; what was behind it may have failed.
      if (faults === '') assert.deepEqual(result.outcomes, ['ok', 'ok', 'ok', 'ok']);
      else if (!faults.startsWith('log.acknowledge')) assert.ok(result.outcomes.includes(FAILED), `${result.outcomes}`);
      const [a, b, moved] = result.hashes as [string, string, string];
      await assertHashes(path, 'one', { a, m: moved });
      await assertHashes(path, 'two', { b });
      await assertHashes(path, result.heads[0]!, { b, m: result.there });
      await assertSound(path);
    });
  }

  it('pages of a checkpoint that fails are given back to a region that has gone: its own lineage ends, and nothing is lost', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'log.write:2' },
      async ({ Checkpointer, Region, PAGE, stamp, range, hashOf, outcome, crash }, path) => {
        const [a, b] = [Region.allocate(32 * PAGE), Region.allocate(32 * PAGE)];
        const c = await Checkpointer.open<string>(path, { regions: { a, b } });
        stamp(a, range(0, 32), 1);
        stamp(b, range(0, 20), 2);
        await c.checkpoint();
        stamp(b, [3, 4], 3);
        const call = outcome(c.checkpoint());
        c.detach('b');
        const failed = await call;
        c.attach('b', b);
        const { regions, parent } = await c.checkpoint();
        return crash({ failed, pages: [parent, regions.a!.pages, regions.b!.pages], hashes: { a: hashOf(a), b: hashOf(b) } });
      },
      path,
    );
    assert.deepEqual([result.failed, result.pages], [FAILED, [1, 0, 20]]);
    await assertHashes(path, 'main', result.hashes);
    await assertSound(path);
  });

  it('memory that is torn can go, and the others go on', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'codec.fill:1:9' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, hashOf, outcome, crash }, path) => {
        const [a, b] = [Region.allocate(32 * PAGE), Region.allocate(32 * PAGE)];
        const c = await Checkpointer.open<string>(path, { regions: { a, b }, engine: new Engine({ workers: 1 }) });
        stamp(a, range(0, 32), 1);
        stamp(b, range(0, 32), 2);
        await c.checkpoint();
        stamp(a, [3, 4], 3);
        await c.checkpoint();
        const restored = await outcome(c.restore(1, { regions: ['a'] }));
        stamp(b, 7, 3);
        const torn = await outcome(c.checkpoint());
        const gone = c.detach('a');
        const next = await c.checkpoint();
        const pages = [next.parent, next.regions.b!.pages];
        // It stays torn, wherever it is.
        c.attach('a', gone);
        const again = await outcome(c.checkpoint());
        c.detach('a');
        return crash({ restored, torn, pages, again, hashes: { b: hashOf(b) } });
      },
      path,
    );
    const TORN = 'TIDEMARK_REGION_TORN';
    assert.deepEqual([result.restored, result.torn, result.again, result.pages], [TORN, TORN, TORN, [2, 1]]);
    await assertHashes(path, 'main', result.hashes);
    await assertSound(path);
  });

  for (const startOver of [false, true]) {
    it(`when all of it is torn and another region takes its place, ${startOver ? 'startOver begins anew' : 'it is not put in place of the chain'}`, async () => {
      const path = folder();
      const result = await inChild(
        { faults: 'codec.fill:1:9' },
        async ({ Checkpointer, Engine, Region, PAGE, stamp, range, hashOf, outcome, crash }, path, startOver) => {
          const [a, b] = [Region.allocate(32 * PAGE), Region.allocate(32 * PAGE)];
          const engine = new Engine({ workers: 1 });
          const c = await Checkpointer.open<string>(path, { regions: { a }, engine, startOver });
          stamp(a, range(0, 32), 1);
          stamp(b, range(0, 10), 2);
          await c.checkpoint();
          stamp(a, [3, 4], 3);
          const restored = await outcome(c.restore());
          const base = c.base?.id ?? null;
          c.detach('a');
          c.attach('b', b);
          const outcomes = [await outcome(c.checkpoint()), await outcome(c.checkpoint())];
          return crash({ restored, base, outcomes, head: [c.head!.kind, c.head!.parent], hashes: { b: hashOf(b) } });
        },
        path,
        startOver,
      );
      assert.deepEqual([result.restored, result.base], ['TIDEMARK_REGION_TORN', null]);
      assert.deepEqual(result.outcomes, startOver ? ['ok', 'ok'] : ['TIDEMARK_NOT_RESTORED', 'TIDEMARK_NOT_RESTORED']);
      assert.deepEqual(result.head, startOver ? ['incremental', 2] : ['full', null]);
      if (startOver) await assertHashes(path, 'main', result.hashes);
      await assertSound(path);
    });
  }

  it('a region is there when the process dies right after, under the name and with the bytes it had', async () => {
    const path = folder();
    const hashes = await inChild(
      {},
      async ({ Checkpointer, Region, PAGE, stamp, range, hashOf, crash }, path) => {
        const [a, b, d] = [Region.allocate(8 * PAGE), Region.allocate(40 * PAGE), Region.allocate(4 * PAGE)];
        const c = await Checkpointer.open<string>(path, { regions: { a }, durability: 'relaxed' });
        stamp(a, range(0, 8), 1);
        await c.checkpoint();
        c.attach('b', b);
        stamp(b, [1, 39], 2);
        await c.checkpoint();
        c.detach('a');
        c.attach('a', d);
        stamp(d, 2, 3);
        await c.checkpoint();
        return crash({ a: hashOf(d), b: hashOf(b) });
      },
      path,
    );
    await assertHashes(path, 'main', hashes);
    assert.equal((await restoredFresh(path, 'main', 'a')).length, 4 * PAGE);
    assert.deepEqual(await assertSound(path), [1, 2, 3]);
  });
});
