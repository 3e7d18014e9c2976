import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Checkpointer, CheckpointStore, Engine, Region } from '../../lib/index.js';
import { code, makeStore, PAGE, withCheckpointer, withFolder } from './support.js';

const library = fileURLToPath(new URL('../../lib/index.js', import.meta.url));

describe('api: one owner', () => {
  it('a region has one checkpointer', async () => {
    await withCheckpointer(async ({ path, region, checkpointer }) => {
      await assert.rejects(Checkpointer.open(`${path}-2`, { regions: { heap: region } }), code('TIDEMARK_REGION_BUSY'));
      const free = Region.allocate(PAGE);
      await assert.rejects(Checkpointer.open(`${path}-2`, { regions: { free, heap: region } }), code('TIDEMARK_REGION_BUSY'));
      free.close();
      assert.throws(() => region.close(), code('TIDEMARK_REGION_BUSY'));
      assert.throws(() => region.takeDirtyRanges(), code('TIDEMARK_REGION_BUSY'));
      assert.ok(region.dirtyRanges() instanceof Uint32Array);
      await checkpointer.checkpoint();
      await checkpointer.close();
      const next = await Checkpointer.open(path, { regions: { heap: region } });
      assert.equal(next.base?.id, 1);
      await next.close();
    });
  });

  it('a branch has one checkpointer, also when both are opened at once', async () => {
    await withFolder(async (folder) => {
      const store = await CheckpointStore.open(join(folder, 'store'), { createIfMissing: true });
      const regions = Array.from({ length: 3 }, () => Region.allocate(PAGE));
      const opened = await Promise.allSettled(regions.map((heap) => Checkpointer.open(store, { regions: { heap } })));
      const winners = opened.filter((result) => result.status === 'fulfilled');
      assert.equal(winners.length, 1);
      for (const result of opened) if (result.status === 'rejected') code('TIDEMARK_BRANCH_BUSY')(result.reason);
      const loser = regions[opened.findIndex(({ status }) => status === 'rejected')]!;
      const other = await Checkpointer.open(store, { regions: { heap: loser }, branch: 'other' });
      await other.close();
      await winners[0]!.value.close();
      const again = await Checkpointer.open(store, { regions: { heap: loser } });
      await store.close();
      await assert.rejects(again.checkpoint(), code('TIDEMARK_CLOSED'));
      for (const region of regions) region.close();
    });
  });

  it('a store is open once in a process, by whatever path and engine', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      const store = await CheckpointStore.open(path, { createIfMissing: true });
      symlinkSync(path, join(folder, 'link'));
      symlinkSync(folder, join(folder, 'loop'));
      mkdirSync(join(folder, 'deep'));
      const region = Region.allocate(PAGE);
      const other = new Engine({ workers: 1 });
      for (const name of [
        path,
        `${path}/`,
        join(folder, 'link'),
        join(folder, 'loop', 'store'),
        join(folder, 'deep/../store'),
        relative(process.cwd(), path),
      ]) {
        await assert.rejects(CheckpointStore.open(name), code('TIDEMARK_STORE_LOCKED'), name);
        await assert.rejects(
          CheckpointStore.open(name, { createIfMissing: true, engine: other }),
          code('TIDEMARK_STORE_LOCKED'),
          name,
        );
        await assert.rejects(Checkpointer.open(name, { regions: { region } }), code('TIDEMARK_STORE_LOCKED'), name);
      }
      await store.close();
      const again = await Checkpointer.open(join(folder, 'link'), { regions: { region } });
      await again.checkpoint();
      await again.close();
      await other.close();
      region.close();
    });
  });

  it('a store is open in one process', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      await makeStore(path, 1);
      const program = `import { CheckpointStore } from ${JSON.stringify(library)};
        const store = await CheckpointStore.open(${JSON.stringify(path)});
        console.log('open');
        process.stdin.once('data', async () => { await store.close(); process.exit(0); });`;
      const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: ['pipe', 'pipe', 'inherit'] });
      const exited = new Promise((resolve) => child.once('exit', resolve));
      await new Promise((resolve) => child.stdout.once('data', resolve));
      await assert.rejects(CheckpointStore.open(path), (error: Error) => {
        code('TIDEMARK_STORE_LOCKED')(error);
        assert.match(error.message, new RegExp(`pid ${child.pid} `));
        return (error as { retryable?: boolean }).retryable === true;
      });
      child.stdin.write('close\n');
      await exited;
      const store = await CheckpointStore.open(path);
      assert.equal((await store.find('main'))?.id, 1);
      await store.close();
    });
  });

  it('is free again after an open that failed', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      const heap = Region.allocate(PAGE);
      const store = await CheckpointStore.open(path, { createIfMissing: true });
      const opening = Checkpointer.open(store, { regions: { heap } });
      const closing = store.close();
      await assert.rejects(opening, code('TIDEMARK_CLOSED'));
      await closing;
      const next = await Checkpointer.open(path, { regions: { heap } });
      await next.checkpoint();
      await next.close();
      heap.close();
    });
  });

  it('is free again after `await using`, whatever was in flight and thrown', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      const heap = Region.allocate(64 * PAGE);
      const calls: Promise<{ id: number }>[] = [];
      const use = async () => {
        await using store = await CheckpointStore.open(path, { createIfMissing: true });
        await using checkpointer = await Checkpointer.open(store, { regions: { heap } });
        await checkpointer.checkpoint();
        await using snapshot = await store.at(1);
        new Uint8Array(heap.buffer).fill(1);
        calls.push(checkpointer.checkpoint());
        assert.equal((await snapshot.read('heap', 0, 1))[0], 0);
        throw new Error('of the block');
      };
      await assert.rejects(use(), /of the block/);
      assert.equal((await calls[0]!).id, 2);
      heap.close();
      await using store = await CheckpointStore.open(path);
      assert.equal((await store.find('main'))?.id, 2);
    });
  });
});
