import assert from 'node:assert/strict';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from './support/folders.js';
import { judge } from './support/judge.js';
import { mix, type Plan } from './support/model.js';
import { requireRoot } from './support/mounts.js';
import { read, Writer } from './support/programs.js';
import type { WriterEvent, WriterOptions } from './support/protocol.js';
import { LONG, SEED } from './support/rounds.js';
import { type Call, type Class, counted, counting, type Injection, injecting, ONE_THREAD } from './support/strace.js';

/** Of every kind of call on every kind of file, that many are tried in the short form, all in the long one. */
const SAMPLE = 1;
const CODES = new Set(['TIDEMARK_WRITE_FAILED', 'TIDEMARK_NO_SPACE']);
const ERRORS: Record<Call, string[]> = {
  write: ['ENOSPC', 'EIO'],
  sync: ['EIO', 'ENOSPC'],
  rename: ['EIO', 'ENOSPC'],
  unlink: ['EIO'],
  open: ['ENOSPC', 'EIO', 'EMFILE'],
  read: ['EIO'],
};

/** Ten checkpoints, half of them of 4 to 10 MiB: more than LevelDB's write buffer in all, so it makes a table on the way. */
const PLAN: Plan = { seed: 4711, pages: 4096, medium: 60, large: 0 };
const branches = { main: PLAN };

describe('crash: at every system call', function () {
  this.timeout(7_200_000);
  let folder: string;
  /** A store whose writer was killed with megabytes in LevelDB's log: opening it has much to do. */
  let crashed: string;
  let past: WriterEvent[];

  before(async () => {
    requireRoot('strace');
    folder = temporaryFolder();
    crashed = join(folder, 'crashed');
    const first = new Writer({ store: crashed, branches, life: 1, durability: 'relaxed', steps: 6, overlap: 3, end: 'kill' });
    await first.ended();
    past = first.events;
    assert.equal(first.acknowledged.length, 6, first.tail());
  });
  after(() => {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  });

  for (const from of ['new', 'crashed'] as const) {
    const options = (store: string): WriterOptions => ({
      store,
      branches,
      life: 3,
      durability: 'mixed',
      steps: from === 'new' ? 10 : 3,
      overlap: from === 'new' ? 2 : 1,
      end: 'close',
    });
    const prepare = (): string => {
      const store = join(folder, 'store');
      rmSync(store, { recursive: true, force: true });
      if (from === 'crashed') cpSync(crashed, store, { recursive: true });
      return store;
    };
    const earlier = () => (from === 'crashed' ? past : []);

    it(`killed in a ${from} store`, async () => {
      await each(await points(options(prepare()), 'signal=KILL'), async (injection) => {
        const store = prepare();
        const writer = new Writer(options(store), injecting(store, injection), ONE_THREAD);
        const { signal } = await writer.ended();
        writer.check();
        judge([...earlier(), ...writer.events], await read({ store, branches, life: 4 }), 'nothing');
        return signal === 'SIGKILL' ? 'killed' : 'not reached';
      });
    });

    it(`an error in a ${from} store: the program goes on`, async () => {
      await each(await points(options(prepare()), 'error'), async (injection) => {
        const store = prepare();
        const end = mix(SEED, injection.when.length) % 2 === 0 ? 'close' : 'kill';
        const reading = injection.kind === 'log' && (injection.call === 'open' || injection.call === 'read');
        const all = { ...options(store), overlap: 1, end, openRetries: reading ? 0 : 3 } as const;
        const writer = new Writer(all, injecting(store, injection), ONE_THREAD);
        const { code, signal } = await writer.ended();
        writer.check();
        const forever = injection.when.endsWith('+');
        assert.ok(
          code === 0 || (end === 'kill' && signal === 'SIGKILL'),
          `the program has died: ${signal ?? code}\n${writer.tail()}`,
        );
        if (!forever && !reading) assert.ok(writer.said('done'), writer.tail());
        for (const failure of writer.failures) assert.ok(CODES.has(failure.code), `${failure.code}: ${failure.message}`);
        if (!forever && !reading) {
          const missing = all.steps - writer.acknowledged.length;
          assert.ok(missing <= 2, `one error failed ${missing} checkpoints:\n${writer.tail()}`);
          if (injection.kind === 'index') assert.equal(missing, 0, `the index is only a cache:\n${writer.tail()}`);
        }
        judge([...earlier(), ...writer.events], await read({ store, branches, life: 4 }), 'nothing');
        return writer.failures.length > 0 ? 'failed' : 'no checkpoint failed';
      });
    });
  }

  /** What can be done to the calls that a run makes. */
  async function points(options: WriterOptions, what: 'signal=KILL' | 'error'): Promise<Injection[]> {
    const output = join(folder, 'calls');
    const writer = new Writer(options, counting(output), ONE_THREAD);
    await writer.ended();
    writer.check();
    assert.ok(writer.said('closed'), writer.tail());
    return counted(output, options.store).flatMap(({ kind, call, times }) =>
      chosen(kind, call, times, what).flatMap((nth): Injection[] => {
        if (what !== 'error') return [{ kind, call, when: String(nth), what }];
        const errors = ERRORS[call];
        const error = `error=${errors[mix(SEED, nth) % errors.length]}`;
        // Once; and every third time for good.
        const once = { kind, call, when: String(nth), what: error };
        return nth % 3 === 0 ? [once, { ...once, when: `${nth}+` }] : [once];
      }),
    );
  }
});

function chosen(kind: Class, call: Call, times: number, what: string): number[] {
  // Only the first is ours: the library reads the log files before LevelDB does, because LevelDB ignores such errors and deletes what it
  // could not read. What can be read at first and not a moment later is not covered.
  if (what === 'error' && kind === 'log' && (call === 'open' || call === 'read')) return [1];
  const all = Array.from({ length: times }, (_, k) => k + 1);
  if (LONG || times <= SAMPLE) return all;
  return all.sort((a, b) => mix(SEED, kind.length, call.length, a) - mix(SEED, kind.length, call.length, b)).slice(0, SAMPLE);
}

/** The short form takes every second point, another half with another seed. */
async function each(all: Injection[], attempt: (injection: Injection) => Promise<string>): Promise<void> {
  const injections = LONG ? all : all.filter((_, k) => (k + SEED) % 2 === 0);
  const started = Date.now();
  const results = new Map<string, number>();
  const failures: string[] = [];
  for (const injection of injections) {
    try {
      const result = await attempt(injection);
      results.set(result, (results.get(result) ?? 0) + 1);
    } catch (error) {
      failures.push(`${JSON.stringify(injection)}: ${(error as Error).message}`);
      console.log(`      ${failures.at(-1)}`);
    }
  }
  const summary = [...results].map(([result, count]) => `${count} ${result}`).join(', ');
  console.log(
    `      ${injections.length} points (sample by seed ${SEED}): ${summary}; ${((Date.now() - started) / 1000).toFixed(1)} s`,
  );
  assert.deepEqual(failures, []);
}
