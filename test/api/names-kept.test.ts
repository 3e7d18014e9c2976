import assert from 'node:assert/strict';
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Checkpoint, Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { PAGE, stored } from '../support/kit.js';

/** The checkpoint of each name, by id, and the labels of each checkpoint that has some. */
interface Told {
  names: Record<string, number | null>;
  labels: Record<number, string[]>;
}

async function told(path: string, names: string[]): Promise<Told> {
  const store = await CheckpointStore.open(path);
  try {
    const found: Told = { names: {}, labels: {} };
    for (const name of names) found.names[name] = (await store.find(name))?.id ?? null;
    for await (const { id, label, labels } of store.checkpoints()) {
      assert.equal(label, labels.at(-1));
      if (labels.length > 0) found.labels[id] = labels;
    }
    // With many it takes a while, and says nothing of names.
    if (Object.keys(found.names).length < 20) assert.deepEqual((await store.verify()).problems, []);
    return found;
  } finally {
    await store.close();
  }
}

/** As a past state of the index or the log, to be put back later. */
const save = (path: string, what: 'log' | 'index') => cpSync(join(path, what), `${path}-${what}`, { recursive: true });
function putBack(path: string, what: 'log' | 'index'): void {
  rmSync(join(path, what), { recursive: true });
  cpSync(`${path}-${what}`, join(path, what), { recursive: true });
}

/** In a child process that dies as by kill -9: what `labels` and `forks` say, one after the other. */
function nameAndDie(path: string, changes: (['label', string, number] | ['fork', string, number] | ['checkpoint', string])[]) {
  return inChild(
    {},
    async ({ Checkpointer, CheckpointStore, Region, PAGE, crash }, path, changes) => {
      const store = await CheckpointStore.open(path);
      const region = Region.allocate(4 * PAGE);
      const done: unknown[] = [];
      for (const [what, name, id] of changes) {
        if (what === 'label') await store.label(name, id!, { move: true });
        if (what === 'fork') await store.fork(id!, name);
        if (what === 'checkpoint') {
          const c = await Checkpointer.open(store, { regions: { r: region }, branch: 'work', startOver: true });
          await c.checkpoint({ label: name, durability: 'relaxed' });
          await c.close();
        }
        done.push(what);
      }
      return crash(done);
    },
    path,
    changes as [string, string, number?][],
  );
}

const NAMES = ['main', 'side', 'a', 'b', 'c'];
/** Four checkpoints: a moved from 2 to 4, b moved to an older one, c given with a checkpoint, side forked. */
async function sample(path: string): Promise<Told> {
  const store = await CheckpointStore.open(path, { createIfMissing: true });
  const region = Region.allocate(4 * PAGE);
  const main = await Checkpointer.open(store, { regions: { r: region } });
  for (let k = 1; k <= 4; k++) {
    new Uint8Array(region.buffer)[0] = k;
    await main.checkpoint(k === 3 ? { label: 'c' } : {});
  }
  await store.label('a', 2);
  await store.label('b', 4);
  await store.fork(3, 'side');
  await store.label('a', 4, { move: true });
  await store.label('b', 1, { move: true });
  await store.close();
  region.close();
  return { names: { main: 4, side: 3, a: 4, b: 1, c: 3 }, labels: { 1: ['b'], 3: ['c'], 4: ['a'] } };
}

