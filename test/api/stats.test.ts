import assert from 'node:assert/strict';
import { Checkpointer, CheckpointStore, Engine, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { outcome, PAGE, range, stamp } from '../support/kit.js';

describe('api: stats', () => {
  const folder = storeFolders();

  /** Data that is the caller's: to be kept, sent and changed. */
  function assertPlain(read: () => object): void {
    const stats = read();
    assert.deepEqual(structuredClone(stats), stats);
    assert.equal(Object.getPrototypeOf(stats), Object.prototype);
    assert.notEqual(read(), stats);
    const before = structuredClone(stats);
    for (const [key, value] of Object.entries(stats)) {
      if (typeof value === 'object') for (const inner of Object.keys(value)) value[inner] = -1;
      else Object.assign(stats, { [key]: -1 });
    }
    assert.deepEqual(read(), before);
  }

  it('of a checkpointer count what it has done', async () => {
    const region = Region.allocate(64 * PAGE);
    const checkpointer = await Checkpointer.open<string>(folder(), { regions: { heap: region } });
    const none = {
      checkpoints: 0,
      failed: 0,
      inFlight: 0,
      pages: 0,
      rawBytes: 0,
      storedBytes: 0,
      captureMs: { total: 0, max: 0, last: 0 },
    };
    assert.deepEqual(checkpointer.stats(), none);
    stamp(region, range(0, 10), 1);
    const calls = [checkpointer.checkpoint()];
    stamp(region, range(0, 3), 2);
    calls.push(checkpointer.checkpoint({ label: 'one' }));
    assert.equal(checkpointer.stats().inFlight, 2);
    const taken = await Promise.all(calls);
    // Neither what is refused in the call nor what found nothing to do is counted, what fails later is.
    await outcome(checkpointer.checkpoint({ bogus: 1 } as never));
    await checkpointer.checkpoint({ ifChanged: true });
    stamp(region, 1, 3);
    await Promise.all([outcome(checkpointer.checkpoint({ label: 'one' })), outcome(checkpointer.checkpoint())]);
    const { captureMs, ...counts } = checkpointer.stats();
    const sum = (of: (checkpoint: (typeof taken)[0]) => number) => taken.reduce((total, one) => total + of(one), 0);
    assert.deepEqual(counts, {
      checkpoints: 2,
      failed: 2,
      inFlight: 0,
      pages: 13,
      rawBytes: sum(({ rawBytes }) => rawBytes),
      storedBytes: sum(({ storedBytes }) => storedBytes),
    });
    const ms = taken.map(({ timings }) => timings.captureMs);
    assert.ok(captureMs.max >= Math.max(...ms) && captureMs.total >= ms[0]! + ms[1]! + captureMs.last, JSON.stringify(captureMs));
    assertPlain(() => checkpointer.stats());
    const last = checkpointer.stats();
    await checkpointer.close();
    assert.deepEqual(checkpointer.stats(), last);
    region.close();
  });

  it('of an engine say how it is doing now', async () => {
    const engine = new Engine({ workers: 2, maxStagingBytes: 16 << 20, maxShadowBytes: 32 << 20 });
    const idle = engine.stats();
    assert.deepEqual(
      { ...idle, stagingBytes: 0, stagingFreeBytes: 0 },
      {
        workers: 0,
        stagingBytes: 0,
        stagingFreeBytes: 0,
        shadowBytes: 32 << 20,
        shadowUsedBytes: 0,
        checkpointers: 0,
        pendingCalls: 0,
      },
    );
    assert.ok(idle.stagingBytes <= 16 << 20 && idle.stagingBytes > 14 << 20, `${idle.stagingBytes}`);
    assert.equal(idle.stagingFreeBytes, idle.stagingBytes);
    const region = Region.allocate(1024 * PAGE);
    const store = await CheckpointStore.open(folder(), { createIfMissing: true, engine });
    const checkpointer = await Checkpointer.open<string>(store, { regions: { heap: region } });
    assert.deepEqual(engine.stats(), { ...idle, workers: 2, checkpointers: 1 });
    const finding = store.find(1);
    assert.equal(engine.stats().pendingCalls, 1);
    await finding;
    // What is in staging is gone from there as soon as it is written: on a busy machine that may be before this thread looks.
    let least = idle.stagingBytes;
    for (let k = 0; k < 50 && least === idle.stagingBytes; k++) {
      stamp(region, range(0, 1024), k);
      const call = checkpointer.checkpoint({ durability: 'relaxed' });
      least = engine.stats().stagingFreeBytes;
      await call;
    }
    assert.ok(least < idle.stagingBytes);
    assert.deepEqual(engine.stats(), { ...idle, shadowUsedBytes: 1024 * PAGE, workers: 2, checkpointers: 1 });
    assertPlain(() => engine.stats());
    await checkpointer.close();
    assert.deepEqual(engine.stats(), { ...idle, workers: 2 });
    await store.close();
    await engine.close();
    assert.deepEqual(engine.stats(), idle);
    region.close();
  });
});
