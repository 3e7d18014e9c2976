import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Checkpointer, CheckpointStore, Region, TidemarkError } from '../../lib/index.js';
import { code, makeStore, PAGE, tree, withFolder } from './support.js';

const library = fileURLToPath(new URL('../../lib/index.js', import.meta.url));

/** Both ways to open: neither may touch what is no store. */
async function refused(path: string, expected: string[]): Promise<void> {
  const region = Region.allocate(PAGE);
  for (const createIfMissing of [false, true])
    await assert.rejects(CheckpointStore.open(path, { createIfMissing }), code(...expected));
  await assert.rejects(Checkpointer.open(path, { regions: { region } }), code(...expected));
  region.close();
}

describe('api: the folder of a store', () => {
  it('is made private, with parents, when that is asked for', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'a', 'b', 'store');
      await assert.rejects(CheckpointStore.open(path), code('TIDEMARK_NOT_FOUND'));
      assert.deepEqual(readdirSync(folder), []);
      await (await CheckpointStore.open(path, { createIfMissing: true })).close();
      assert.equal(statSync(path).mode & 0o777, 0o700);
      assert.deepEqual(readdirSync(path).sort(), ['TIDEMARK', 'index', 'lock', 'log', 'owner.json']);
      await (await CheckpointStore.open(path)).close();
      const empty = join(folder, 'empty');
      mkdirSync(empty);
      await assert.rejects(CheckpointStore.open(empty), code('TIDEMARK_NOT_FOUND'));
      assert.deepEqual(readdirSync(empty), []);
      await (await CheckpointStore.open(empty, { createIfMissing: true })).close();
    });
  });

  it('goes on where a first open was killed before it had written the marker', async () => {
    await withFolder(async (folder) => {
      writeFileSync(join(folder, 'lock'), '');
      writeFileSync(join(folder, 'TIDEMARK.new'), 'tide');
      const store = await CheckpointStore.open(folder, { createIfMissing: true });
      await store.close();
      assert.ok(!readdirSync(folder).includes('TIDEMARK.new'));
    });
  });

  it('is refused and untouched when it holds other things', async () => {
    await withFolder(async (folder) => {
      writeFileSync(join(folder, 'letter.txt'), 'dear');
      const before = tree(folder);
      await assert.rejects(CheckpointStore.open(folder), code('TIDEMARK_NOT_FOUND'));
      await assert.rejects(CheckpointStore.open(folder, { createIfMissing: true }), code('TIDEMARK_STORE_FORMAT'));
      assert.deepEqual(tree(folder), before);
    });
  });

  it('is refused and untouched when it is a file', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'file');
      writeFileSync(path, 'text');
      await assert.rejects(CheckpointStore.open(path, { createIfMissing: true }), (error) => {
        assert.ok(error instanceof TidemarkError);
        assert.equal(error.retryable, false, `${error.code} cannot be tried again`);
        return true;
      });
      await refused(path, ['TIDEMARK_STORE_FORMAT', 'TIDEMARK_NOT_FOUND']);
      assert.equal(readFileSync(path, 'utf8'), 'text');
    });
  });

  it('is refused and untouched when its format is another one or its marker is damaged', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      await makeStore(path, 1);
      const marker = readFileSync(join(path, 'TIDEMARK'), 'utf8');
      for (const text of [
        marker.replace('format 1', 'format 2'),
        marker.replace('format 1', 'format 10'),
        '',
        'tidemark',
        marker.slice(0, 30),
        marker.toUpperCase(),
      ]) {
        writeFileSync(join(path, 'TIDEMARK'), text);
        const before = tree(path);
        await refused(path, ['TIDEMARK_STORE_FORMAT']);
        assert.deepEqual(tree(path), before);
      }
      writeFileSync(join(path, 'TIDEMARK'), marker);
      await (await CheckpointStore.open(path)).close();
    });
  });

  it('is DAMAGED when its records are those of another store', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      await makeStore(path, 2);
      const marker = readFileSync(join(path, 'TIDEMARK'), 'utf8');
      writeFileSync(join(path, 'TIDEMARK'), marker.replace(/uuid [0-9a-f]{8}/, 'uuid 00000000'));
      const store = await CheckpointStore.open(path);
      await assert.rejects(store.at(1), code('TIDEMARK_DAMAGED'));
      assert.ok((await store.verify()).problems.some((problem) => problem.code === 'TIDEMARK_DAMAGED'));
      await store.close();
    });
  });

  it('gives TIDEMARK_PERMISSION where the process may not write', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      await makeStore(path, 1);
      mkdirSync(join(folder, 'closed'));
      symlinkSync(path, join(folder, 'link'));
      chmodSync(folder, 0o755);
      chmodSync(path, 0o555);
      chmodSync(join(folder, 'closed'), 0o555);
      const before = tree(path);
      // The threads of the engine start first: who is nobody may not be allowed to read the library.
      const program = `import { CheckpointStore } from ${JSON.stringify(library)};
        import { mkdtempSync } from 'node:fs';
        const own = mkdtempSync(process.argv[1] + '/own-');
        await (await CheckpointStore.open(own, { createIfMissing: true })).close();
        if (process.getuid() === 0) { process.setgroups([]); process.setgid(65534); process.setuid(65534); }
        const codes = [];
        for (const path of process.argv.slice(2))
          codes.push(await CheckpointStore.open(path, { createIfMissing: true }).then(() => 'opened', (error) => error.code + ' ' + error.retryable));
        console.log(JSON.stringify(codes));`;
      const paths = [path, join(folder, 'link'), join(folder, 'closed', 'new'), join(folder, 'closed')];
      const output = execFileSync(process.execPath, ['--input-type=module', '-e', program, folder, ...paths], {
        encoding: 'utf8',
        timeout: 30_000,
      });
      assert.deepEqual(
        JSON.parse(output),
        paths.map(() => 'TIDEMARK_PERMISSION false'),
      );
      assert.deepEqual(tree(path), before);
      chmodSync(path, 0o700);
    });
  });
});