describe('names are kept', () => {
  const folder = storeFolders();

  const INDEX: [string, (path: string) => void][] = [
    ['as it was left', () => {}],
    ['deleted', (path) => rmSync(join(path, 'index'), { recursive: true })],
    [
      'full of garbage',
      (path) => {
        for (const name of readdirSync(join(path, 'index'))) writeFileSync(join(path, 'index', name), Buffer.alloc(200, 0xa5));
      },
    ],
    [
      'with a flipped bit in every ref and name',
      (path) => {
        let flipped = 0;
        for (const name of readdirSync(join(path, 'index'))) {
          const file = join(path, 'index', name);
          const bytes = readFileSync(file);
          // In the JSON of a ref or a name.
          for (let at = bytes.indexOf('"type"'); at >= 0; at = bytes.indexOf('"type"', at + 1)) {
            bytes[at + 1]! ^= 0x20;
            flipped++;
          }
          writeFileSync(file, bytes);
        }
        assert.ok(flipped > 5, `${flipped} bits`);
      },
    ],
  ];
  for (const [what, damage] of INDEX) {
    it(`when the store is opened again, its index ${what}`, async () => {
      const path = folder();
      const expected = await sample(path);
      damage(path);
      assert.deepEqual(await told(path, NAMES), expected);
      assert.deepEqual(await told(path, NAMES), expected);
    });

    it(`after kill -9, the index ${what}`, async () => {
      const path = folder();
      await sample(path);
      // Behind the mark that closing has left.
      await nameAndDie(path, [
        ['label', 'a', 1],
        ['fork', 'third', 2],
        ['label', 'c', 4],
        ['checkpoint', 'd'],
        ['label', 'c', 1],
        ['label', 'e', 5],
      ]);
      damage(path);
      const expected = {
        names: { main: 4, side: 3, a: 1, b: 1, c: 1, third: 2, work: 5, d: 5, e: 5 },
        labels: { 1: ['b', 'a', 'c'], 5: ['d', 'e'] },
      };
      assert.deepEqual(await told(path, Object.keys(expected.names)), expected);
      assert.deepEqual(await told(path, Object.keys(expected.names)), expected);
    });
  }

  it('as the log has them, where it lost what the index has (the mark is older)', async () => {
    const path = folder();
    const expected = await sample(path);
    save(path, 'log');
    await nameAndDie(path, [
      ['label', 'a', 1],
      ['label', 'b', 3],
      ['label', 'c', 2],
      ['label', 'ghost', 4],
      ['checkpoint', 'spirit'],
      ['fork', 'gone', 1],
    ]);
    putBack(path, 'log');
    const names = [...NAMES, 'ghost', 'spirit', 'gone', 'work'];
    const nothing = { ghost: null, spirit: null, gone: null, work: null };
    const kept = { names: { ...expected.names, ...nothing }, labels: expected.labels };
    assert.deepEqual(await told(path, names), kept);
    assert.deepEqual(await told(path, names), kept);
    // What comes later has higher numbers than what was lost: that must not make up for it.
    const store = await CheckpointStore.open(path);
    await store.label('new', 1);
    const region = Region.allocate(4 * PAGE);
    const other = await Checkpointer.open(store, { regions: { r: region }, branch: 'other' });
    assert.equal((await other.checkpoint()).id, 5);
    await store.close();
    region.close();
    const after = { names: kept.names, labels: { ...kept.labels, 1: ['b', 'new'] } };
    assert.deepEqual(await told(path, names), after);
    rmSync(join(path, 'index'), { recursive: true });
    assert.deepEqual(await told(path, names), after);
  });

  it('as the log has them, where the index is older', async () => {
    const path = folder();
    await sample(path);
    save(path, 'index');
    const store = await CheckpointStore.open(path);
    await store.label('a', 2, { move: true });
    await store.label('b', 4, { move: true });
    await store.label('z', 1);
    await store.close();
    putBack(path, 'index');
    const expected = { names: { main: 4, side: 3, a: 2, b: 4, c: 3, z: 1 }, labels: { 1: ['z'], 2: ['a'], 3: ['c'], 4: ['b'] } };
    assert.deepEqual(await told(path, Object.keys(expected.names)), expected);
  });

  for (const end of ['close', 'crash'] as const) {
    it(`with 1,500 checkpoints and refs, more than one mark of the index, then ${end}`, async function () {
      this.timeout(180_000);
      const path = folder();
      const expected = await inChild(
        { limitMs: 120_000 },
        async ({ Checkpointer, CheckpointStore, Region, PAGE, crash }, path, end) => {
          const store = await CheckpointStore.open(path, { createIfMissing: true });
          const region = Region.allocate(PAGE);
          const c = await Checkpointer.open(store, { regions: { r: region }, durability: 'relaxed' });
          const names: Record<string, number> = {};
          const pending: Promise<unknown>[] = [];
          for (let k = 1; k <= 1500; k++) {
            new Uint32Array(region.buffer)[0] = k;
            pending.push(c.checkpoint(k % 50 === 7 ? { label: `built${k}` } : {}));
            if (k % 50 === 7) names[`built${k}`] = k;
            if (k % 100 !== 0) continue;
            await Promise.all(pending.splice(0));
            const label = (name: string, id: number) => {
              names[name] = id;
              pending.push(store.label(name, id, { move: true }));
            };
            // Wanders over old and new ones.
            label('wanders', 1 + ((k * 7919) % k));
            for (let j = 0; j < 5; j++) label(`later${k}-${j}`, 1 + ((k * 31 + j * 17) % k));
            if (k % 300 === 0) label('built7', k);
            if (k % 200 !== 0) continue;
            names[`fork${k}`] = k - 3;
            pending.push(store.fork(k - 3, `fork${k}`));
          }
          await Promise.all(pending);
          names.main = 1500;
          if (end === 'crash') return crash(names);
          await store.close();
          return names;
        },
        path,
        end,
      );
      const check = async () => assert.deepEqual((await told(path, Object.keys(expected))).names, expected);
      await check();
      await check();
      rmSync(join(path, 'index'), { recursive: true });
      await check();
    });
  }

  it('relaxed checkpoints before a ref are durable after an unclean end, too', async () => {
    const path = folder();
    await sample(path);
    await nameAndDie(path, [
      ['checkpoint', 'relaxed'],
      ['label', 'x', 1],
    ]);
    const store = await CheckpointStore.open(path);
    const list: Checkpoint[] = [];
    for await (const checkpoint of store.checkpoints()) list.push(checkpoint);
    assert.deepEqual(
      list.map(({ durable }) => durable),
      [true, true, true, true, true],
    );
    assert.equal((await stored(store, 'relaxed')).length, 4 * PAGE);
    await store.close();
  });
});
