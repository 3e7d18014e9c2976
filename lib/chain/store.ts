import { Engine } from '../engine/engine.js';
import type { VerifyReport } from '../engine/protocol.js';
import { TidemarkError } from '../errors.js';
import { isBoolean, isName, isNumber, isOptions, isPath, isString, option } from '../options.js';
import type { Checkpoint } from './header.js';
import { Snapshot } from './snapshot.js';
import { parseTarget, type Target } from './target.js';

export interface StoreOptions {
  /** Make the store when the folder is missing or empty. Default: false. */
  createIfMissing?: boolean;
  /** Whose storage thread opens it. Default: `Engine.shared`. */
  engine?: Engine;
}

export interface ListOptions {
  /** Only checkpoints committed on this branch. */
  branch?: string;
  /** Taken at this time or later. */
  since?: Date;
  /** Taken at this time or earlier. */
  until?: Date;
  /** Newest first. Default: false. */
  reverse?: boolean;
  /** At most so many. Default: all. */
  limit?: number;
}

const PAGE = 256;

/**
 * A folder of checkpoints. It needs no userfaultfd: stores are read on any Linux. One owner at a time, in this process or another.
 */
export class CheckpointStore implements AsyncDisposable {
  readonly path: string;
  /** @internal */
  readonly engine: Engine;
  /** @internal */
  readonly id: number;
  #closing: Promise<void> | undefined;
  /** What is open on it, to be closed first. */
  readonly #children = new Set<{ close(): Promise<void> }>();

  private constructor(path: string, engine: Engine, id: number) {
    this.path = path;
    this.engine = engine;
    this.id = id;
  }

  /**
   * @throws {TidemarkError} `TIDEMARK_NOT_FOUND`, `TIDEMARK_STORE_LOCKED`, `TIDEMARK_STORE_FORMAT`, `TIDEMARK_DAMAGED`, `TIDEMARK_NO_SPACE`,
   * `TIDEMARK_PERMISSION`, `TIDEMARK_WRITE_FAILED`
   */
  static async open(path: string, options: StoreOptions = {}): Promise<CheckpointStore> {
    isPath('path', path);
    isOptions('CheckpointStore.open', options, ['createIfMissing', 'engine']);
    const createIfMissing = option(options.createIfMissing, (value) => isBoolean('createIfMissing', value)) ?? false;
    const engine = options.engine === undefined ? Engine.shared : options.engine;
    if (!(engine instanceof Engine)) throw new TypeError('engine must be an Engine');
    return new CheckpointStore(path, engine, await engine.call('openStore', path, createIfMissing));
  }

  /** Every checkpoint, oldest first unless `reverse`, read a few hundred at a time. */
  async *checkpoints(options: ListOptions = {}): AsyncGenerator<Checkpoint> {
    this.#open();
    isOptions('checkpoints', options, ['branch', 'since', 'until', 'reverse', 'limit']);
    let left = option(options.limit, (value) => isNumber('limit', value, 0, Number.MAX_SAFE_INTEGER)) ?? Number.POSITIVE_INFINITY;
    const query = {
      reverse: option(options.reverse, (value) => isBoolean('reverse', value)) ?? false,
      ...(options.branch === undefined ? {} : { branch: isString('branch', options.branch) }),
      ...(options.since === undefined ? {} : { since: isDate('since', options.since) }),
      ...(options.until === undefined ? {} : { until: isDate('until', options.until) }),
    };
    let after: number | undefined;
    while (left > 0) {
      const limit = Math.min(PAGE, left);
      const page = await this.engine.call('list', this.id, { ...query, limit, ...(after === undefined ? {} : { after }) });
      yield* page.checkpoints;
      left -= page.checkpoints.length;
      if (page.next === null) return;
      after = page.next;
    }
  }

  /** The checkpoint that a target names; undefined when there is none. @throws {TidemarkError} `TIDEMARK_NOT_FOUND` for a uid that is not unique */
  async find(target: Target): Promise<Checkpoint | undefined> {
    this.#open();
    return (await this.engine.call('find', this.id, parseTarget(target))) ?? undefined;
  }

  /** Opens a checkpoint for reading. @throws {TidemarkError} `TIDEMARK_NOT_FOUND`, `TIDEMARK_DAMAGED`, `TIDEMARK_CHAIN_BROKEN` */
  async at(target: Target): Promise<Snapshot> {
    this.#open();
    const { snapshot, checkpoint } = await this.engine.call('openSnapshot', this.id, parseTarget(target));
    const opened: Snapshot = new Snapshot(this.engine, snapshot, checkpoint, () => this.#children.delete(opened));
    if (this.#closing !== undefined) {
      await opened.close();
      this.#open();
    }
    this.#children.add(opened);
    return opened;
  }

  /**
   * Gives a checkpoint a name; durable when it resolves.
   * @param options.move take the label from the checkpoint that has it. Default: false
   * @throws {TidemarkError} (rejects) `TIDEMARK_NAME_TAKEN`, `TIDEMARK_NOT_FOUND`, and as a checkpoint that cannot be written
   */
  async label(name: string, target: Target, options: { move?: boolean } = {}): Promise<void> {
    this.#open();
    isName('label', name);
    isOptions('label', options, ['move']);
    const move = option(options.move, (value) => isBoolean('move', value)) ?? false;
    await this.engine.call('label', this.id, name, parseTarget(target), move);
  }

  /**
   * Makes a branch whose head is that checkpoint, which it resolves with; durable then. Nothing is copied.
   * @throws {TidemarkError} (rejects) `TIDEMARK_NAME_TAKEN`, `TIDEMARK_NOT_FOUND`, and as a checkpoint that cannot be written
   */
  async fork(target: Target, branch: string): Promise<Checkpoint> {
    this.#open();
    isName('branch', branch);
    return this.engine.call('fork', this.id, parseTarget(target), branch);
  }

  /**
   * For each region of either checkpoint the pages whose bytes differ, as runs `[firstPage, pageCount, ...]` of 4 KiB pages; what only one of them has counts as
   * zero in the other.
   * @throws {TidemarkError} (rejects) `TIDEMARK_NOT_FOUND`, `TIDEMARK_DAMAGED`, `TIDEMARK_CHAIN_BROKEN`
   */
  async diff(a: Target, b: Target): Promise<Record<string, Uint32Array>> {
    this.#open();
    return this.engine.call('diff', this.id, parseTarget(a), parseTarget(b));
  }

  /** Checks all checkpoints; with `readData` every page is decompressed and compared as well (default: true). Changes nothing. */
  async verify(options: { readData?: boolean } = {}): Promise<VerifyReport> {
    this.#open();
    isOptions('verify', options, ['readData']);
    return this.engine.call('verify', this.id, option(options.readData, (value) => isBoolean('readData', value)) ?? true);
  }

  /** Waits for what is open on it, then gives the folder free. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#children].map((child) => child.close()));
    await this.engine.call('closeStore', this.id).catch((error: TidemarkError) => {
      // The storage thread is gone, and the store with it.
      if (error.code !== 'TIDEMARK_CLOSED') throw error;
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal */
  adopt(child: { close(): Promise<void> }): void {
    this.#open();
    this.#children.add(child);
  }

  /** @internal */
  disown(child: { close(): Promise<void> }): void {
    this.#children.delete(child);
  }

  #open(): void {
    if (this.#closing !== undefined) throw new TidemarkError('TIDEMARK_CLOSED', 'the store is closed');
  }
}

function isDate(name: string, value: unknown): number {
  if (!(value instanceof Date) || Number.isNaN(value.getTime())) throw new TypeError(`${name} must be a valid Date`);
  return value.getTime();
}
