import assert from 'node:assert/strict';
import { Checkpointer, CheckpointStore, Engine, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assertSame, bytesOf, copyOf, hashOf, PAGE, range, stagingFree, stamp } from '../support/kit.js';

/** The least staging there is: three segments. */
const LEAST = 4 << 20;

describe('a restore that puts pages together in little staging', () => {
  const folder = storeFolders();
  const engines: Engine[] = [];
  afterEach(async () => {
    for (const engine of engines.splice(0)) await engine.close();
  });
  function engineOf(): Engine {
    const engine = new Engine({ workers: 2, maxStagingBytes: LEAST });
    engines.push(engine);
    return engine;
  }

  it('of more regions than there are segments', async () => {
    const engine = engineOf();
    const regions = Object.fromEntries(range(0, 7).map((k) => [`r${k}`, Region.allocate(8 * PAGE)]));
    const c = await Checkpointer.open(folder(), { regions, engine });
    for (const region of Object.values(regions)) stamp(region, range(0, 8), 1);
    const first = Object.values(regions).map(copyOf);
    await c.checkpoint();
    for (const region of Object.values(regions)) bytesOf(region)[5]! ^= 1;
    await c.checkpoint();
    await c.restore(1);
    for (const [k, region] of Object.values(regions).entries()) assertSame(region, first[k]!, `r${k}`);
    await c.close();
    assert.ok(await stagingFree(engine));
  });

  it('of several checkpointers at once, each of which keeps what it has put together', async () => {
    const engine = engineOf();
    const store = await CheckpointStore.open(folder(), { createIfMissing: true, engine });
    const some = await Promise.all(
      range(0, 4).map(async (k) => {
        const regions = { a: Region.allocate(8 * PAGE), b: Region.allocate(8 * PAGE) };
        const c = await Checkpointer.open(store, { regions, branch: `b${k}` });
        for (const region of Object.values(regions)) stamp(region, range(0, 8), k);
        const { id } = await c.checkpoint();
        const [a, b] = [copyOf(regions.a), copyOf(regions.b)];
        for (const region of Object.values(regions)) bytesOf(region)[5]! ^= 1;
        await c.checkpoint();
        return { c, id, regions, a, b };
      }),
    );
    await Promise.all(some.map(({ c, id }) => c.restore(id)));
    for (const { c, regions, a, b } of some) {
      assertSame(regions.a, a);
      assertSame(regions.b, b);
      await c.close();
    }
    await store.close();
    assert.ok(await stagingFree(engine));
  });

  it('beside a rejected write: the log is reopened when it has ended, and it does not wait for what is captured meanwhile', async () => {
    const path = folder();
    const pages = 24 * 256;
    const a = Region.allocate(pages * PAGE);
    const c = await Checkpointer.open(path, { regions: { a }, engine: engineOf() });
    stamp(a, range(0, pages), 1);
    await c.checkpoint();
    for (let page = 0; page < pages; page++) bytesOf(a)[page * PAGE + 5]! ^= 1;
    await c.checkpoint();
    await c.close();
    const result = await inChild(
      { faults: 'log.write:1' },
      async ({ Checkpointer, CheckpointStore, Engine, Region, PAGE, stamp, hashOf, outcome, stagingFree }, path, bytes) => {
        const engine = new Engine({ workers: 2, maxStagingBytes: 4 << 20 });
        const store = await CheckpointStore.open(path, { engine });
        const regions = { a: Region.allocate(bytes) };
        const a = await Checkpointer.open(store, { regions });
        const other = Region.allocate(64 * PAGE);
        const b = await Checkpointer.open(store, { regions: { b: other }, branch: 'b' });
        let outcomes: Promise<string>[] | undefined;
        let value = 0;
        const capture = () => {
          stamp(other, [1, 2, 3], ++value);
          return outcome(b.checkpoint());
        };
        await a.restore('main', {
          onProgress: () => {
            outcomes ??= [capture(), capture(), capture()];
          },
        });
        const settled = await Promise.all(outcomes!);
        const result = { outcomes: settled, next: await capture(), hash: hashOf(regions.a) };
        await a.close();
        await b.close();
        return { ...result, free: await stagingFree(engine) };
      },
      path,
      pages * PAGE,
    );
    assert.equal(result.outcomes[0], 'TIDEMARK_WRITE_FAILED');
    assert.deepEqual([result.next, result.free], ['ok', true]);
    assert.equal(result.hash, hashOf(a));
  });
});
