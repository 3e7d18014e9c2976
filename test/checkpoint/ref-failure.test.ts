import assert from 'node:assert/strict';
import { CheckpointStore } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { hashOf, restoredFresh } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

const FAILED = 'TIDEMARK_WRITE_FAILED';
const NAMES = ['main', 'kept', 'label', 'fork', 'built', 'after', 'side'];

/** Before the calls that are to fail. */
const AT_FIRST = { main: 2, kept: 1, label: null, fork: null, built: null, after: null, side: null };

interface Told {
  /** What became of the calls that the fault point met. */
  outcomes: string[];
  /** As the process told them afterwards, and after one more of each kind. */
  names: Record<string, number | null>;
  hash: string;
}

/**
 * A child process: two checkpoints and a label on the first (writes 1 to 3), then the calls that are to fail, then more that must not. `alone`: a label,
 * then a fork; `together`: both and a labelled checkpoint at once, which share a batch or follow each other.
 */
function run(
  faults: string,
  path: string,
  what: 'alone' | 'together',
  end: 'close' | 'crash' | 'crash at once' | 'close at once',
) {
  return inChild<[string, string, string, string[]], Told>(
    { faults },
    async ({ Checkpointer, CheckpointStore, Region, PAGE, stamp, hashOf, outcome, crash }, path, what, end, all) => {
      const store = await CheckpointStore.open(path, { createIfMissing: true });
      const region = Region.allocate(16 * PAGE);
      const c = await Checkpointer.open(store, { regions: { r: region } });
      for (const k of [1, 2]) {
        stamp(region, k, k);
        await c.checkpoint();
      }
      await store.label('kept', 1);
      stamp(region, 3, 3);
      const outcomes: string[] = [];
      if (what === 'alone')
        for (const call of [() => store.label('label', 2), () => store.fork(1, 'fork')]) outcomes.push(await outcome(call()));
      else
        outcomes.push(
          ...(await Promise.all([c.checkpoint({ label: 'built' }), store.label('label', 2), store.fork(1, 'fork')].map(outcome))),
        );
      const names: Record<string, number | null> = {};
      const told = async () => {
        for (const name of all) names[name] = (await store.find(name))?.id ?? null;
        return { outcomes, names, hash: hashOf(region) };
      };
      if (end === 'crash at once') return crash({ outcomes, names, hash: hashOf(region) });
      if (end === 'close at once') {
        await store.close();
        return { outcomes, names, hash: hashOf(region) };
      }
      await told();
      // The store goes on: with names that were given and with those that were not.
      await store.label('kept', 2, { move: true });
      await store.label('after', 1);
      await c.checkpoint();
      await store.fork('main', 'side');
      if (names.label === null) await store.label('label', 1);
      const result = await told();
      if (end === 'crash') return crash(result);
      await store.close();
      return result;
    },
    path,
    what,
    end,
    NAMES,
  );
}

async function namesOf(path: string): Promise<Record<string, number | null>> {
  const store = await CheckpointStore.open(path);
  const names: Record<string, number | null> = {};
  for (const name of NAMES) names[name] = (await store.find(name))?.id ?? null;
  await store.close();
  return names;
}

