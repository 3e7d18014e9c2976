import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { hashOf, restoredFresh } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

interface Step {
  outcome: string;
  id?: number | undefined;
  parent?: number | null | undefined;
  pages?: number | undefined;
  hash: string;
}

/**
 * One checkpoint after the other in a child process, each of pages of its own: step k writes pages k and 20 + k. Then the child dies,
 * and what it acknowledged must be there for the next process.
 */
function steps(faults: string, path: string, count: number, relaxed = false): Promise<Step[]> {
  return inChild(
    { faults },
    async ({ Checkpointer, Region, PAGE, stamp, hashOf, outcome, crash }, path, count, relaxed) => {
      const region = Region.allocate(64 * PAGE);
      const durability = relaxed ? 'relaxed' : 'sync';
      const c = await Checkpointer.open(path, { regions: { r: region }, durability });
      const steps: Step[] = [];
      for (let k = 0; k < count; k++) {
        stamp(region, [k, 20 + k], k);
        const call = c.checkpoint();
        const hash = hashOf(region);
        const result = await outcome(call);
        const checkpoint = result === 'ok' ? await call : undefined;
        steps.push({
          outcome: result,
          id: checkpoint?.id,
          parent: checkpoint?.parent,
          pages: checkpoint?.regions.r?.pages,
          hash,
        });
      }
      return crash(steps);
    },
    path,
    count,
    relaxed,
  );
}

/** Everything acknowledged is in the store, as it was, and nothing else but checkpoints that are whole. */
async function assertKept(path: string, done: Step[]): Promise<void> {
  const ids = await assertSound(path);
  for (const { outcome, id, hash } of done) {
    if (outcome !== 'ok') continue;
    assert.ok(ids.includes(id!), `checkpoint ${id} is lost`);
    assert.equal(hashOf(await restoredFresh(path, id!)), hash, `checkpoint ${id}`);
  }
  const last = done.findLast(({ outcome }) => outcome === 'ok');
  if (last !== undefined && last === done.at(-1)) assert.equal(hashOf(await restoredFresh(path)), last.hash, 'the head');
}

const FAILED = 'TIDEMARK_WRITE_FAILED';

