import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { types } from 'node:util';
import { Checkpointer, CheckpointStore, Engine, Region, type Restoration, type Snapshot } from '../../lib/index.js';
import { PAGE } from './support.js';
import { type Kind, show, THROWN, wrong, wrongOptions } from './wrong-values.js';

/** What the calls are made with, and what they must not change. */
export class Bench {
  readonly folder: string;
  readonly engine = new Engine({ workers: 1 });
  readonly region = Region.allocate(8 * PAGE);
  readonly spare = Region.allocate(PAGE);
  /** Memory that no region has. */
  readonly memory = freeMemory();
  store!: CheckpointStore;
  checkpointer!: Checkpointer;
  snapshot!: Snapshot;
  restoration!: Restoration;

  constructor(folder: string) {
    this.folder = folder;
  }

  get path(): string {
    return join(this.folder, 'store');
  }

  /** Of a store that does not exist. */
  get other(): string {
    return join(this.folder, 'other');
  }

  async open(): Promise<void> {
    const { engine, path, region } = this;
    this.store = await CheckpointStore.open(path, { createIfMissing: true, engine });
    this.checkpointer = await Checkpointer.open<string>(this.store, { regions: { heap: region } });
    new Uint8Array(region.buffer).fill(1, 0, PAGE);
    await this.checkpointer.checkpoint({ label: 'one', attachments: { notes: Uint8Array.of(1) } });
    this.restoration = await this.checkpointer.restore();
    new Uint8Array(region.buffer).fill(2, PAGE, 3 * PAGE);
    this.snapshot = await this.store.at(1);
  }

  /** Everything that a call could have changed. */
  look(): unknown {
    const { checkpointer, region, spare, engine, folder } = this;
    const { workers, stagingFreeBytes, checkpointers, pendingCalls } = engine.stats();
    return {
      stats: checkpointer.stats(),
      head: checkpointer.head,
      base: checkpointer.base,
      memory: new Uint8Array(region.buffer).reduce((sum, byte) => sum + byte, 0),
      dirty: [...region.dirtyRanges()],
      // Throws if somebody has it.
      spare: [...spare.takeDirtyRanges()],
      engine: { workers, stagingFreeBytes, checkpointers, pendingCalls },
      files: readdirSync(folder),
    };
  }

  /** All can be closed, and everything is free. */
  async close(): Promise<void> {
    await this.store.close();
    this.region.close();
    this.spare.close();
    await this.engine.close();
  }
}

/** Memory that can be tracked, and is not. */
export function freeMemory(): ArrayBuffer {
  const region = Region.allocate(8 * PAGE);
  region.close();
  return region.buffer;
}

export interface Method {
  call(bench: Bench, value: never): unknown;
  sync?: boolean;
  /** Of a call with this argument. */
  wrong: unknown[];
  /** It is taken: a table of options that do not exist would be refused as a whole. */
  good: unknown[];
}

/** A method by its options: for each what is wrong, and one that is not. */
export function options(
  call: (bench: Bench, options: never) => unknown,
  table: Record<string, [wrong: unknown[] | Kind, good: unknown]>,
  more: { sync?: boolean; needed?: (bench: Bench) => object } = {},
): Method {
  const names = Object.keys(table);
  const one = (name: string, value: unknown) => ({ [name]: value });
  const bad = Object.entries(table).flatMap(([name, [values]]) => {
    return (typeof values === 'string' ? wrong(values) : values).map((value) => one(name, value));
  });
  const { needed = () => ({}), ...rest } = more;
  return {
    ...rest,
    call: (bench, value) => call(bench, withNeeded(needed(bench), value) as never),
    wrong: [...bad, ...wrongOptions(names)],
    good: Object.entries(table).map(([name, [, value]]) => one(name, value)),
  };
}

/** Options that are needed, beside the one that is tried, without looking at that. */
function withNeeded(needed: object, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || types.isProxy(value) || Array.isArray(value)) return value;
  return Object.defineProperties(needed, Object.getOwnPropertyDescriptors(value));
}

/** The call is refused, with what misuse is refused with, at once or by its promise. */
export async function refused(method: Method, bench: Bench, value: unknown): Promise<void> {
  let result: unknown;
  let error: unknown;
  let threw = false;
  try {
    result = method.call(bench, value as never);
  } catch (thrown) {
    [error, threw] = [thrown, true];
  }
  assert.equal(threw, method.sync === true, `${show(value)} was taken, or throws at once: ${error}`);
  if (!threw)
    error = await (result as Promise<unknown>).then(
      () => 'it was taken',
      (reason) => reason,
    );
  if (error === THROWN) return;
  assert.ok(error instanceof TypeError || error instanceof RangeError, `${show(value)}: ${error}`);
  assert.ok(!String((error as { code?: unknown }).code).startsWith('TIDEMARK'), show(value));
}
