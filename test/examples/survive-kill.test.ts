import assert from 'node:assert/strict';
import { run } from '../../examples/survive-kill/main.js';
import { CheckpointStore } from '../../lib/index.js';
import { temporaryFolder } from './support.js';

describe('examples: survive-kill', () => {
  const folder = temporaryFolder();

  it('misses nothing that was acknowledged, killed twelve times', async () => {
    const lines: string[] = [];
    const store = folder.path('store');
    const { kills, operations, entries, checkpoints, compared } = await run({
      store,
      kills: 12,
      seed: 7,
      log: (line) => lines.push(line),
    });
    assert.equal(kills.length, 12);
    // (run throws when a state is not the one that was stored; here only that it was hard enough.)
    const inTheMiddle = kills.filter(({ inFlight }) => inFlight > 0).length;
    assert.ok(inTheMiddle >= 3, `${inTheMiddle} kills were in the middle of a checkpoint`);
    assert.ok(kills.some(({ acknowledged }) => acknowledged > 0));
    assert.ok(kills.some(({ restored }) => restored !== undefined && restored > 0));
    for (const { found, acknowledged } of kills) assert.ok(found >= acknowledged);
    assert.ok(operations > 20_000 && entries > 0);
    assert.ok(compared >= Math.min(6, checkpoints));
    assert.equal(lines.length, 1 + 12 + 2);
    assert.match(lines.at(-1) ?? '', /^\d+ checkpoints in the store, all whole/);

    // And once more, on what is there.
    const again = await run({ store, kills: 1, seed: 7, log: () => {} });
    assert.ok(again.operations > operations);
    const opened = await CheckpointStore.open(store);
    try {
      const newest = await opened.find('main');
      assert.deepEqual(newest?.metadata, { operations: again.operations });
    } finally {
      await opened.close();
    }
    // A store of another seed is not gone on with.
    await assert.rejects(run({ store, kills: 1, seed: 8, log: () => {} }), { code: 'TIDEMARK_FINGERPRINT' });
  }).timeout(120_000);
});
