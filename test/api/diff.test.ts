import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type Checkpoint, Checkpointer, CheckpointStore, Engine, Region } from '../../lib/index.js';
import { random } from '../chain/support.js';
import { bytesOf, copyOf, stamp } from '../support/kit.js';
import { damageExtent } from '../support/log-files.js';
import { resizable } from '../support/memories.js';
import { code, PAGE, withFolder } from './support.js';

type Contents = Record<string, Uint8Array>;

/** One page at a time; what only one has counts as zero in the other. */
function plainDiff(a: Contents, b: Contents): Record<string, number[]> {
  const differ: Record<string, number[]> = {};
  for (const name of new Set([...Object.keys(a), ...Object.keys(b)])) {
    const runs: number[] = [];
    const page = (of: Contents, k: number) => {
      const bytes = Buffer.alloc(PAGE);
      bytes.set(of[name]?.subarray(k * PAGE, (k + 1) * PAGE) ?? []);
      return bytes;
    };
    for (let k = 0; k * PAGE < Math.max(a[name]?.length ?? 0, b[name]?.length ?? 0); k++) {
      if (page(a, k).equals(page(b, k))) continue;
      if (runs.length > 0 && runs.at(-2)! + runs.at(-1)! === k) runs[runs.length - 1]!++;
      else runs.push(k, 1);
    }
    differ[name] = runs;
  }
  return differ;
}

const plain = (diff: Record<string, Uint32Array>) =>
  Object.fromEntries(Object.entries(diff).map(([name, runs]) => [name, [...runs]]));

/** Any bytes have the same CRC32C with this XORed anywhere into them: it is the polynomial itself, least significant bit first. */
const COLLISION = (() => {
  const bits = [1, ...Array.from({ length: 32 }, (_, k) => (0x1edc6f41 >>> (31 - k)) & 1)];
  const bytes = new Uint8Array(5);
  for (const [k, bit] of bits.entries()) bytes[k >> 3]! |= bit << (k & 7);
  return bytes;
})();

function collide(region: Region, page: number, at = 100): void {
  const bytes = bytesOf(region);
  for (const [k, byte] of COLLISION.entries()) bytes[page * PAGE + at + k]! ^= byte;
}

