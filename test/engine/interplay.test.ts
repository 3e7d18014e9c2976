import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assertSound } from '../support/log-files.js';

describe('failures that meet other work', () => {
  const folder = storeFolders();

  it('an encode that fails leaves the checkpoint before it alone, and its pages to the next', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'codec.encode:21' },
      async ({ Checkpointer, Engine, Region, PAGE, stamp, outcome, crash }, path) => {
        const region = Region.allocate(5120 * PAGE);
        const c = await Checkpointer.open(path, { regions: { r: region }, engine: new Engine({ workers: 1 }) });
        // Twenty segments that do not compress: they are still being written when the segment of the next one fails.
        const words = new Uint32Array(region.buffer);
        for (let k = 0, seed = 1; k < words.length; k++)
          words[k] = seed = (Math.imul(seed, 1664525) + 1013904223 + (seed >>> 13)) >>> 0;
        const first = c.checkpoint();
        stamp(region, [2, 3], 2);
        const second = c.checkpoint();
        stamp(region, 4, 3);
        const third = c.checkpoint();
        const outcomes = await Promise.all([first, second, third].map(outcome));
        const next = await c.checkpoint();
        return crash({ outcomes, next: [next.id, next.parent, next.regions.r!.pages] });
      },
      path,
    );
    assert.equal(result.outcomes[0], 'ok');
    for (const failed of result.outcomes.slice(1)) assert.equal(failed, 'TIDEMARK_WRITE_FAILED');
    assert.deepEqual(result.next, [2, 1, 3]);
    await assertSound(path);
  });

  it('an index that is made anew by readers, while writes are rejected, neither hangs nor shows an older head', async () => {
    const path = folder();
    const result = await inChild(
      { faults: 'index.write:31,log.write:32' },
      async ({ Checkpointer, CheckpointStore, Region, PAGE, stamp, outcome, crash }, path) => {
        const region = Region.allocate(4 * PAGE);
        const store = await CheckpointStore.open(path, { createIfMissing: true });
        const c = await Checkpointer.open(store, { regions: { r: region }, durability: 'relaxed' });
        let newest = 0;
        for (let k = 1; k <= 31; k++) {
          stamp(region, 0, k);
          newest = (await c.checkpoint()).id;
        }
        stamp(region, 1, 1);
        const answers = [store.find('main'), c.checkpoint(), store.find('main'), c.flush()];
        const settled = Promise.all(answers.map(outcome));
        const heads = await Promise.all([answers[0]!, answers[2]!].map(async (answer) => (await answer)?.id));
        const outcomes = await settled;
        stamp(region, 2, 1);
        const next = await c.checkpoint();
        return crash({ newest, heads, outcomes, next: [next.parent, next.regions.r!.pages], flushed: await outcome(c.flush()) });
      },
      path,
    );
    for (const head of result.heads) assert.ok(head! >= result.newest, `main is ${head}, ${result.newest} was acknowledged`);
    for (const one of result.outcomes) assert.match(one, /^(ok|TIDEMARK_WRITE_FAILED)$/);
    assert.equal(result.flushed, 'ok');
    assert.ok(result.next[0]! >= result.newest);
    await assertSound(path);
  });

  it('engines that come and go leave no threads behind', async () => {
    const path = folder();
    const counts = await inChild(
      {},
      async ({ Checkpointer, Engine, Region, PAGE, stamp, fs }, path) => {
        const threads: number[] = [];
        for (let k = 0; k < 14; k++) {
          const engine = new Engine({ workers: 1 });
          const region = Region.allocate(PAGE);
          const c = await Checkpointer.open(path, { regions: { r: region }, engine, startOver: true });
          stamp(region, 0, k + 1);
          await c.checkpoint();
          await c.close();
          region.close();
          await engine.close();
          threads.push(fs.readdirSync('/proc/self/task').length);
        }
        return threads;
      },
      path,
    );
    // One more or less is a thread that has not quite ended; a leak is one for each engine.
    assert.ok(counts.at(-1)! <= counts[0]! + 3, `threads after each engine: ${counts}`);
  });
});
