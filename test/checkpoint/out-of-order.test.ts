import assert from 'node:assert/strict';
import type { SessionListener } from '../../lib/engine/engine.js';
import { Checkpointer, Engine, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, copyOf, outcome, PAGE, restoredFresh, stamp } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

describe('a commit that is reported out of order', () => {
  const folder = storeFolders();

  it('fails what is in flight and everything later; nothing hangs, and the memory can be stored anew', async () => {
    const path = folder();
    const engine = new Engine({ workers: 1 });
    let listener: SessionListener | undefined;
    const listen = engine.listen.bind(engine);
    engine.listen = (session, own) => {
      listener = own;
      listen(session, own);
    };
    const region = Region.allocate(16 * PAGE);
    const c = await Checkpointer.open(path, { regions: { r: region }, engine });
    stamp(region, [1, 2], 1);
    const first = await c.checkpoint();
    stamp(region, 3, 2);
    const second = c.checkpoint();
    stamp(region, 4, 3);
    const third = c.checkpoint();
    listener!.committed({ type: 'committed', olderVersions: 0, session: 1, generation: 0, sequence: 3, checkpoint: first });
    assert.deepEqual(await Promise.all([outcome(second), outcome(third)]), ['TIDEMARK_WRITE_FAILED', 'TIDEMARK_WRITE_FAILED']);
    assert.equal(c.base, undefined);
    const calls = [() => c.checkpoint(), () => c.precopy(), () => c.flush(), () => c.restore(1)];
    for (const call of calls) assert.equal(await outcome(call()), 'TIDEMARK_WRITE_FAILED', String(call));
    await c.close();
    // The branch is free, the memory descends from nothing, and all of it can be stored.
    const again = await Checkpointer.open(path, { regions: { r: region }, engine, startOver: true });
    assert.equal(again.base, undefined);
    const full = await again.checkpoint();
    assert.deepEqual([full.kind, full.regions.r!.pages], ['full', 4]);
    stamp(region, 5, 5);
    assert.equal((await again.checkpoint()).kind, 'incremental');
    const model = copyOf(region);
    await again.close();
    await engine.close();
    await assertSound(path);
    assertSame(await restoredFresh(path), model);
  });
});