describe('a name that cannot be written', () => {
  const folder = storeFolders();

  for (const end of ['close', 'crash'] as const) {
    it(`log.write: is not given, and can be given later (${end})`, async () => {
      const path = folder();
      const { outcomes, names, hash } = await run('log.write:4:2', path, 'alone', end);
      assert.deepEqual(outcomes, [FAILED, FAILED]);
      const expected = { main: 3, kept: 2, label: 1, fork: null, built: null, after: 1, side: 3 };
      assert.deepEqual(names, expected);
      assert.deepEqual(await namesOf(path), expected);
      assert.deepEqual(await assertSound(path), [1, 2, 3]);
      assert.equal(hashOf(await restoredFresh(path)), hash);
    });

    it(`log.acknowledge: is there all the same (${end})`, async () => {
      const path = folder();
      const { outcomes, names } = await run('log.acknowledge:4:2', path, 'alone', end);
      assert.deepEqual(outcomes, ['ok', 'ok']);
      const expected = { main: 3, kept: 2, label: 2, fork: 1, built: null, after: 1, side: 3 };
      assert.deepEqual(names, expected);
      assert.deepEqual(await namesOf(path), expected);
    });

    it(`log.acknowledge and log.reopen: does not come up later (${end})`, async () => {
      const path = folder();
      const { outcomes, names } = await run('log.acknowledge:4,log.reopen:1', path, 'alone', end);
      assert.deepEqual(outcomes, [FAILED, 'ok']);
      const expected = { main: 3, kept: 2, label: 1, fork: 1, built: null, after: 1, side: 3 };
      assert.deepEqual(names, expected);
      assert.deepEqual(await namesOf(path), expected);
    });

    it(`index.write: is given, and kept (${end})`, async () => {
      const path = folder();
      const { outcomes, names } = await run('index.write:4,index.write:6', path, 'alone', end);
      assert.deepEqual(outcomes, ['ok', 'ok']);
      const expected = { main: 3, kept: 2, label: 2, fork: 1, built: null, after: 1, side: 3 };
      assert.deepEqual(names, expected);
      assert.deepEqual(await namesOf(path), expected);
    });
  }

  for (const end of ['close at once', 'crash at once'] as const) {
    it(`index.write, and no index can be made any more: what was acknowledged is kept (${end})`, async () => {
      const path = folder();
      // The second cannot look up what it is to name.
      const { outcomes } = await run('index.write:4:99', path, 'alone', end);
      assert.deepEqual(outcomes, ['ok', FAILED]);
      assert.deepEqual(await namesOf(path), { ...AT_FIRST, label: 2 });
    });
  }

  for (const faults of [
    'log.write:4',
    'log.write:5',
    'log.acknowledge:4',
    'log.acknowledge:5',
    'log.acknowledge:4:3',
    'log.write:4,log.reopen',
  ]) {
    it(`${faults}: with a checkpoint beside it; names are what was acknowledged`, async () => {
      const path = folder();
      const { outcomes, names, hash } = await run(faults, path, 'together', 'crash');
      const acknowledged = faults.startsWith('log.acknowledge');
      // The checkpoint may have had an extent in a batch before: then it fails with that one.
      if (acknowledged) assert.deepEqual(outcomes.slice(1), ['ok', 'ok']);
      else assert.ok(outcomes.includes(FAILED), outcomes.join());
      assert.equal(names.built !== null, outcomes[0] === 'ok', 'the checkpoint');
      assert.equal(names.label, outcomes[1] === 'ok' ? 2 : 1, 'the label');
      assert.equal(names.fork, outcomes[2] === 'ok' ? 1 : null, 'the fork');
      assert.deepEqual(await namesOf(path), names);
      assert.equal((await assertSound(path)).length, outcomes[0] === 'ok' ? 4 : 3);
      assert.equal(hashOf(await restoredFresh(path)), hash);
    });
  }

  it('after a failed write: nothing of it is there when the process dies at once', async () => {
    const path = folder();
    const { outcomes } = await run('log.write:4:2', path, 'alone', 'crash at once');
    assert.deepEqual(outcomes, [FAILED, FAILED]);
    assert.deepEqual(await namesOf(path), AT_FIRST);
  });

  it('acknowledged after it was read back: there when the process dies at once', async () => {
    const path = folder();
    const { outcomes } = await run('log.acknowledge:4:2', path, 'alone', 'crash at once');
    assert.deepEqual(outcomes, ['ok', 'ok']);
    assert.deepEqual(await namesOf(path), { ...AT_FIRST, label: 2, fork: 1 });
  });

  it('doubtful, and the store is closed before anything else is asked of it: it does not come up either', async () => {
    const path = folder();
    // The last write that happens and is refused; nothing can be read back.
    const { outcomes } = await run('log.acknowledge:5,log.reopen', path, 'alone', 'close at once');
    assert.deepEqual(outcomes, ['ok', FAILED]);
    assert.deepEqual(await namesOf(path), { ...AT_FIRST, label: 2 });
  });
});
