import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type Checkpoint, Checkpointer, CheckpointStore } from '../../lib/index.js';
import { allocate, checkMemory, checkpoint, engines, Model, NAMES, PAGE, REGIONS, random, Writer } from './model.js';

const CHECKPOINTS = 1000;
const CHILDREN = 4;
const child = fileURLToPath(new URL('restore-child.js', import.meta.url));

describe('model: 1,000 checkpoints', function () {
  this.timeout(120_000);
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-model-'));
  let path: string;
  let model: Model;
  let pick: (below: number) => number;

  after(() => rmSync(folder, { recursive: true, force: true }));

  it('are taken, overlapping, with restores in place and forks between them, with deltas and without', async () => {
    // New ones each time it is tried.
    path = join(mkdtempSync(join(folder, 'taken-')), 'store');
    model = new Model();
    pick = random(2026);
    const kinds = engines();
    const memory = allocate();
    const writer = new Writer(memory, model, pick);
    let checkpointer = await Checkpointer.open(path, { regions: memory, engine: kinds[0]! });
    let opened = 1;
    let inFlight: Promise<Checkpoint>[] = [];
    let restores = 0;
    const settle = async () => {
      await Promise.all(inFlight);
      inFlight = [];
    };
    for (let taken = 0; taken < CHECKPOINTS; taken++) {
      for (let times = pick(5); times > 0; times--) writer.some();
      inFlight.push(checkpoint(checkpointer, model, pick(8) === 0 ? 'sync' : 'relaxed'));
      // Written while it is in flight: this belongs to the next one.
      writer.some();
      if (inFlight.length > pick(6)) await settle();
      if (pick(25) === 0) {
        await settle();
        const ids = model.ids();
        const id = ids[pick(ids.length)]!;
        const { checkpoint: restored } = await checkpointer.restore(id);
        assert.equal(restored.id, id);
        model.restore(id);
        checkMemory(memory, model.pages, `restored ${id} in place`);
        restores++;
      }
      if (pick(100) === 0) {
        await settle();
        await checkpointer.close();
        const engine = kinds[opened++ % kinds.length]!;
        checkpointer = await Checkpointer.open(path, { regions: memory, engine, deltas: pick(4) > 0 });
        assert.ok(checkpointer.base !== undefined);
      }
    }
    await settle();
    assert.equal(model.checkpoints.size, CHECKPOINTS);
    assert.ok(restores > 20);
    assert.ok(opened > kinds.length);
    const { full, delta, unchanged } = model.stored;
    assert.ok(full > 1000 && delta > 1000 && unchanged > 100, JSON.stringify(model.stored));
    checkMemory(memory, model.pages, 'the live memory');
    await checkpointer.close();
    for (const name of NAMES) memory[name].close();
    await Promise.all(kinds.map((engine) => engine.close()));
  });

  it('read as they were, compared late', async () => {
    const store = await CheckpointStore.open(path);
    const reads: { id: number; name: 'heap' | 'stack'; at: number; bytes: Uint8Array }[] = [];
    for (let k = 0; k < 60; k++) {
      const id = model.ids()[pick(CHECKPOINTS)]!;
      const snapshot = await store.at(id);
      for (const name of NAMES) {
        const at = pick(REGIONS[name] * PAGE);
        const length = pick(REGIONS[name] * PAGE - at);
        reads.push({ id, name, at, bytes: await snapshot.read(name, at, length) });
      }
      await snapshot.close();
    }
    assert.deepEqual((await store.verify()).problems, []);
    await store.close();
    for (const { id, name, at, bytes } of reads)
      assert.ok(
        model
          .bytes(id, name)
          .subarray(at, at + bytes.length)
          .equals(bytes),
        `checkpoint ${id} ${name} at ${at}`,
      );
  });

  it('are restored in fresh processes', async () => {
    for (let k = 0; k < CHILDREN; k++) {
      const ids = Array.from({ length: 8 }, () => model.ids()[pick(CHECKPOINTS)]!);
      await promisify(execFile)(process.execPath, [child, path, folder, ...ids.map(String)]);
      for (const id of ids)
        for (const name of NAMES) {
          const file = join(folder, `${id}.${name}`);
          assert.ok(readFileSync(file).equals(model.bytes(id, name)), `checkpoint ${id} ${name} in child ${k}`);
        }
    }
  });
});
