import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { type Checkpoint, Checkpointer, CheckpointStore, type Engine } from '../../lib/index.js';
import {
  allocate,
  checkMemory,
  checkpoint,
  engines,
  type Memory,
  Model,
  NAMES,
  type Name,
  PAGE,
  REGIONS,
  random,
  viewOf,
  Writer,
} from './model.js';

/** The library beside the model; what was read is compared only when everything is over. */
class Real {
  readonly path: string;
  readonly engines: Engine[];
  readonly model = new Model();
  memory: Memory = allocate();
  store!: CheckpointStore;
  checkpointer!: Checkpointer<Name>;
  readonly late: { id: number; name: Name; at: number; bytes: Uint8Array }[] = [];

  constructor(path: string, engines: Engine[]) {
    this.path = path;
    this.engines = engines;
  }

  /** With one of the engines, and deltas or not. */
  async open(kind = 0): Promise<void> {
    const engine = this.engines[kind % this.engines.length]!;
    this.store = await CheckpointStore.open(this.path, { createIfMissing: true, engine });
    this.checkpointer = await Checkpointer.open(this.store, { regions: this.memory, deltas: kind % 5 !== 4 });
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
/** A few bytes of some pages that are changed again and again, of any pages, and pages written with what they held. */
const edit = fc.tuple(name, fc.nat()).map(([region, seed]) =>
  step(`edit ${region} ${seed}`, async (real) => {
    const pick = random(seed);
    const writer = new Writer(real.memory, real.model, pick);
    for (let times = 1 + pick(12); times > 0; times--) writer.edit(region, pick(5) === 0 ? pick(REGIONS[region]) : pick(12));
    const same = pick(20);
    if (pick(3) === 0) writer.write(region, same * PAGE, real.model.pages[region][same]!);
  }),
);
const change = fc.oneof(write, edit);
const single = durability.map((how) =>
  step(`checkpoint ${how}`, async (real) => void (await checkpoint(real.checkpointer, real.model, how))),
);
const overlapping = fc.array(fc.tuple(durability, change), { minLength: 2, maxLength: 5 }).map((list) =>
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
const reopen = fc.nat(19).map((kind) =>
  step(`close and open ${kind}`, async (real) => {
    await real.close();
    await real.open(kind);
    if (real.model.ids().length > 0) assert.ok(real.checkpointer.base !== undefined, 'the memory still descends from the store');
  }),
);
const renew = fc.tuple(fc.nat(), fc.nat(19)).map(([seed, kind]) =>
  step(`open ${kind} with fresh memory and restore ${seed}`, async (real) => {
    const id = chosen(real, seed);
    if (id === undefined) return;
    await real.close();
    real.release();
    real.memory = allocate();
    await real.open(kind);
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
    { weight: 3, arbitrary: write },
    { weight: 5, arbitrary: edit },
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
    const kinds = engines();
    const sum = { full: 0, delta: 0, unchanged: 0 };
    try {
      await fc.assert(
        fc.asyncProperty(steps, async (list) => {
          const folder = mkdtempSync(join(tmpdir(), 'tidemark-commands-'));
          const real = new Real(join(folder, 'store'), kinds);
          const done: string[] = [];
          try {
            await real.open();
            for (const { what, run } of list) {
              done.push(what);
              await run(real);
            }
            await real.finish();
            for (const kind of ['full', 'delta', 'unchanged'] as const) sum[kind] += real.model.stored[kind];
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
      await Promise.all(kinds.map((engine) => engine.close()));
    }
    assert.ok(sum.full > 500 && sum.delta > 250 && sum.unchanged > 250, JSON.stringify(sum));
  });
});
