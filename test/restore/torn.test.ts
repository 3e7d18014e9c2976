import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { hashOf, restoredFresh } from '../support/kit.js';

const TORN = 'TIDEMARK_REGION_TORN';

describe('a restore that fails', () => {
  const folder = storeFolders();

  it('while checking touches nothing', async () => {
    const result = await inChild(
      { faults: 'codec.decode:3' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, hashOf, outcome }, path) => {
        const region = Region.allocate(2048 * PAGE);
        // Not as many as there are cores: eight extents are decoded, and one of the threads must come to its third.
        const engine = new Engine({ workers: 2 });
        const c = await Checkpointer.open(path, { regions: { r: region }, engine });
        stamp(region, range(0, 2048), 1);
        await c.checkpoint();
        const first = hashOf(region);
        stamp(region, range(0, 2048), 2);
        await c.checkpoint();
        stamp(region, [3, 4], 3);
        const before = hashOf(region);
        const failed = await outcome(c.restore(1));
        const same = hashOf(region) === before;
        const { parent, regions } = await c.checkpoint();
        // Two threads count for themselves: the other one may have to fail, too.
        const again = [await outcome(c.restore(1)), await outcome(c.restore(1))];
        return { failed, same, counts: [parent, regions.r!.pages], again: again.at(-1), first: hashOf(region) === first };
      },
      folder(),
    );
    assert.deepEqual(result, { failed: 'TIDEMARK_DAMAGED', same: true, counts: [2, 2], again: 'ok', first: true });
  });

  it('while filling in place says that the memory is torn, and refuses to store it until a restore succeeds', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'codec.fill:2' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, hashOf, outcome }, path) => {
        const [a, b] = [Region.allocate(2048 * PAGE), Region.allocate(PAGE)];
        const engine = new Engine({ workers: 1 });
        const c = await Checkpointer.open(path, { regions: { a, b }, engine });
        stamp(a, range(0, 2048), 1);
        await c.checkpoint();
        const first = hashOf(a);
        stamp(a, range(0, 2048), 2);
        await c.checkpoint();
        const failed = await outcome(c.restore(1));
        const torn = [await outcome(c.checkpoint()), await outcome(c.checkpoint({ label: 'x' }))];
        const base = c.base?.id ?? null;
        const missing = await outcome(c.restore(77));
        torn.push(await outcome(c.checkpoint()));
        // Closing and opening again does not make it whole.
        await c.close();
        const again = await Checkpointer.open(path, { regions: { a, b }, engine, startOver: true });
        torn.push(await outcome(again.checkpoint()));
        await again.restore(1);
        const whole = hashOf(a) === first;
        stamp(a, [1, 2, 3], 3);
        const next = await again.checkpoint();
        await again.close();
        return { failed, torn, base, missing, whole, counts: [next.parent, next.regions.a!.pages], hash: hashOf(a) };
      },
      path,
    );
    assert.equal(result.failed, TORN);
    assert.deepEqual(result.torn, Array(4).fill(TORN));
    assert.equal(result.base, null);
    assert.equal(result.missing, 'TIDEMARK_NOT_FOUND');
    assert.equal(result.whole, true);
    assert.deepEqual(result.counts, [1, 3]);
    assert.equal(hashOf(await restoredFresh(path, 'main', 'a')), result.hash);
  });

  it('while filling fresh memory leaves it empty and not torn', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'codec.fill:5' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, hashOf, bytesOf, outcome }, path) => {
        const engine = new Engine({ workers: 1 });
        const source = Region.allocate(2048 * PAGE);
        const writer = await Checkpointer.open(path, { regions: { r: source }, engine });
        stamp(source, range(0, 2048), 1);
        await writer.checkpoint();
        await writer.close();
        const region = Region.allocate(2048 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region }, engine });
        const failed = await outcome(c.restore());
        const zero = bytesOf(region).every((byte) => byte === 0);
        const refused = await outcome(c.checkpoint());
        const again = await outcome(c.restore());
        const same = hashOf(region) === hashOf(source);
        stamp(region, [1, 2, 3], 3);
        const { pages } = (await c.checkpoint()).regions.r!;
        return { failed, zero, refused, again, same, pages };
      },
      path,
    );
    const { failed, ...rest } = result;
    assert.deepEqual(rest, { zero: true, refused: 'TIDEMARK_NOT_RESTORED', again: 'ok', same: true, pages: 3 });
    assert.notEqual(failed, 'ok');
    assert.notEqual(failed, TORN, 'the memory is not torn');
  });

  it('after it, other memory under the name of what is torn is stored whole, on nothing', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'codec.fill:2' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, range, hashOf, outcome }, path) => {
        const [a, other] = [Region.allocate(2048 * PAGE), Region.allocate(8 * PAGE)];
        const engine = new Engine({ workers: 1 });
        const c = await Checkpointer.open(path, { regions: { a }, engine, startOver: true });
        stamp(a, range(0, 2048), 1);
        await c.checkpoint();
        stamp(a, range(0, 2048), 2);
        await c.checkpoint();
        const failed = await outcome(c.restore(1));
        const torn = await outcome(c.checkpoint());
        c.detach('a').close();
        c.attach('a', other);
        stamp(other, [2, 3], 5);
        const full = await c.checkpoint();
        stamp(other, 4, 5);
        const next = await c.checkpoint();
        await c.close();
        const counts = [full, next].map(({ kind, parent, regions }) => [kind, parent, regions.a!.pages]);
        return { failed, torn, counts, hash: hashOf(other) };
      },
      path,
    );
    assert.deepEqual([result.failed, result.torn], [TORN, TORN]);
    assert.deepEqual(result.counts, [
      ['full', null, 2],
      ['incremental', 3, 1],
    ]);
    assert.equal(hashOf(await restoredFresh(path, 'main', 'a')), result.hash);
  });
});
