import assert from 'node:assert/strict';
import { channel, tracingChannel } from 'node:diagnostics_channel';
import { Checkpointer, type CheckpointerOptions, Engine, Region, TidemarkError, type Warning } from '../../lib/index.js';
import { faultyEngine } from '../support/faulty-engine.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { outcome, PAGE, range, retried, stamp } from '../support/kit.js';
import { resizable } from '../support/memories.js';

type Context = Record<string, unknown> & { branch?: string; error?: TidemarkError; result?: unknown };

/** What a tracing channel says while `body` runs: each event with the object it came with. */
async function trace(name: string, body: () => Promise<unknown>): Promise<[event: string, context: Context][]> {
  const seen: [string, Context][] = [];
  const note = (event: string) => (context: unknown) => void seen.push([event, context as Context]);
  const subscribers = {
    start: note('start'),
    end: note('end'),
    asyncStart: note('asyncStart'),
    asyncEnd: note('asyncEnd'),
    error: note('error'),
  };
  const traced = tracingChannel(`tidemark:${name}`);
  traced.subscribe(subscribers);
  try {
    await body();
  } finally {
    traced.unsubscribe(subscribers);
  }
  return seen;
}

async function warningsOf(body: () => Promise<unknown>): Promise<Warning[]> {
  const seen: Warning[] = [];
  const note = (warning: unknown) => void seen.push(warning as Warning);
  channel('tidemark:warning').subscribe(note);
  try {
    await body();
  } finally {
    channel('tidemark:warning').unsubscribe(note);
  }
  return seen;
}

const DONE = ['start', 'end', 'asyncStart', 'asyncEnd'];
const FAILED = ['start', 'end', 'error', 'asyncStart', 'asyncEnd'];
const events = (seen: [string, Context][]) => seen.map(([event]) => event);

