import { capabilities, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assert, assertSame, copyOf, PAGE, range, stamp, withCheckpointer } from '../support/kit.js';

const HUGE = 2 << 20;

describe('huge pages', () => {
  const folder = storeFolders();
  // There are kernels without, and memory that is too fragmented.
  const areThere = capabilities().reportsDroppedHuge === true;

  it('stay huge in checkpoints; writes and restores split those that they touch', async () => {
    if (!areThere) return;
    const store = folder();
    const region = Region.allocate(4 * HUGE, { hugePages: true });
    const plain = Region.allocate(4 * HUGE);
    stamp(plain, range(0, 2048), 1);
    assert.deepEqual([region.hugeBytes(), plain.hugeBytes()], [4 * HUGE, 0]);
    plain.close();
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      await c.checkpoint();
      assert.equal(region.hugeBytes(), 4 * HUGE, 'a full one, too');
      stamp(region, [5], 1);
      assert.equal(region.hugeBytes(), 3 * HUGE);
      await c.checkpoint();
      stamp(region, [512 + 7], 2);
      assert.equal(region.hugeBytes(), 2 * HUGE);
      await c.restore();
      assert.equal(region.hugeBytes(), 2 * HUGE, 'what the restore had no need to touch');
      assert.equal((await c.checkpoint()).regions.r!.pages, 0);
    });
    const model = copyOf(region);
    region.close();
    const fresh = Region.allocate(4 * HUGE, { hugePages: true });
    await withCheckpointer(store, { regions: { r: fresh } }, async (c) => {
      await c.restore();
      assertSame(fresh, model);
      stamp(fresh, [1024], 3);
      assert.equal((await c.checkpoint()).regions.r!.pages, 1);
    });
    fresh.close();
  });

  it('at the end of memory that is no multiple of them are small ones', () => {
    if (!areThere) return;
    const region = Region.allocate(HUGE + 3 * PAGE, { hugePages: true });
    assert.equal(region.byteLength, HUGE + 3 * PAGE);
    assert.equal(region.hugeBytes(), HUGE);
    stamp(region, [513], 1);
    assert.deepEqual([...region.dirtyRanges()], [513, 1]);
    region.close();
    assert.throws(() => region.hugeBytes(), { code: 'TIDEMARK_CLOSED' });
  });
});
