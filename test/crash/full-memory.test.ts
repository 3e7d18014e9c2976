import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { Checkpointer, Region, type TidemarkError } from '../../lib/index.js';
import { bytesOf, withCheckpointer } from '../support/kit.js';
import { Mount, requireRoot } from './support/mounts.js';

const BYTES = 8 << 20;

describe('crash: a tmpfs without room for what is restored', () => {
  before(() => requireRoot('mount', 'umount'));

  for (const lazy of [false, true]) {
    it(`${lazy ? 'lazily' : 'at once'}: it is said, the store is whole, and it is restored when there is room`, async () => {
      const [room, small] = [Mount.tmpfs(32), Mount.tmpfs(4)];
      try {
        const store = join(room.path, 'store');
        const source = Region.allocate(BYTES);
        randomFillSync(bytesOf(source));
        await withCheckpointer(store, { regions: { r: source } }, (c) => c.checkpoint());
        const target = Region.map(join(small.path, 'memory'), { byteLength: BYTES, create: true });
        const c = await Checkpointer.open(store, { regions: { r: target } });
        await assert.rejects(
          async () => (await c.restore(undefined, { lazy })).done,
          (error: TidemarkError) => error.code === 'TIDEMARK_NO_SPACE' && /make room/.test(error.hint!),
        );
        await c.close();
        target.close();
        rmSync(join(small.path, 'memory'));
        const other = Region.map(join(room.path, 'memory'), { byteLength: BYTES, create: true });
        await withCheckpointer(store, { regions: { r: other } }, async (again) => {
          await (await again.restore(undefined, { lazy })).done;
          assert.equal(Buffer.compare(bytesOf(other), bytesOf(source)), 0);
        });
        other.close();
        source.close();
      } finally {
        small.remove();
        room.remove();
      }
    });
  }
});