describe('api: diagnostics channels', () => {
  const folder = storeFolders();
  const region = Region.allocate(64 * PAGE);

  async function opened(
    body: (checkpointer: Checkpointer, path: string) => Promise<void>,
    options: Partial<CheckpointerOptions> = {},
  ): Promise<void> {
    const path = folder();
    const checkpointer = await Checkpointer.open<string>(path, { regions: { heap: region }, branch: 'side', ...options });
    try {
      await body(checkpointer, path);
    } finally {
      await checkpointer.close();
    }
  }

  it('tell of each checkpoint, precopy and restore: where, and what came of it', async () => {
    await opened(async (checkpointer, path) => {
      const calls: [name: string, call: () => Promise<unknown>][] = [
        ['checkpoint', () => checkpointer.checkpoint()],
        ['precopy', () => checkpointer.precopy()],
        ['restore', () => checkpointer.restore()],
      ];
      for (const [name, call] of calls) {
        stamp(region, [1, 2], 1);
        let result: unknown;
        const seen = await trace(name, async () => {
          result = await call();
        });
        assert.deepEqual(events(seen), DONE, name);
        const context = seen[0]![1];
        for (const [, other] of seen) assert.equal(other, context, `${name}: one object a call`);
        assert.deepEqual(context, { store: path, branch: 'side', result }, name);
      }
    });
  });

  it('tell of the start in the call, of the end before the promise settles', async () => {
    await opened(async (checkpointer) => {
      const order: string[] = [];
      const note = (event: string) => () => void order.push(event);
      const subscribers = {
        start: note('start'),
        end: note('end'),
        asyncStart: note('asyncStart'),
        asyncEnd: note('asyncEnd'),
        error: note('error'),
      };
      for (const name of ['checkpoint', 'precopy', 'restore'] as const) {
        order.length = 0;
        tracingChannel(`tidemark:${name}`).subscribe(subscribers);
        const settled = checkpointer[name]().then(note('settled'));
        order.push('returned');
        await settled;
        tracingChannel(`tidemark:${name}`).unsubscribe(subscribers);
        assert.deepEqual(order, ['start', 'end', 'returned', 'asyncStart', 'asyncEnd', 'settled'], name);
      }
    });
  });

  it('tell of failures, those of the call and later ones', async () => {
    await opened(async (checkpointer, path) => {
      const aborted = { signal: AbortSignal.abort('no') };
      const calls: [name: string, call: () => Promise<unknown>][] = [
        ['checkpoint', () => checkpointer.checkpoint(aborted)],
        ['checkpoint', () => checkpointer.checkpoint({ label: 'side' })],
        ['checkpoint', () => checkpointer.checkpoint({ bogus: 1 } as never)],
        ['precopy', () => checkpointer.precopy(aborted)],
        ['restore', () => checkpointer.restore(99)],
        ['restore', () => checkpointer.restore(null as never)],
      ];
      await checkpointer.checkpoint();
      for (const [name, call] of calls) {
        let error: unknown;
        const seen = await trace(name, async () => {
          await call().catch((reason) => {
            error = reason;
          });
        });
        assert.ok(error instanceof Error);
        assert.deepEqual(events(seen), FAILED, `${name}: ${error}`);
        assert.deepEqual(seen[0]![1], { store: path, branch: 'side', error }, name);
        assert.equal(seen[0]![1].error, error);
      }
    });
  });

  it('tell calls that overlap apart', async () => {
    await opened(async (checkpointer) => {
      let results: unknown[] = [];
      const seen = await trace('checkpoint', async () => {
        const calls = range(0, 5).map((k) => {
          stamp(region, k, 3);
          return checkpointer.checkpoint();
        });
        results = await Promise.all(calls);
      });
      const contexts = [...new Set(seen.map(([, context]) => context))];
      assert.deepEqual(
        contexts.map(({ result }) => result),
        results,
      );
      for (const context of contexts) assert.deepEqual(events(seen.filter(([, one]) => one === context)), DONE);
    });
  });

  it('change nothing, whether somebody listens or not', async () => {
    const run = async (): Promise<unknown> => {
      const outcomes: unknown[] = [];
      await opened(async (checkpointer) => {
        for (const k of range(0, 3)) {
          stamp(region, range(k, 3), k);
          outcomes.push(await outcome(checkpointer.precopy()));
          const { id, regions } = await checkpointer.checkpoint();
          outcomes.push(
            id,
            regions,
            await outcome(checkpointer.checkpoint({ label: 'side' })),
            await outcome(checkpointer.restore(99)),
          );
          outcomes.push((await checkpointer.restore(1)).checkpoint.id, (await checkpointer.checkpoint({ ifChanged: true })).id);
        }
        const { checkpoints, failed, pages } = checkpointer.stats();
        outcomes.push(checkpoints, failed, pages);
      });
      return outcomes;
    };
    region.takeDirtyRanges();
    const quiet = await run();
    let heard: unknown;
    await trace('checkpoint', () =>
      trace('precopy', () =>
        trace('restore', () =>
          warningsOf(async () => {
            heard = await run();
          }),
        ),
      ),
    );
    assert.deepEqual(heard, quiet);
  });

  it('tell of upkeep: the log is opened again after a rejected write', async () => {
    const engine = await faultyEngine('log.write:3');
    await opened(
      async (checkpointer, path) => {
        await checkpointer.checkpoint();
        const seen = await trace('upkeep', async () => {
          // Which write it is that is rejected is not said here.
          for (const k of range(0, 3)) {
            stamp(region, k, 9);
            await outcome(checkpointer.checkpoint());
          }
        });
        assert.deepEqual(events(seen), DONE);
        const { reason, ...rest } = seen[0]![1];
        assert.deepEqual(rest, { what: 'reopen-log', store: path });
        assert.ok(reason instanceof TidemarkError);
        assert.equal(reason.code, 'TIDEMARK_WRITE_FAILED');
      },
      { engine },
    );
    await engine.close();
  });

  it('tell of upkeep that fails', async () => {
    const engine = await faultyEngine('log.write:3,log.reopen');
    await opened(
      async (checkpointer, path) => {
        await checkpointer.checkpoint();
        const seen = await trace('upkeep', async () => {
          for (const k of range(0, 4)) {
            stamp(region, k, 9);
            await outcome(checkpointer.checkpoint());
          }
        });
        assert.deepEqual(events(seen), [...FAILED, ...DONE]);
        const { error, store } = seen[0]![1];
        assert.equal(store, path);
        assert.equal(error?.code, 'TIDEMARK_WRITE_FAILED');
        assert.match(error!.message, /log.reopen/);
        assert.equal(seen.at(-1)![1].error, undefined);
      },
      { engine },
    );
    await engine.close();
  });

  it('tell of upkeep: the index is made anew', async () => {
    const engine = await faultyEngine('index.write:2');
    await opened(
      async (checkpointer, path) => {
        const seen = await trace('upkeep', async () => {
          for (const k of range(0, 3)) {
            stamp(region, k, 9);
            await checkpointer.checkpoint();
          }
          await checkpointer.restore(1);
        });
        assert.deepEqual(events(seen), DONE);
        assert.deepEqual(seen[0]![1], { what: 'rebuild-index', store: path });
      },
      { engine },
    );
    await engine.close();
  });

  it('warn of a codec thread that ended', async () => {
    const engine = await faultyEngine('codec.exit');
    const warnings = await warningsOf(() =>
      opened(
        async (checkpointer) => {
          assert.equal(await outcome(checkpointer.checkpoint()), 'TIDEMARK_STALLED');
          await retried(() => checkpointer.checkpoint());
        },
        { engine },
      ),
    );
    assert.deepEqual(
      warnings.map(({ name }) => name),
      ['codec-thread-ended'],
    );
    assert.match(warnings[0]!.message, /replaced/);
    await engine.close();
  });

  it('warn of the storage thread that ended, but not when the engine is closed', async () => {
    const engine = await faultyEngine('storage.exit');
    const warnings = await warningsOf(async () => {
      await opened(
        async (checkpointer) => {
          const error = await checkpointer.checkpoint().catch((reason) => reason);
          assert.equal(error.code, 'TIDEMARK_WRITE_FAILED');
        },
        { engine },
      );
      await engine.close();
      const other = new Engine({ workers: 1 });
      await opened(
        async (checkpointer) => {
          await checkpointer.checkpoint();
          await other.close();
        },
        { engine: other },
      );
    });
    assert.deepEqual(
      warnings.map(({ name }) => name),
      ['storage-thread-ended'],
    );
    assert.match(warnings[0]!.message, /storage thread/);
  });

  it('warn of pages that could not be given back', async () => {
    const memory = resizable(8 * PAGE);
    const shrinking = Region.of(memory, { byteLength: 8 * PAGE });
    const engine = await faultyEngine('codec.encode');
    const warnings = await warningsOf(() =>
      opened(
        async (checkpointer) => {
          stamp(new Uint8Array(memory), range(0, 8), 1);
          const failing = checkpointer.checkpoint();
          memory.resize(0);
          assert.equal(await outcome(failing), 'TIDEMARK_WRITE_FAILED');
        },
        { engine, regions: { shrinking } },
      ),
    );
    assert.deepEqual(
      warnings.map(({ name }) => name),
      ['give-back-failed'],
    );
    assert.ok(warnings[0]!.cause instanceof TidemarkError);
    await engine.close();
  });

  it('warn of a scan that failed, after which all counts as written', async () => {
    const result = await inChild({ faults: 'capture.scan:2' }, async ({ Region, PAGE }) => {
      const { channel } = await import('node:diagnostics_channel');
      const seen: { name: string; message: string; cause: Error }[] = [];
      channel('tidemark:warning').subscribe((warning) => void seen.push(warning as (typeof seen)[0]));
      const region = Region.allocate(4 * PAGE);
      const dirty = [[...region.takeDirtyRanges()], [...region.takeDirtyRanges()], [...region.takeDirtyRanges()]];
      return { dirty, seen: seen.map(({ name, message, cause }) => [name, message, cause.message]) };
    });
    assert.deepEqual(result.dirty, [[], [0, 4], []]);
    assert.deepEqual(result.seen, [
      ['tracking-reset', 'a scan has failed: all of the region counts as written', 'fault injected at capture.scan'],
    ]);
  });
});
