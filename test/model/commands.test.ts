import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { type Checkpoint, Checkpointer, CheckpointStore, Engine } from '../../lib/index.js';
import { allocate, checkMemory, checkpoint, type Memory, Model, NAMES, type Name, PAGE, REGIONS, viewOf } from './model.js';

/** The library beside the model; what was read is compared only when everything is over. */
class Real {
  readonly path: string;
  readonly engine: Engine;
  readonly model = new Model();
  memory: Memory = allocate();
  store!: CheckpointStore;
  checkpointer!: Checkpointer<Name>;
  readonly late: { id: number; name: Name; at: number; bytes: Uint8Array }[] = [];

  constructor(path: string, engine: Engine) {
    this.path = path;
    this.engine = engine;
  }

  async open(): Promise<void> {
    this.store = await CheckpointStore.open(this.path, { createIfMissing: true, engine: this.engine });
    this.checkpointer = await Checkpointer.open(this.store, { regions: this.memory });
  }

  async close(): Promise<void> {
    await this.checkpointer.close();
    await this.store.close();
  }

  async restore(id: number): Promise<void> {
    await this.checkpointer.restore(id);
    this.model.restore(id);
    checkMemory(this.memory, this.model.pages, `restored ${id}`);
  }

  async finish(): Promise<void> {
    checkMemory(this.memory, this.model.pages, 'at the end');
    const listed: number[] = [];
    for await (const { id } of this.store.checkpoints()) listed.push(id);
    assert.deepEqual(listed, this.model.ids());
    for (const { id, name, at, bytes } of this.late)
      assert.ok(
        this.model
          .bytes(id, name)
          .subarray(at, at + bytes.length)
          .equals(bytes),
        `${name} of ${id} at ${at}`,
      );
    assert.deepEqual((await this.store.verify()).problems, []);
  }

  release(): void {
    for (const name of NAMES) this.memory[name].close();
  }
}

interface Step {
  what: string;
  run(real: Real): Promise<void>;
}
const step = (what: string, run: (real: Real) => Promise<void>): Step => ({ what, run });
const chosen = (real: Real, seed: number): number | undefined => {
  const ids = real.model.ids();
  return ids.length === 0 ? undefined : ids[seed % ids.length];
};

const name = fc.constantFrom<Name>('heap', 'stack');
const durability = fc.constantFrom<'sync' | 'relaxed'>('sync', 'relaxed');
const write = fc
  .tuple(name, fc.nat(), fc.integer({ min: 1, max: 3 * PAGE }), fc.integer({ min: 0, max: 255 }))
  .map(([region, at, length, value]) =>
    step(`write ${region} ${at} ${length} ${value}`, async (real) => {
      const byteOffset = at % (REGIONS[region] * PAGE - length);
      const bytes = Uint8Array.from({ length }, (_, k) => (value === 0 ? 0 : (value + k) & 0xff));
      viewOf(real.memory[region]).set(bytes, byteOffset);
      real.model.write(region, byteOffset, bytes);
    }),
  );
const zero = fc.tuple(name, fc.nat(), fc.integer({ min: 1, max: 12 })).map(([region, at, pages]) =>
  step(`zero ${region} ${at} ${pages}`, async (real) => {
    const first = at % (REGIONS[region] - pages);
    viewOf(real.memory[region]).fill(0, first * PAGE, (first + pages) * PAGE);
    real.model.write(region, first * PAGE, new Uint8Array(pages * PAGE));
  }),
);
const single = durability.map((how) =>
  step(`checkpoint ${how}`, async (real) => void (await checkpoint(real.checkpointer, real.model, how))),
);
const overlapping = fc.array(fc.tuple(durability, write), { minLength: 2, maxLength: 5 }).map((list) =>
  step(`overlapping checkpoints (${list.map(([how, { what }]) => `${how}, ${what}`).join('; ')})`, async (real) => {
    const inFlight: Promise<Checkpoint>[] = [];
    for (const [how, change] of list) {
      inFlight.push(checkpoint(real.checkpointer, real.model, how));
      await change.run(real);
    }
    const settled = await Promise.all(inFlight);
    for (let k = 1; k < settled.length; k++) assert.equal(settled[k]!.parent, settled[k - 1]!.id);
  }),
);
const restore = fc.nat().map((seed) =>
  step(`restore ${seed}`, async (real) => {
    const id = chosen(real, seed);
    if (id !== undefined) await real.restore(id);
  }),
);
const reopen = fc.constant(
  step('close and open', async (real) => {
    await real.close();
    await real.open();
    if (real.model.ids().length > 0) assert.ok(real.checkpointer.base !== undefined, 'the memory still descends from the store');
  }),
);
const renew = fc.nat().map((seed) =>
  step(`open with fresh memory and restore ${seed}`, async (real) => {
    const id = chosen(real, seed);
    if (id === undefined) return;
    await real.close();
    real.release();
    real.memory = allocate();
    await real.open();
    await real.restore(id);
  }),
);
const read = fc.tuple(fc.nat(), name, fc.nat(), fc.nat(6 * PAGE)).map(([seed, region, at, length]) =>
  step(`read ${seed} ${region} ${at} ${length}`, async (real) => {
    const id = chosen(real, seed);
    if (id === undefined) return;
    const byteOffset = at % (REGIONS[region] * PAGE - length);
    const snapshot = await real.store.at(id);
    real.late.push({ id, name: region, at: byteOffset, bytes: await snapshot.read(region, byteOffset, length) });
    await snapshot.close();
  }),
);

const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: write },
    { weight: 2, arbitrary: zero },
    { weight: 5, arbitrary: single },
    { weight: 2, arbitrary: overlapping },
    { weight: 2, arbitrary: restore },
    { weight: 1, arbitrary: reopen },
    { weight: 1, arbitrary: renew },
    { weight: 2, arbitrary: read },
  ),
  { minLength: 15, maxLength: 40 },
);

describe('model: random commands', function () {
  this.timeout(120_000);

  it('do what a plain model does', async () => {
    const engine = new Engine({ workers: 2, maxStagingBytes: 16 << 20 });
    try {
      await fc.assert(
        fc.asyncProperty(steps, async (list) => {
          const folder = mkdtempSync(join(tmpdir(), 'tidemark-commands-'));
          const real = new Real(join(folder, 'store'), engine);
          const done: string[] = [];
          try {
            await real.open();
            for (const { what, run } of list) {
              done.push(what);
              await run(real);
            }
            await real.finish();
          } catch (error) {
            (error as Error).message += `\nafter ${done.join('\n')}`;
            throw error;
          } finally {
            await real.close();
            real.release();
            rmSync(folder, { recursive: true, force: true });
          }
        }),
        { numRuns: 60, seed: 4711, endOnFailure: true },
      );
    } finally {
      await engine.close();
    }
  });
});