describe('a write that the store rejects', () => {
  const folder = storeFolders();

  it('fails its checkpoint; the next one has its pages', async () => {
    const path = folder();
    const done = await steps('log.write:2', path, 4);
    assert.deepEqual(
      done.map(({ outcome, parent, pages }) => [outcome, parent, pages]),
      [
        ['ok', null, 2],
        [FAILED, undefined, undefined],
        ['ok', 1, 4],
        ['ok', done[2]!.id, 2],
      ],
    );
    await assertKept(path, done);
  });

  it('also when it is the very first one', async () => {
    const path = folder();
    const done = await steps('log.write:1', path, 2);
    assert.deepEqual(
      done.map(({ outcome, parent, pages }) => [outcome, parent, pages]),
      [
        [FAILED, undefined, undefined],
        ['ok', null, 4],
      ],
    );
    await assertKept(path, done);
  });

  it('several times in a row: the pages add up', async () => {
    const path = folder();
    const done = await steps('log.write:2:3', path, 6);
    assert.deepEqual(
      done.map(({ outcome, pages }) => [outcome, pages]),
      [
        ['ok', 2],
        [FAILED, undefined],
        [FAILED, undefined],
        [FAILED, undefined],
        ['ok', 8],
        ['ok', 2],
      ],
    );
    await assertKept(path, done);
  });

  it('that was written all the same is acknowledged after it has been read back', async () => {
    const path = folder();
    const done = await steps('log.acknowledge:2:2', path, 4);
    assert.deepEqual(
      done.map(({ outcome, id, parent, pages }) => [outcome, id, parent, pages]),
      [
        ['ok', 1, null, 2],
        ['ok', 2, 1, 2],
        ['ok', 3, 2, 2],
        ['ok', 4, 3, 2],
      ],
    );
    await assertKept(path, done);
  });

  it('relaxed checkpoints before and after it survive the process, too', async () => {
    const path = folder();
    const done = await steps('log.write:3', path, 5, true);
    assert.deepEqual(
      done.map(({ outcome, pages }) => [outcome, pages]),
      [
        ['ok', 2],
        ['ok', 2],
        [FAILED, undefined],
        ['ok', 4],
        ['ok', 2],
      ],
    );
    await assertKept(path, done);
  });

  it('and the log cannot be opened for a while: all fail until it can, then everything is stored', async () => {
    const path = folder();
    const done = await steps('log.write:2,log.reopen:1:3', path, 6);
    assert.deepEqual(
      done.map(({ outcome, parent, pages }) => [outcome, parent, pages]),
      [
        ['ok', null, 2],
        [FAILED, undefined, undefined],
        [FAILED, undefined, undefined],
        [FAILED, undefined, undefined],
        ['ok', 1, 8],
        ['ok', done[4]!.id, 2],
      ],
    );
    await assertKept(path, done);
  });

  it('written although rejected, and the log cannot be opened for a while: what was rejected does not come back later', async () => {
    const path = folder();
    const done = await steps('log.acknowledge:2,log.reopen:1:2', path, 5);
    assert.deepEqual(
      done.map(({ outcome, parent, pages }) => [outcome, parent, pages]),
      [
        ['ok', null, 2],
        [FAILED, undefined, undefined],
        [FAILED, undefined, undefined],
        ['ok', 1, 6],
        ['ok', done[3]!.id, 2],
      ],
    );
    assert.deepEqual(await assertSound(path), [1, done[3]!.id, done[4]!.id]);
    await assertKept(path, done);
  });

  for (const faults of ['log.write:3', 'log.write:3,log.reopen:1:9', 'log.acknowledge:3,log.reopen:1:9']) {
    it(`${faults}, and the process dies: what was acknowledged before is there`, async () => {
      const path = folder();
      const done = await steps(faults, path, 4);
      assert.deepEqual(
        done.slice(0, 3).map(({ outcome }) => outcome),
        ['ok', 'ok', FAILED],
      );
      await assertKept(path, done);
      // Whether the rejected one is there is open; if it is, it is whole.
      const head = hashOf(await restoredFresh(path));
      assert.ok(done.some(({ hash }) => hash === head));
    });
  }

  it('is the same for checkpoints behind it: all are rejected in order, and the next has the pages of all', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'log.write:2' },
      async ({ Checkpointer, Region, PAGE, stamp, hashOf, outcome, crash }, path) => {
        const region = Region.allocate(64 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region } });
        stamp(region, 0, 0);
        await c.checkpoint();
        const order: string[] = [];
        const calls: Promise<void>[] = [];
        for (const k of [1, 2, 3]) {
          stamp(region, [k, 10, 20 + k], k);
          calls.push(outcome(c.checkpoint()).then((result) => void order.push(`${k} ${result}`)));
        }
        await Promise.all(calls);
        stamp(region, 4, 4);
        const next = await c.checkpoint();
        return crash({
          order,
          parent: next.parent,
          pages: next.regions.r!.pages,
          hash: hashOf(region),
          base: c.base?.id === next.id,
        });
      },
      path,
    );
    assert.deepEqual(result.order, [`1 ${FAILED}`, `2 ${FAILED}`, `3 ${FAILED}`]);
    // 1, 2, 3, 4, 10, 21, 22, 23
    assert.deepEqual([result.parent, result.pages, result.base], [1, 8, true]);
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
    assert.equal((await assertSound(path)).length, 2);
  });

  it('a checkpoint of another branch that was acknowledged stays; one in flight loses no page', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'log.write:3' },
      async ({ Checkpointer, CheckpointStore, Region, PAGE, stamp, hashOf, outcome, crash }, path) => {
        const store = await CheckpointStore.open(path, { createIfMissing: true });
        const [a, b] = [Region.allocate(32 * PAGE), Region.allocate(32 * PAGE)];
        const one = await Checkpointer.open(store, { regions: { a }, branch: 'one' });
        const two = await Checkpointer.open(store, { regions: { b }, branch: 'two' });
        stamp(a, 1, 1);
        stamp(b, 1, 2);
        await one.checkpoint();
        await two.checkpoint();
        stamp(a, [1, 2, 3], 3);
        stamp(b, [4, 5], 4);
        const failed = await Promise.all([outcome(one.checkpoint()), outcome(two.checkpoint())]);
        const next = [await one.checkpoint(), await two.checkpoint()];
        const pages = failed.map((result, k) => {
          const region = Object.values(next[k]!.regions)[0]!;
          return result === 'ok' ? 'before' : `${region.pages} on ${next[k]!.parent}`;
        });
        return crash({ failed, pages, hashes: [hashOf(a), hashOf(b)] });
      },
      path,
    );
    assert.equal(result.failed[0], FAILED);
    assert.equal(result.pages[0], '3 on 1');
    assert.match(result.pages[1]!, /^(before|2 on 2)$/);
    assert.equal(hashOf(await restoredFresh(path, 'one', 'a')), result.hashes[0]);
    assert.equal(hashOf(await restoredFresh(path, 'two', 'b')), result.hashes[1]);
    await assertSound(path);
  });
});