describe('api: diff', () => {
  for (const seed of [1, 2, 3]) {
    it(`of any two checkpoints of a random history (seed ${seed})`, async () => {
      await withFolder(async (folder) => {
        const pick = random(seed);
        const engine = new Engine({ workers: 1 });
        const store = await CheckpointStore.open(join(folder, 'store'), { createIfMissing: true, engine });
        const grown = resizable(40 * PAGE);
        grown.resize(12 * PAGE);
        const regions: Record<string, Region> = { fixed: Region.allocate(24 * PAGE), grows: Region.of(grown) };
        const extra = Region.allocate(9 * PAGE);
        const history: { id: number; contents: Contents }[] = [];
        const c = await Checkpointer.open(store, { regions });
        const members = new Set(Object.keys(regions));
        const region = (name: string) => (name === 'extra' ? extra : regions[name]!);
        for (let step = 0; step < 16; step++) {
          if (pick(6) === 0 && grown.byteLength < 40 * PAGE) grown.resize(grown.byteLength + (1 + pick(3)) * PAGE);
          if (pick(5) === 0) {
            if (members.delete('extra')) c.detach('extra');
            else {
              c.attach('extra', extra);
              members.add('extra');
            }
          }
          for (const name of members) {
            const pages = bytesOf(region(name)).length / PAGE;
            for (let times = pick(5); times > 0; times--) {
              const page = pick(pages);
              const bytes = bytesOf(region(name)).subarray(page * PAGE, (page + 1) * PAGE);
              const kind = pick(5);
              // Few values, so that pages come back to what they held; zero pages; the same again; a byte; equal checksums.
              if (kind === 0) bytes.fill(0);
              else if (kind === 1) bytes[pick(PAGE)]! ^= 1 + pick(255);
              else if (kind === 2) bytes[0] = bytes[0]!;
              else if (kind === 3) collide(region(name), page);
              else stamp(bytes, 0, pick(3));
            }
          }
          const { id } = await c.checkpoint({ durability: 'relaxed' });
          history.push({ id, contents: Object.fromEntries([...members].map((name) => [name, copyOf(region(name))])) });
          if (pick(6) === 0) {
            const back = history[pick(history.length)]!;
            // Growing memory cannot shrink, and a region that comes or goes is another matter.
            const fits =
              Object.keys(back.contents).length === members.size && Object.keys(back.contents).every((name) => members.has(name));
            if (fits) {
              await store.fork(back.id, `fork${step}`);
              await c.restore(back.id);
            }
          }
        }
        let differing = 0;
        for (const a of history) {
          for (const b of history) {
            const expected = plainDiff(a.contents, b.contents);
            assert.deepEqual(plain(await store.diff(a.id, b.id)), expected, `${a.id} and ${b.id}`);
            if (Object.values(expected).some((runs) => runs.length > 0)) differing++;
          }
        }
        assert.ok(differing > 150, `${differing} pairs differ`);
        await store.close();
        for (const one of [...Object.values(regions), extra]) one.close();
        await engine.close();
      });
    });
  }

  it('compares bytes where checksums are equal, also with pages that only one has', async () => {
    await withFolder(async (folder) => {
      const store = await CheckpointStore.open(join(folder, 'store'), { createIfMissing: true });
      const [a, b] = [Region.allocate(600 * PAGE), Region.allocate(4 * PAGE)];
      const c = await Checkpointer.open(store, { regions: { a } });
      stamp(a, [3, 4, 5, 599], 1);
      await c.checkpoint();
      // Page 3 has another checksum's bytes; 4 was written with what it held; 9 has the checksum of a zero page.
      collide(a, 3);
      bytesOf(a)[4 * PAGE] = bytesOf(a)[4 * PAGE]!;
      collide(a, 9);
      collide(a, 598, 7);
      await c.checkpoint();
      collide(b, 1);
      c.attach('b' as 'a', b);
      await c.checkpoint();
      assert.deepEqual(plain(await store.diff(1, 2)), { a: [3, 1, 9, 1, 598, 1] });
      assert.deepEqual(plain(await store.diff(2, 1)), { a: [3, 1, 9, 1, 598, 1] });
      assert.deepEqual(plain(await store.diff(2, 2)), { a: [] });
      assert.deepEqual(plain(await store.diff(2, 3)), { a: [], b: [1, 1] });
      assert.deepEqual(plain(await store.diff(3, 2)), { a: [], b: [1, 1] });
      assert.ok((await store.diff(1, 2)).a instanceof Uint32Array);
      await store.close();
      a.close();
      b.close();
    });
  });

  it('of pages that were all written again with what they held reads them, in pieces', async () => {
    await withFolder(async (folder) => {
      const store = await CheckpointStore.open(join(folder, 'store'), { createIfMissing: true });
      const region = Region.allocate(700 * PAGE);
      // Without deltas: with them a page that was written with what it held is not stored again.
      const c = await Checkpointer.open(store, { regions: { r: region }, deltas: false });
      const taken: Checkpoint[] = [];
      for (let times = 0; times < 2; times++) {
        for (let page = 0; page < 700; page++) stamp(region, page, 1);
        if (times === 1) {
          collide(region, 256);
          collide(region, 511);
        }
        taken.push(await c.checkpoint());
      }
      assert.deepEqual(
        taken.map(({ regions }) => regions.r!.pages),
        [700, 700],
      );
      assert.deepEqual(plain(await store.diff(1, 2)), { r: [256, 1, 511, 1] });
      await store.close();
      region.close();
    });
  });

  it('takes every kind of target, and needs no bytes where checksums differ', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      let store = await CheckpointStore.open(path, { createIfMissing: true });
      const region = Region.allocate(8 * PAGE);
      const c = await Checkpointer.open(store, { regions: { r: region }, deltas: false });
      stamp(region, [1, 2], 1);
      await c.checkpoint({ label: 'old' });
      stamp(region, [2, 3], 2);
      await c.checkpoint();
      // Written with what it holds: only its bytes can tell.
      stamp(region, 3, 2);
      await c.checkpoint();
      for (const target of ['main~1', { back: 1 }, 2, '2'])
        assert.deepEqual(plain(await store.diff('old', target)), { r: [2, 2] }, JSON.stringify(target));
      await store.close();
      region.close();
      await damageExtent(path, -1);
      store = await CheckpointStore.open(path);
      await assert.rejects(store.diff(2, 3), code('TIDEMARK_DAMAGED'));
      await assert.rejects(store.diff('main', 2), code('TIDEMARK_DAMAGED'));
      assert.deepEqual(plain(await store.diff(1, 3)), { r: [2, 2] });
      assert.deepEqual(plain(await store.diff(1, 2)), { r: [2, 2] });
      await store.close();
    });
  });
});
