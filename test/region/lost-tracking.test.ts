import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild, type Kit } from '../support/in-child.js';
import { type Change, mappingsHelper } from '../support/mappings.js';

const PAGES = 64;
/** What is done to pages 16 to 23, of which 18 was written since the last checkpoint. */
type Case = Change | 'close' | 'inaccessible for a while';

/** Pages that are stored, or why nothing is. The kernel reports exactly what was written where it goes on tracking. */
const CASES: [Case, 'exact' | 'whole' | 'gone' | 'unreadable'][] = [
  ['unmap', 'gone'],
  ['move-away', 'gone'],
  ['move-away-and-back', 'whole'],
  ['replace', 'whole'],
  ['replace-shared', 'whole'],
  ['replace-inaccessible', 'unreadable'],
  ['unregister', 'whole'],
  ['close', 'whole'],
  ['inaccessible', 'unreadable'],
  ['inaccessible for a while', 'exact'],
  ['read-only', 'exact'],
  ['not-for-children', 'exact'],
];

describe('region: tracking that is lost is noticed by the next capture', () => {
  const folder = storeFolders();
  const helper = mappingsHelper();

  for (const [how, expected] of CASES) {
    it(`${how}: ${expected}`, async () => {
      const results = await inChild({ limitMs: 30_000 }, takeAfter, folder(), helper(), how, PAGES);
      const lost = expected === 'gone' || expected === 'unreadable';
      for (const result of results) {
        assert.deepEqual(result, {
          lazily: result.lazily,
          taken: lost ? 'TIDEMARK_TRACKING_LOST' : 'ok',
          seen: { exact: 2, whole: PAGES, gone: 0, unreadable: 0 }[expected],
          next: lost ? 'TIDEMARK_TRACKING_LOST' : '1 pages',
          stored: 0,
        });
      }
      assert.equal(results.length, 2);
    });
  }

  it('a file that has got the number of a descriptor that somebody closed stays open', async () => {
    const result = await inChild(
      { limitMs: 30_000 },
      async (kit, pages) => {
        const region = kit.Region.allocate(pages * kit.PAGE);
        kit.closeUserfaults();
        const files = kit.range(0, 8).map(() => kit.fs.openSync('/dev/zero', 'r'));
        const taken = [...region.takeDirtyRanges()];
        kit.edit(region, 7, 1);
        const next = [...region.takeDirtyRanges()];
        region.close();
        return { taken, next, read: files.map((file) => kit.fs.readSync(file, new Uint8Array(10))) };
      },
      PAGES,
    );
    assert.deepEqual(result, { taken: [0, PAGES], next: [7, 1], read: Array(8).fill(10) });
  });

  it('memory that is mapped again after it was gone is taken whole', async () => {
    const result = await inChild(
      { limitMs: 30_000 },
      async (kit, path, helper, pages) => {
        const region = kit.Region.allocate(pages * kit.PAGE);
        kit.stamp(region, kit.range(0, pages), 1);
        const part = kit.bytesOf(region).subarray(16 * kit.PAGE, 24 * kit.PAGE);
        const change = kit.loadMappings(helper);
        const store = await kit.CheckpointStore.open(path, { createIfMissing: true });
        const c = await kit.Checkpointer.open(store, { regions: { r: region } });
        await c.checkpoint();
        kit.edit(region, 3, 2);
        change('unmap', part);
        const gone = await kit.outcome(c.checkpoint());
        change('replace', part);
        kit.edit(region, 20, 2);
        await c.checkpoint();
        const stored = await kit.stored(store, 2);
        return kit.crash({ gone, same: Buffer.compare(stored, kit.bytesOf(region)) });
      },
      folder(),
      helper(),
      PAGES,
    );
    assert.deepEqual(result, { gone: 'TIDEMARK_TRACKING_LOST', same: 0 });
  });
});

/**
 * In a child, for memory that was written, and memory that was restored lazily: `seen` and `next` are what two checkpoints found that were taken after it, `stored` what
 * distinguishes the store from the memory at its last one.
 */
async function takeAfter(kit: Kit, path: string, helper: string, how: Case, pages: number) {
  const change = kit.loadMappings(helper);
  const results = [];
  for (const lazily of [false, true]) {
    const store = await kit.CheckpointStore.open(`${path}-${lazily}`, { createIfMissing: true });
    let region = kit.Region.allocate(pages * kit.PAGE);
    kit.stamp(region, kit.range(0, pages), 1);
    let c = await kit.Checkpointer.open(store, { regions: { r: region } });
    await c.checkpoint();
    if (lazily) {
      await c.close();
      region = kit.Region.allocate(pages * kit.PAGE);
      c = await kit.Checkpointer.open(store, { regions: { r: region } });
      await (await c.restore(undefined, { lazy: 'user-faults' })).done;
    }
    const bytes = kit.bytesOf(region);
    let model = bytes.slice();
    kit.edit(region, [3, 18], 2);
    const part = bytes.subarray(16 * kit.PAGE, 24 * kit.PAGE);
    if (how === 'close') kit.closeUserfaults();
    else change(how === 'inaccessible for a while' ? 'inaccessible' : how, part);
    if (how === 'inaccessible for a while') change('accessible', part);
    if (how === 'not-for-children') (await import('node:child_process')).execFileSync('true');
    const take = async (): Promise<number> => {
      const { pages, zeroPages, unchangedPages } = (await c.checkpoint()).regions.r!;
      model = bytes.slice();
      return pages + zeroPages + unchangedPages;
    };
    let seen = 0;
    const taken = await kit.outcome(take().then((count) => (seen = count)));
    kit.edit(region, 5, 3);
    let next = '';
    await take().then(
      (count) => (next = `${count} pages`),
      (error) => (next = error.code),
    );
    results.push({ lazily, taken, seen, next, stored: Buffer.compare(await kit.stored(store, 'main'), model) });
  }
  return kit.crash(results);
}
