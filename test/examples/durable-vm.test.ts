import assert from 'node:assert/strict';
import { cp, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import loadWabt from 'wabt';
import { Interpreter } from '../../examples/durable-vm/interpreter.js';
import { dirtyPages, type RunOptions, run } from '../../examples/durable-vm/main.js';
import { verify } from '../../examples/durable-vm/verify.js';
import { boot, fingerprint, load, type Metadata, makeStep } from '../../examples/durable-vm/vm.js';
import { type End, liveAndDie } from '../../examples/mortal.js';
import { random } from '../../examples/random.js';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { example, temporaryFolder } from './support.js';

const main = example('durable-vm/main.js');
const quietly = (options: RunOptions) => run({ log: () => {}, ...options });

/** What a life of the program said before it was killed. */
interface Life {
  /** The step it went on after; undefined when it had not come so far, 0 when there was nothing to go on from. */
  resumed: number | undefined;
  /** Of each step that was acknowledged, the step and the digest of the program. */
  acknowledged: [step: number, digest: string][];
}

/** Starts the program for more steps than it comes to, and kills it some ms after so many lines with a step. */
async function live(store: string, { steps, delayMs }: { steps: number; delayMs: number }): Promise<Life> {
  const life: Life = { resumed: undefined, acknowledged: [] };
  const end: End = { signal: 'SIGKILL', delayMs, atStart: steps === 0 };
  await liveAndDie(main, ['--store', store, '--steps', '1000000'], end, (line) => {
    const restored = /^restored: the program goes on after step (\d+)$/.exec(line);
    if (restored !== null) life.resumed = Number(restored[1]);
    if (/^ +step +ships/.test(line)) life.resumed ??= 0;
    const step = /^ +(\d+) +\d+ +\d+ +([0-9a-f]{8}) /.exec(line);
    if (step !== null) life.acknowledged.push([Number(step[1]), step[2]!]);
    return life.acknowledged.length >= steps;
  });
  return life;
}

/** The steps of the checkpoints of a store. They must be 1, 2, 3, ..., each made from the one before. */
async function stepsIn(store: string): Promise<number> {
  const opened = await CheckpointStore.open(store);
  try {
    let count = 0;
    let before: number | null = null;
    for await (const { id, parent, metadata } of opened.checkpoints()) {
      assert.deepEqual([(metadata as Metadata).report.step, parent], [++count, before]);
      before = id;
    }
    return count;
  } finally {
    await opened.close();
  }
}

/** It went on after the last step that was acknowledged, or the one whose checkpoint was on its way. */
function assertResumed(resumed: number | undefined, acknowledged: number): void {
  assert.ok(
    resumed !== undefined && resumed >= acknowledged && resumed <= acknowledged + 1,
    `step ${acknowledged} was acknowledged, and the program went on after step ${resumed}`,
  );
}

describe('examples: durable-vm', () => {
  const folder = temporaryFolder();

  it('goes on after every kill, and is the same to the byte as a run that was not interrupted', async () => {
    const [killed, whole] = [folder.path('killed'), folder.path('whole')];
    const next = random(0, 7);
    let last = 0;
    const said = new Map<number, string>();
    // When perhaps nothing is there yet, during the first checkpoints, and at any moment later.
    const deaths = [
      { steps: 0, delayMs: 100 + next(150) },
      { steps: 1, delayMs: next(4) },
      ...Array.from({ length: 5 }, () => ({ steps: 1 + next(8), delayMs: next(12) })),
    ];
    for (const death of deaths) {
      const { resumed, acknowledged } = await live(killed, death);
      // (Undefined: it was killed before it could say so.)
      if (resumed !== undefined) assertResumed(resumed, last);
      for (const [step, digest] of acknowledged) {
        assert.equal(said.get(step) ?? digest, digest, `step ${step} was made twice, and otherwise`);
        said.set(step, digest);
      }
      last = Math.max(last, resumed ?? 0, acknowledged.at(-1)?.[0] ?? 0);
    }
    assert.ok(last >= 10, `only ${last} steps`);

    const after = await quietly({ store: killed, steps: 5 });
    assertResumed(after.resumedAt, last);
    assert.equal(await stepsIn(killed), after.steps);
    assert.equal(after.checkpoints.at(-1)!.kind, 'incremental');

    const uninterrupted = await quietly({ store: whole, steps: after.steps, options: { durability: 'relaxed' } });
    assert.equal(uninterrupted.resumedAt, 0);
    const reports = uninterrupted.checkpoints.map(({ metadata }) => (metadata as Metadata).report);
    for (const { step, digest } of reports) assert.equal(said.get(step) ?? digest, digest, `step ${step}`);
    assert.deepEqual((await newestMetadata(killed)).report, reports.at(-1));
    assert.ok((await newestMemory(killed)).equals(await newestMemory(whole)), 'the memories differ');
    for (const { id, problems } of await verify({ store: killed })) assert.deepEqual(problems, [], `checkpoint ${id}`);
  }).timeout(60_000);

  it('makes a checkpoint of every step, of the pages that the step wrote, while its memory grows', async () => {
    const lines: string[] = [];
    const first = await run({ store: folder.path('store'), steps: 260, log: (line) => lines.push(line) });
    assert.equal(first.checkpoints.length, 260);
    assert.match(lines[0] ?? '', /^ +step +ships +voyages +digest +memory KiB +dirty pages +stored bytes +blocked ms$/);
    assert.match(lines[25] ?? '', /^ +25 +\d+ +\d+ +[0-9a-f]{8} +\d+ +\d+ +\d+ +\d+\.\d\d$/);
    const sizes = new Set(first.checkpoints.map(({ regions }) => regions.memory!.byteLength));
    assert.ok(sizes.size > 2, 'the memory did not grow');
    for (const checkpoint of first.checkpoints.slice(1)) {
      const { byteLength } = checkpoint.regions.memory!;
      assert.ok(dirtyPages(checkpoint) > 0 && dirtyPages(checkpoint) < byteLength / 4096 / 2);
      assert.ok(checkpoint.storedBytes > 0 && checkpoint.timings.captureMs > 0);
    }
    const pages = first.checkpoints.reduce((sum, { regions }) => sum + regions.memory!.pages, 0);
    const deltas = first.checkpoints.reduce((sum, { regions }) => sum + regions.memory!.deltaPages, 0);
    assert.ok(deltas > pages / 2, `${deltas} of ${pages} pages stored as deltas`);

    // In a new instance, whose memory is as small as that of the module and has to grow.
    const second = await quietly({ store: folder.path('store'), steps: 5 });
    assert.deepEqual([second.resumedAt, second.steps], [260, 265]);
    // And with options of the checkpointer, on a branch that goes on beside the other.
    const store = await CheckpointStore.open(folder.path('store'));
    try {
      await store.fork('main~10', 'other');
      const other = await quietly({ store, steps: 10, options: { branch: 'other', compressionLevel: 3 } });
      assert.deepEqual([other.resumedAt, other.steps], [255, 265]);
      assert.deepEqual(other.checkpoints.at(-1)!.metadata, second.checkpoints.at(-1)!.metadata);
      assert.deepEqual(await store.diff('main', 'other'), { memory: new Uint32Array() });
    } finally {
      await store.close();
    }
  });

  it('is missed when a step that was acknowledged is lost', async () => {
    const [store, copy] = [folder.path('store'), folder.path('copy')];
    await quietly({ store, steps: 4 });
    await cp(store, copy, { recursive: true });
    const { acknowledged } = await live(store, { steps: 3, delayMs: 0 });
    const step = acknowledged.at(-1)![0];
    assert.ok(step >= 7);
    assertResumed((await quietly({ store, steps: 0 })).resumedAt, step);
    const { resumedAt } = await quietly({ store: copy, steps: 0 });
    assert.throws(() => assertResumed(resumedAt, step), /was acknowledged, and the program went on after step 4$/);
  });

  it('is not taken for whole when it has lost what it had, or a byte of it', async () => {
    const store = folder.path('store');
    await quietly({ store, steps: 12 });
    const memory = await newestMemory(store);
    const { roots, report } = await newestMetadata(store);
    const loaded = await load();

    /** Puts a memory on a branch as step 12. */
    const put = async (branch: string, interpreter: Interpreter) => {
      const region = Region.of(interpreter.memory);
      const options = { branch, regions: { memory: region }, fingerprint: fingerprint(loaded) };
      const checkpointer = await Checkpointer.open(store, options);
      await checkpointer.checkpoint({ metadata: { report, roots } });
      await checkpointer.close();
      region.close();
      await assert.rejects(quietly({ store, steps: 1, options: { branch } }), /^Error: checkpoint \d+ says .* instead of/);
    };
    // A program that started anew, one that is a step behind, and one with a byte of another time in what it had written last.
    const anew = new Interpreter(loaded);
    boot(anew, loaded);
    await put('anew', anew);
    for (let n = 1; n <= 11; n++) makeStep(anew, n);
    await put('behind', anew);

    const wrong = Interpreter.copyOf(memory, roots, loaded);
    const bytes = Buffer.from(wrong.memory.buffer);
    const at = bytes.lastIndexOf('crates of') - 3;
    bytes[at]! ^= 1;
    const region = Region.of(wrong.memory);
    const options = { branch: 'wrong', regions: { memory: region }, fingerprint: fingerprint(loaded) };
    const checkpointer = await Checkpointer.open(store, options);
    await checkpointer.checkpoint({ metadata: { report, roots } });
    await checkpointer.close();

    const verified = await verify({ store });
    assert.deepEqual(
      verified.map(({ problems }) => problems.length > 0),
      [...Array.from({ length: 12 }, () => false), true, true, true],
    );
    assert.match(verified.at(-1)!.problems[0]!, new RegExp(`^its memory differs from byte ${at} on$`));
  });

  it('is not gone on with by another program', async () => {
    const store = folder.path('store');
    await quietly({ store, steps: 2 });
    const { memory } = new Interpreter(await load());
    const region = Region.of(memory);
    const checkpointer = await Checkpointer.open(store, { regions: { memory: region }, fingerprint: 'another build' });
    await assert.rejects(checkpointer.restore(), { code: 'TIDEMARK_FINGERPRINT' });
    await checkpointer.close();
    region.close();
  });
});

describe('examples: the interpreter of durable-vm', () => {
  it('keeps nothing outside its memory but the stack pointer', async () => {
    // What the example relies on, and what another version of the package may have otherwise.
    const wabt = await loadWabt();
    const module = wabt.readWasm(await readFile(fileURLToPath(import.meta.resolve('quickjs-wasi/quickjs.wasm'))), {});
    const text = module.toText({});
    module.destroy();
    assert.equal(text.match(/^ *\(global .*\(mut /gm)?.length, 1);
    assert.match(text, /\(export "__stack_pointer" \(global 0\)\)/);
    assert.doesNotMatch(text, /\btable\.(set|grow|init|copy|fill)\b|\b(data|elem)\.drop\b|\bmemory\.init\b|^ *\(start /m);
  });

  it('gives no roots in the middle of a call, nor after a trap', async () => {
    const interpreter = new Interpreter(await load());
    interpreter.boot(
      'function time() { return Date.now(); } function deep() { return 1 + deep(); } function fail() { throw new Error("no"); }',
      'x.js',
    );
    const roots = interpreter.roots();
    assert.throws(() => interpreter.call('fail'), /no/);
    assert.deepEqual(interpreter.roots(), roots);
    let asked: unknown;
    Object.defineProperty(interpreter, 'now', {
      get() {
        assert.throws(() => interpreter.roots(), /has not returned/);
        asked = true;
        return 1234;
      },
    });
    assert.equal(interpreter.call('time'), '1234');
    assert.equal(asked, true);
    assert.deepEqual(interpreter.roots(), roots);
    assert.throws(() => interpreter.call('deep'), RangeError);
    assert.throws(() => interpreter.roots(), /has not returned/);
  });

  it('does not go on with roots of another memory', async () => {
    const loaded = await load();
    const interpreter = new Interpreter(loaded);
    boot(interpreter, loaded);
    const roots = interpreter.roots();
    const memory = new Uint8Array(interpreter.memory.buffer).slice();
    assert.equal(JSON.parse(Interpreter.copyOf(memory, roots, loaded).call('report')).step, 0);
    assert.throws(() => Interpreter.copyOf(memory, { ...roots, context: roots.context + 8 }, loaded), /was noted/);
    assert.throws(() => Interpreter.copyOf(memory, { ...roots, stack: roots.stack - 16 }, loaded), /stack pointer/);
    assert.throws(() => Interpreter.copyOf(new Uint8Array(memory.length), roots, loaded), /was noted/);
  });
});

/** The memory of the newest checkpoint. */
async function newestMemory(store: string): Promise<Buffer> {
  const opened = await CheckpointStore.open(store);
  try {
    const snapshot = await opened.at('main');
    const bytes = await snapshot.read('memory', 0, snapshot.checkpoint.regions.memory!.byteLength);
    await snapshot.close();
    return Buffer.from(bytes);
  } finally {
    await opened.close();
  }
}

async function newestMetadata(store: string): Promise<Metadata> {
  const opened = await CheckpointStore.open(store);
  try {
    return (await opened.find('main'))!.metadata as Metadata;
  } finally {
    await opened.close();
  }
}
