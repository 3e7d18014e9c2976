import { Checkpointer, CheckpointStore, Engine } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assert, assertSame, copyOf, edit, PAGE, range, stored, withCheckpointer } from '../support/kit.js';
import { endKinds, KINDS, withMade } from './kinds.js';
import { PAGES, STEPS, TOUCHED, takeThree } from './steps.js';

describe('kinds of memory', () => {
  const folder = storeFolders('/dev/shm');
  const engine = new Engine();
  after(async () => {
    await endKinds();
    await engine.close();
  });

  for (const kind of KINDS) {
    for (const deltas of [true, false]) {
      describe(`${kind.name}, ${deltas ? 'with' : 'without'} deltas`, () => {
        for (const { what, run, suits } of STEPS) {
          if (suits?.(kind) === false) continue;
          it(what, async () => {
            const store = await CheckpointStore.open(folder(), { createIfMissing: true, engine });
            await withMade(kind, PAGES, async (original) => {
              const world = { kind, store, deltas, original };
              await run({ ...world, models: await takeThree(world) });
            });
            await store.close();
          });
        }
      });
    }
  }

  for (const from of KINDS) {
    it(`a checkpoint of ${from.name} restores into every other kind, and goes on there`, async () => {
      const store = await CheckpointStore.open(folder(), { createIfMissing: true, engine });
      const model = await withMade(from, PAGES, (memory) =>
        withCheckpointer(store, { regions: { r: memory.region }, durability: 'relaxed' }, async (c) => {
          await memory.write(range(0, 300), 1);
          await c.checkpoint();
          edit(memory.bytes(), range(10, 50), 2);
          memory.bytes().fill(0, 150 * PAGE, 160 * PAGE);
          await c.checkpoint();
          return copyOf(memory.bytes());
        }),
      );
      for (const to of KINDS) {
        await withMade(to, PAGES, async (memory) => {
          const c = await Checkpointer.open(store, { regions: { r: memory.region }, durability: 'relaxed' });
          await c.restore(2);
          assertSame(memory.bytes(), model, to.name);
          await memory.write(TOUCHED, 3);
          const { pages, zeroPages } = (await c.checkpoint()).regions.r!;
          assert.deepEqual([pages, zeroPages], [TOUCHED.length, 0], to.name);
          assertSame(await stored(store, c.head!.id), memory.bytes(), to.name);
          await c.close();
        });
      }
      await store.close();
    });
  }
});
