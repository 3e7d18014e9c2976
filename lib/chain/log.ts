import { closeSync, existsSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import { TidemarkError } from '../errors.js';
import { fault } from '../faults.js';
import { addon } from '../kernel/addon.js';
import { memoryShare } from '../memory-limit.js';
import { broken } from './damage.js';
import { Kind, openRecord, parseKey, recordKey } from './record.js';
import { storageError } from './store-folder.js';

type Bytes = Uint8Array;
export type LogDatabase = Level<Bytes, Bytes>;
export type LogOperation = { type: 'put'; key: Bytes; value: Bytes } | { type: 'del'; key: Bytes };

const UNCACHED: object = { fillCache: false };
const ENCODINGS = { keyEncoding: 'view', valueEncoding: 'view' } as const;
/** Numbers left out at every open: more than a crash can have lost from LevelDB's unsynced logs, so that none is used twice. */
const NUMBER_SKIP = 1 << 20;
const READ_CHUNK = 8 << 20;
/** LevelDB has two of them when it is busy: in a container of 512 MiB they must not take an eighth of it. */
const WRITE_BUFFER = memoryShare(32, 8 << 20, 32 << 20);
/** What LevelDB opens at once while it recovers. */
const SPARE_DESCRIPTORS = 16;

/** Options of a LevelDB of ours: values are zstd frames already; keys ascend, so compaction moves files instead of rewriting them. */
export function databaseOptions(writeBufferSize: number): object {
  return { ...ENCODINGS, compression: false, writeBufferSize, maxFileSize: 32 << 20, cacheSize: 4 << 20 };
}

/**
 * The log of a store: a LevelDB whose keys are one ascending sequence. It is the truth; everything else is derived from it.
 * Used by the storage thread only, one write at a time.
 */
export class Log {
  readonly folder: string;
  readonly store: Uint8Array;
  #db: LogDatabase;
  #next = 1;
  /** A write that was not synced has happened since the last one that made everything durable. */
  #unsynced = false;

  private constructor(folder: string, store: Uint8Array) {
    this.folder = folder;
    this.store = store;
    this.#db = undefined as unknown as LogDatabase;
  }

  /** Reads under way, and pins: work of many reads that must not lose the database in the middle. */
  #reads = 0;
  #pins = 0;
  /** Set from the moment a reopening is wanted until it is over. */
  #reopening: Promise<void> | undefined;
  #quiet: (() => void) | undefined;

  /** @param fresh the store was made just now: a log that is not there is no damage */
  static async open(storePath: string, store: Uint8Array, fresh: boolean): Promise<Log> {
    const log = new Log(join(storePath, 'log'), store);
    if (!fresh && !existsSync(join(log.folder, 'CURRENT'))) {
      throw new TidemarkError('TIDEMARK_DAMAGED', `the log of the store ${storePath} is missing`, {
        hint: 'the folder log/ was deleted or never restored from a copy',
      });
    }
    await log.#open();
    return log;
  }

  async #open(): Promise<void> {
    const db: LogDatabase = new Level<Bytes, Bytes>(this.folder, databaseOptions(WRITE_BUFFER));
    try {
      readLogFiles(this.folder);
      await db.open();
      // LevelDB never joins its background thread, and Node unloads an addon with the last worker that has it.
      addon().keepLoaded('/classic-level/');
      // Recovery has put everything it found into tables and synced those, but LevelDB does not sync the folder after it has renamed
      // CURRENT: until that is done a power cut brings the old state back.
      addon().syncLogs(this.folder);
    } catch (error) {
      await db.close().catch(() => {});
      throw storageError(error, 'the log could not be opened');
    }
    this.#db = db;
    this.#unsynced = false;
    this.reserveNumbers((await this.lastNumber()) + 1);
  }

  /**
   * After a rejected write: what LevelDB says cannot be trusted until it has been opened anew. Waits for who is reading (what it reads is
   * right: only writes cannot be trusted); who comes meanwhile waits for the reopening.
   */
  async reopen(): Promise<void> {
    const { promise, resolve } = withResolver();
    this.#reopening = promise;
    try {
      while (this.#pins > 0 || this.#reads > 0) await new Promise<void>((quiet) => (this.#quiet = quiet));
      await this.close();
      fault('log.reopen');
      await this.#open();
    } finally {
      this.#reopening = undefined;
      resolve();
    }
  }

  /** Keeps the database open until `unpin()`. */
  async pin(): Promise<void> {
    while (this.#reopening !== undefined) await this.#reopening;
    this.#pins++;
  }

  unpin(): void {
    this.#pins--;
    if (this.#pins === 0) this.#quiet?.();
  }

  /** While something is pinned a read may belong to it, so it must not wait for a reopening that waits for the pin. */
  async #beginRead(): Promise<void> {
    while (this.#reopening !== undefined && this.#pins === 0) await this.#reopening;
    this.#reads++;
  }

  #endRead(): void {
    this.#reads--;
    if (this.#reads === 0) this.#quiet?.();
  }

  async #read<T>(first: number, read: () => Promise<T>): Promise<T> {
    await this.#beginRead();
    try {
      return await read();
    } catch (error) {
      throw readError(error, first);
    } finally {
      this.#endRead();
    }
  }

  async close(): Promise<void> {
    try {
      await this.#db.close();
    } catch (error) {
      throw storageError(error, 'the log could not be closed');
    }
  }

  /** No number below this is given out from now on, nor any that a lost tail of the log may have held. */
  reserveNumbers(from: number): void {
    this.#next = Math.max(this.#next, (Math.ceil(from / NUMBER_SKIP) + 1) * NUMBER_SKIP);
  }

  nextNumber(): number {
    return this.#next++;
  }

  /** The next number that will be given out. */
  get upcoming(): number {
    return this.#next;
  }

  async lastNumber(): Promise<number> {
    for await (const key of this.#db.keys({ reverse: true, limit: 1 })) return parseKey(key).number;
    return 0;
  }

  /**
   * Writes a batch. With `durable` everything written so far is durable when it resolves: unsynced writes may lie in an older log file
   * that LevelDB did not sync when it went on to the next one, or may do so with this very batch, so those files are synced first.
   * @throws when LevelDB rejects it; then nothing may be written until `reopen()`
   */
  async write(operations: LogOperation[], durable: boolean): Promise<void> {
    fault('log.write');
    if (durable && this.#unsynced) addon().syncLogs(this.folder);
    if (!durable) this.#unsynced = true;
    await this.#db.batch(operations, { sync: durable });
    if (durable) this.#unsynced = false;
    fault('log.acknowledge');
  }

  /** Makes everything written so far durable. */
  syncAll(): void {
    if (!this.#unsynced) return;
    addon().syncLogs(this.folder);
    this.#unsynced = false;
  }

  /** The payload of a record, checked. @throws `TIDEMARK_CHAIN_BROKEN` when it is not there, `TIDEMARK_DAMAGED` */
  async payload(number: number, kind: Kind): Promise<Uint8Array> {
    const record = await this.record(number, kind);
    if (record === undefined) throw broken(`record ${number} is missing from the log`);
    return openRecord(record, kind, number, this.store);
  }

  /**
   * The same at once, for who must not wait for anything but the disk: somebody waits for a page of it. It needs no thread of libuv's pool: these may be the ones that
   * wait. While the log is being opened anew, or could not be, it throws `TIDEMARK_WRITE_FAILED`.
   */
  payloadNow(number: number, kind: Kind): Uint8Array {
    let record: Uint8Array | undefined;
    try {
      fault('log.read');
      // classic-level takes the options of `get`, its types do not say so.
      record = this.#db.getSync(recordKey(number, kind), UNCACHED);
    } catch (error) {
      throw readError(error, number);
    }
    if (record === undefined) throw broken(`record ${number} is missing from the log`);
    return openRecord(record, kind, number, this.store);
  }

  /** A record as it is stored, unchecked. */
  async record(number: number, kind: Kind): Promise<Uint8Array | undefined> {
    return this.#read(number, async () => {
      fault('log.read');
      return this.#db.get(recordKey(number, kind), { fillCache: false });
    });
  }

  /** Records as they are stored, unchecked, `undefined` for those that are not there. */
  async records(numbers: number[], kind: Kind): Promise<(Uint8Array | undefined)[]> {
    const keys = numbers.map((number) => recordKey(number, kind));
    return this.#read(numbers[0] ?? 0, () => this.#db.getMany(keys, { fillCache: false }));
  }

  async has(number: number, kind: Kind): Promise<boolean> {
    return (await this.record(number, kind)) !== undefined;
  }

  /** Number and kind of every record from `first` on, ascending. */
  async *keys(first: number): AsyncGenerator<{ number: number; kind: Kind }> {
    await this.#beginRead();
    try {
      const iterator = this.#db.keys({ gte: recordKey(first, 0 as Kind), fillCache: false, highWaterMarkBytes: READ_CHUNK });
      for await (const key of iterator) {
        const parsed = parseKey(key);
        if (!KINDS.has(parsed.kind)) throw unknownKind(parsed.number);
        yield parsed;
      }
    } catch (error) {
      throw readError(error, first);
    } finally {
      this.#endRead();
    }
  }
}

function withResolver(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((done) => (resolve = done));
  return { promise, resolve };
}

/** What this version writes. */
const KINDS: ReadonlySet<number> = new Set(Object.values(Kind));

/** Met before anything is deleted that it might refer to. */
function unknownKind(number: number): TidemarkError {
  const message = `record ${number} is of a kind that this version of tidemark does not know`;
  return new TidemarkError('TIDEMARK_STORE_FORMAT', message, { hint: 'use the version that wrote it, or a newer one' });
}

/**
 * Reads LevelDB's own log files once before it does. An error when it opens or reads one of these is nothing to LevelDB 1.20 (it goes on
 * without paranoid_checks, and deletes the file), so such an error has to be met here; and descriptors that it will need must be free.
 */
function readLogFiles(folder: string): void {
  if (!existsSync(folder)) return;
  const held: number[] = [];
  try {
    for (let k = 0; k < SPARE_DESCRIPTORS; k++) held.push(openSync('/dev/null', 'r'));
    const chunk = new Uint8Array(1 << 20);
    for (const name of readdirSync(folder)) {
      if (!name.endsWith('.log')) continue;
      const fd = openSync(join(folder, name), 'r');
      held.push(fd);
      while (readSync(fd, chunk) > 0);
    }
  } finally {
    for (const fd of held) closeSync(fd);
  }
}

export function deletion(number: number, kind: Kind): LogOperation {
  return { type: 'del', key: recordKey(number, kind) };
}

function readError(error: unknown, number: number): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const { code } = error as { code?: string };
  if (code === 'LEVEL_DATABASE_NOT_OPEN') {
    return new TidemarkError('TIDEMARK_WRITE_FAILED', 'the log is closed since a write to it failed', {
      cause: error,
      hint: 'try again',
    });
  }
  return new TidemarkError('TIDEMARK_DAMAGED', `record ${number} could not be read from the log`, { cause: error });
}
