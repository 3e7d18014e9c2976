import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { Checkpointer, Engine, hashOf, outcome, PAGE, Region, range, restoredFresh, stamp } from '../support/kit.js';
import { assertSound } from '../support/log-files.js';

/** What a child process has seen: the content of every checkpoint that was acknowledged, how the others ended, how many deltas there were. */
interface Seen {
  images: [id: number, hash: string][];
  failures: string[];
  deltas: number;
  inPlace: boolean[];
}

const POSITIONS = [1, 2, 3, 5, 8];

/** The same few pages change a little again and again, become zero, come back, or are noise; every third checkpoint is not awaited before the next. */
function live(faults: string, path: string): Promise<Seen> {
  return inChild(
    { faults, limitMs: 40_000 },
    async ({ Checkpointer, Engine, Region, PAGE, stamp, edit, range, hashOf }, path) => {
      const engine = new Engine({ workers: 2 });
      const region = Region.allocate(600 * PAGE);
      const bytes = new Uint8Array(region.buffer);
      const c = await Checkpointer.open(path, { regions: { r: region }, engine });
      const images = new Map<number, string>();
      const failures: string[] = [];
      let deltas = 0;
      const noted = async (call: Promise<Awaited<ReturnType<typeof c.checkpoint>>>, hash: string): Promise<void> => {
        try {
          const { id, regions } = await call;
          images.set(id, hash);
          deltas += regions.r!.deltaPages;
        } catch (error) {
          failures.push((error as { code: string }).code);
        }
      };
      stamp(region, range(0, 500), 1);
      let before: Promise<void> = Promise.resolve();
      for (let k = 1; k <= 16; k++) {
        edit(region, range(0, 300), k);
        stamp(region, range(300 + k, 4), k);
        bytes.fill(0, (310 + k) * PAGE, (312 + k) * PAGE);
        const call = c.checkpoint();
        const done = noted(call, hashOf(region));
        if (k % 3 !== 0) await Promise.all([before, done]);
        before = done;
      }
      await before;
      const inPlace: boolean[] = [];
      for (const [id, hash] of [...images].reverse()) {
        await c.restore(id);
        inPlace.push(hashOf(region) === hash);
      }
      await c.close();
      await engine.close();
      return { images: [...images], failures, deltas, inPlace };
    },
    path,
  );
}

describe('deltas and a checkpoint that fails', function () {
  this.timeout(120_000);
  const folder = storeFolders();

  for (const fault of ['log.write', 'log.acknowledge', 'codec.encode', 'capture.copy'] as const) {
    it(`${fault}, early and late: the checkpoints after it are exact, in place and in a new process`, async () => {
      let failures = 0;
      for (const position of POSITIONS) {
        const path = folder();
        const seen = await live(`${fault}:${position}`, path);
        failures += seen.failures.length;
        assert.ok(seen.deltas > 500, `${seen.deltas} deltas at ${position}`);
        assert.deepEqual(
          seen.inPlace,
          seen.images.map(() => true),
          `in place, ${fault}:${position}`,
        );
        for (const [id, hash] of [seen.images[0]!, seen.images[Math.floor(seen.images.length / 2)]!, seen.images.at(-1)!]) {
          const found = hashOf(await restoredFresh(path, id));
          assert.equal(found, hash, `checkpoint ${id}, ${fault}:${position}`);
        }
        await assertSound(path);
      }
      // A write that was made although it was rejected is acknowledged when the log is read back.
      assert.ok(failures >= (fault === 'log.acknowledge' ? 0 : 4), `${failures} failures`);
    });
  }

  it('an abort right behind a checkpoint of a page that became zero: its shadow is gone all the same', async () => {
    const outcomes = await inChild(
      { limitMs: 40_000 },
      async ({ Checkpointer, CheckpointStore, Engine, Region, PAGE, stamp, outcome }, path) => {
        const engine = new Engine({ workers: 1 });
        const store = await CheckpointStore.open(path, { createIfMissing: true, engine });
        // What the jobs of the other wait behind.
        const busy = Region.allocate(8 << 20);
        const region = Region.allocate(16 * PAGE);
        const other = await Checkpointer.open(store, {
          regions: { busy },
          branch: 'busy',
          compressionLevel: 19,
          deltas: false,
        });
        const c = await Checkpointer.open(store, { regions: { r: region } });
        const bytes = new Uint8Array(region.buffer);
        stamp(region, [0, 1], 1);
        await c.checkpoint();
        const text = Buffer.from('the quick brown fox jumps over the lazy dog ');
        const words = new Uint8Array(busy.buffer);
        for (let at = 0; at < words.length; at += text.length + (at % 7)) words.set(text.subarray(0, words.length - at), at);
        const slow = other.checkpoint();
        const before = bytes.slice(0, PAGE);
        let outcomes: string[] = [];
        // Until the abort has come in time.
        for (let tries = 0; tries < 100 && outcomes[1] !== 'TIDEMARK_ABORTED'; tries++) {
          bytes.set(before);
          await c.checkpoint();
          bytes.fill(0, 0, PAGE);
          const zero = await outcome(c.checkpoint());
          bytes[PAGE + 9]!++;
          const abort = new AbortController();
          const aborted = outcome(c.checkpoint({ signal: abort.signal }));
          abort.abort();
          outcomes = [zero, await aborted];
        }
        bytes.set(before);
        bytes[5]! ^= 1;
        outcomes.push(await outcome(c.checkpoint()));
        await slow;
        await store.close();
        await engine.close();
        return outcomes;
      },
      folder(),
    );
    assert.deepEqual(outcomes, ['ok', 'TIDEMARK_ABORTED', 'ok']);
  });

  it('keep the shadows of what is stored where it is not their fault', async () => {
    const path = folder();
    const PAGES = 100;
    const region = Region.allocate(PAGES * PAGE);
    const engine = new Engine({ workers: 1 });
    const c = await Checkpointer.open(path, { regions: { r: region }, engine });
    const bytes = new Uint8Array(region.buffer);
    stamp(region, range(0, PAGES), 1);
    await c.checkpoint({ label: 'taken' });
    bytes[0]!++;
    assert.equal(await outcome(c.checkpoint({ label: 'taken' })), 'TIDEMARK_NAME_TAKEN');
    for (let page = 0; page < PAGES; page++) bytes[page * PAGE + 9]!++;
    const { regions } = await c.checkpoint();
    // Page 0 was in the one that failed: what its shadow holds is not stored.
    assert.deepEqual([regions.r!.pages, regions.r!.deltaPages], [PAGES, PAGES - 1]);
    const whole = Buffer.from(bytes);
    await c.close();
    assert.ok(whole.equals(await restoredFresh(path)));
    await engine.close();
  });
});
