import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Metadata, type RunOptions, run } from '../../examples/sqlite-pages/main.js';
import { type Verified, verify } from '../../examples/sqlite-pages/verify.js';
import { fingerprintQuery } from '../../examples/sqlite-pages/workload.js';
import { CheckpointStore } from '../../lib/index.js';
import { cli, example, start, systemSqlite, temporaryFolder } from './support.js';

describe('examples: sqlite-pages', () => {
  const folder = temporaryFolder();
  const quietly = (options: RunOptions) => run({ log: () => {}, ...options });

  /** The databases of all checkpoints, by the transactions in them, after a SQLite that never saw them has checked them. */
  async function databases(store: string, name: string): Promise<Map<number, Verified>> {
    const files = folder.path(name);
    await mkdir(files);
    const verified = await verify({ store, folder: files });
    assert.deepEqual(
      verified.flatMap(({ problems }) => problems),
      [],
    );
    return new Map(verified.map((one) => [one.transactions, one]));
  }

  it('makes a checkpoint after every batch, and goes on where the store ends', async () => {
    const store = folder.path('store');
    const lines: string[] = [];
    const first = await run({ store, transactions: 250, every: 50, log: (line) => lines.push(line) });
    assert.equal(first.resumedAt, 0);
    assert.deepEqual(
      first.checkpoints.map(({ id, kind }) => [id, kind]),
      [1, 2, 3, 4, 5].map((id) => [id, id === 1 ? 'full' : 'incremental']),
    );
    assert.equal(lines.length, 6);
    assert.match(lines[1] ?? '', /^ +1 +50 +\d+ +\d+ +\d+ +\d+\.\d\d$/);

    const second = await quietly({ store, transactions: 120, every: 50 });
    assert.equal(second.resumedAt, 250);
    assert.equal(second.transactions, 370);
    assert.deepEqual(
      second.checkpoints.map(({ id, parent, kind }) => [id, parent, kind]),
      [6, 7, 8].map((id) => [id, id - 1, 'incremental']),
    );
    const files = await databases(store, 'files');
    assert.deepEqual([...files.keys()], [50, 100, 150, 200, 250, 300, 350, 370]);

    // What the tool writes is the database and nothing behind it: as many pages as its header says.
    const file = folder.path('main.sqlite');
    const restored = await start(process.execPath, [cli, 'restore', store, 'main', '--region', 'database', '--output', file]);
    assert.equal(restored.code, 0, restored.stderr);
    const written = await readFile(file);
    assert.equal(written.length, written.readUInt16BE(16) * written.readUInt32BE(28));
    assert.ok(written.equals(await readFile(files.get(370)!.file)));

    const opened = await CheckpointStore.open(store);
    try {
      assert.deepEqual((await opened.verify()).problems, []);
    } finally {
      await opened.close();
    }
  });

  it('is, after kill -9, the same to the byte as a run that was not interrupted', async () => {
    const [killed, whole] = [folder.path('killed'), folder.path('whole')];
    const every = 20;
    for (const after of [0, 3, 6]) {
      let reported = 0;
      // More than it comes to before it is killed, however late that is.
      const args = [example('sqlite-pages/main.js'), '--store', killed, '--transactions', '1000000', '--every', String(every)];
      const { signal } = await start(process.execPath, args, {
        killAt: (line) => /^ +\d/.test(line) && ++reported > after,
      });
      assert.equal(signal, 'SIGKILL');
    }
    const { resumedAt } = await quietly({ store: killed, transactions: every, every });
    assert.ok(resumedAt > 9 * every, `resumed at ${resumedAt}`);
    const goal = resumedAt + 12 * every;
    await quietly({ store: killed, transactions: goal - resumedAt - every, every });
    await quietly({ store: whole, transactions: goal, every });

    const found = await databases(killed, 'found');
    const opened = await CheckpointStore.open(whole);
    try {
      const expected: number[] = [];
      for await (const { id, metadata, regions } of opened.checkpoints()) {
        const { transactions } = metadata as Metadata;
        expected.push(transactions);
        const snapshot = await opened.at(id);
        const bytes = await snapshot.read('database', 0, regions.database!.length);
        const same = (await readFile(found.get(transactions)!.file)).equals(bytes);
        assert.ok(same, `the databases after ${transactions} transactions differ`);
      }
      assert.deepEqual([...found.keys()], expected);
    } finally {
      await opened.close();
    }
  }).timeout(120_000);

  it('says what is wrong when a batch fails, whatever becomes of the checkpoint on its way', async () => {
    const store = folder.path('store');
    const script = `
      const { run } = await import(${JSON.stringify(example('sqlite-pages/main.js'))});
      const options = { store: ${JSON.stringify(store)}, transactions: 400, every: 100, capacity: 33 * 4096, log: () => {} };
      await run(options).catch((error) => console.log(error.message));`;
    const fail = (env: NodeJS.ProcessEnv) => start(process.execPath, ['--input-type=module', '--eval', script], { env });
    const both = await fail({ TIDEMARK_FAULTS: 'log.write' });
    assert.match(both.stdout, /SQLITE_FULL/);
    assert.equal(both.code, 0, both.stderr);

    // And when the checkpoint succeeds, it is there.
    const batch = await fail({});
    assert.match(batch.stdout, /SQLITE_FULL/);
    assert.equal(batch.code, 0, batch.stderr);
    assert.deepEqual([...(await databases(store, 'files')).keys()], [100]);
  });

  if (systemSqlite) {
    it("leaves databases that the system's sqlite3 finds whole", async () => {
      const store = folder.path('store');
      await quietly({ store, transactions: 300, every: 50 });
      await quietly({ store, transactions: 300, every: 50 });
      const opened = await CheckpointStore.open(store);
      const expected: [id: number, answer: unknown][] = [];
      for await (const { id, metadata } of opened.checkpoints()) expected.push([id, (metadata as { answer: unknown }).answer]);
      await opened.close();
      assert.equal(expected.length, 12);
      for (const [id, answer] of expected) {
        const file = join(folder.path(`${id}.sqlite`));
        const restored = await start(process.execPath, [
          cli,
          'restore',
          store,
          String(id),
          '--region',
          'database',
          '--output',
          file,
        ]);
        assert.equal(restored.code, 0, restored.stderr);
        const check = await start('sqlite3', [file, 'PRAGMA integrity_check']);
        assert.equal(check.stdout.trim(), 'ok', check.stderr);
        const query = await start('sqlite3', [file, fingerprintQuery]);
        assert.deepEqual(JSON.parse(query.stdout), answer);
      }
    }).timeout(120_000);
  }
});
