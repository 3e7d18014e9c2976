import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import { CheckpointStore } from '../../lib/index.js';
import { SampleStore } from './sample-store.js';

type TextDatabase = Level<string, string>;

async function changeIndex(store: SampleStore, body: (db: TextDatabase) => Promise<void>): Promise<void> {
  const db: TextDatabase = new Level(join(store.path, 'index'), { compression: false });
  await db.open();
  try {
    await body(db);
  } finally {
    await db.close();
  }
}

const indexFiles = (store: SampleStore) => readdirSync(join(store.path, 'index')).map((name) => join(store.path, 'index', name));

const DAMAGES: [string, (store: SampleStore) => void | Promise<void>][] = [
  ['deleted', (store) => rmSync(join(store.path, 'index'), { recursive: true })],
  ['without its CURRENT', (store) => rmSync(join(store.path, 'index', 'CURRENT'))],
  ['with a CURRENT that names nothing', (store) => writeFileSync(join(store.path, 'index', 'CURRENT'), 'MANIFEST-999999\n')],
  [
    'with garbage in every file',
    (store) => {
      for (const file of indexFiles(store)) writeFileSync(file, Buffer.alloc(statSync(file).size, 0xa5));
    },
  ],
  [
    'with every file cut to nothing',
    (store) => {
      for (const file of indexFiles(store)) truncateSync(file);
    },
  ],
  [
    'without its data',
    (store) => {
      for (const file of indexFiles(store)) if (/\.(ldb|log)$/.test(file)) rmSync(file);
    },
  ],
  ['empty', (store) => changeIndex(store, (db) => db.clear())],
  ['without a mark', (store) => changeIndex(store, (db) => db.del('m/mark'))],
  ['with a mark that is not JSON', (store) => changeIndex(store, (db) => db.put('m/mark', '{'))],
  ['with a name that is not JSON', (store) => changeIndex(store, (db) => db.put('n/main', ''))],
  [
    'a file',
    (store) => {
      rmSync(join(store.path, 'index'), { recursive: true });
      writeFileSync(join(store.path, 'index'), 'x');
    },
  ],
];

describe('chain: index', () => {
  for (const [what, damage] of DAMAGES) {
    it(`is made anew when it is ${what}`, async () => {
      await SampleStore.with(async (store) => {
        await store.take(['sync', 'relaxed', 'sync']);
        await store.take(['sync'], { branch: 'other', back: 2 });
        await damage(store);
        await store.check([1, 2, 3, 4], 3);
        // And is as good as the one before.
        await store.check([1, 2, 3, 4], 3);
        await store.take(['relaxed'], { back: 3 });
        await store.check([1, 2, 3, 4, 5], 5);
      });
    });
  }

  it('is brought up to date when it is behind the log', async () => {
    await SampleStore.with(async (store) => {
      await store.take(['sync', 'relaxed']);
      store.save('index');
      await store.take(['relaxed', 'sync', 'relaxed']);
      await store.take(['sync'], { branch: 'other', back: 1 });
      store.putBack('index');
      await store.check([1, 2, 3, 4, 5, 6], 5);
    });
  });

  it('is made anew when it is ahead of the log with relaxed checkpoints', async () => {
    await SampleStore.with(async (store) => {
      await store.take(['sync', 'relaxed']);
      store.save('log');
      await store.take(['relaxed', 'relaxed']);
      store.putBack('log');
      await store.check([1, 2], 2);
      const [next] = await store.take(['sync'], { back: 2 });
      await store.check([1, 2, next!.id], next!.id);
    });
  });

  it('reports durable checkpoints that the log does not have, at every open', async () => {
    await SampleStore.with(async (store) => {
      await store.take(['sync']);
      store.save('log');
      await store.take(['sync', 'sync']);
      store.putBack('log');
      for (let times = 0; times < 3; times++) {
        const opened = await CheckpointStore.open(store.path);
        const { problems } = await opened.verify();
        assert.ok(
          problems.some(({ code }) => code === 'TIDEMARK_CHAIN_BROKEN'),
          `open ${times}: ${JSON.stringify(problems)}`,
        );
        await opened.close();
      }
    });
  });

  it('says what is durable', async () => {
    await SampleStore.with(async (store) => {
      await store.take(['relaxed', 'sync', 'relaxed']);
      // Opening puts everything that is found into synced tables.
      for (let times = 0; times < 2; times++) {
        const opened = await CheckpointStore.open(store.path);
        for await (const checkpoint of opened.checkpoints())
          assert.equal(checkpoint.durable, true, `checkpoint ${checkpoint.id}`);
        await opened.close();
      }
    });
  });

  it('tells the same after it was made anew as before', async () => {
    await SampleStore.with(async (store) => {
      await store.take(['sync', 'relaxed', 'sync']);
      await store.take(['sync', 'relaxed'], { branch: 'other', back: 1 });
      const list = async () => {
        const opened = await CheckpointStore.open(store.path);
        const listed = [];
        for await (const { timings: _, ...rest } of opened.checkpoints()) listed.push(rest);
        await opened.close();
        return listed;
      };
      const before = await list();
      rmSync(join(store.path, 'index'), { recursive: true });
      assert.deepEqual(await list(), before);
      assert.ok(readFileSync(join(store.path, 'TIDEMARK'), 'utf8').startsWith('tidemark store\nformat 1\n'));
    });
  });
});
