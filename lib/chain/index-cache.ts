import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import { TidemarkError } from '../errors.js';
import { fault } from '../faults.js';
import { addon } from '../kernel/addon.js';
import type { Header } from './header.js';
import { databaseOptions } from './log.js';
import { type Name, Names } from './names.js';
import type { NumberedRef } from './ref.js';
import { storageError } from './store-folder.js';

type IndexDatabase = Level<string, string>;
/** What a part of the log has to say to the index, in the order of the records. */
export interface Entries {
  headers: Header[];
  refs: NumberedRef[];
}

/** Checkpoints between two marks: that many manifests at most are read again after an unclean end. */
const MARK_EVERY = 512;

const idKey = (id: number): string => `c/${id.toString(16).padStart(14, '0')}`;
const refKey = (record: number): string => `r/${record.toString(16).padStart(14, '0')}`;

/**
 * The index of a store: headers by id, ids by uid, names. A cache of the log, not synced but for its marks; `applied` says up to
 * which manifest it goes. Used by the storage thread only.
 */
export class IndexCache {
  readonly folder: string;
  #db: IndexDatabase;
  readonly names = new Names();
  /** Number of the last manifest that is in the index. */
  applied = 0;
  /** Number of the last ref that is in the index. */
  appliedRef = 0;
  /** The record up to which the log was known to be durable. */
  durable = 0;
  lastId = 0;
  /** Changes whenever the database is emptied to be made anew: what was read across such a moment is void. */
  generation = 0;
  /** Checkpoints applied since the last mark. */
  #unmarked = 0;
  #broken = false;
  /** It is being made anew: it stays broken for everybody else until it is whole. */
  #rewriting = false;

  private constructor(folder: string, db: IndexDatabase) {
    this.folder = folder;
    this.#db = db;
  }

  /**
   * Opens it; what is damaged is thrown away, since the log has everything.
   * @throws {TidemarkError} when the file system does not let us: then it may be whole, and nothing is deleted
   */
  static async open(storePath: string): Promise<IndexCache> {
    const folder = join(storePath, 'index');
    try {
      // Without this file LevelDB makes a new database of whatever log files it finds: a part of the index that takes itself for the whole.
      if (!existsSync(join(folder, 'CURRENT'))) rmSync(folder, { recursive: true, force: true });
      const index = new IndexCache(folder, await openDatabase(folder));
      await index.#load().catch(async (error) => {
        await index.close();
        throw error;
      });
      return index;
    } catch (error) {
      const known = storageError(error, 'the index could not be opened');
      if (known.code !== 'TIDEMARK_DAMAGED') throw known;
    }
    rmSync(folder, { recursive: true, force: true });
    return new IndexCache(folder, await openDatabase(folder));
  }

  /** A write was rejected, or something damaged was read: nothing more is written to it, and it has to be made anew. */
  get broken(): boolean {
    return this.#broken;
  }

  /**
   * Takes over what the last mark vouches for. The index is not synced, so behind the mark there may be holes (LevelDB goes on after a lost
   * log file): headers behind it are dropped, and come back from the log.
   */
  async #load(): Promise<void> {
    const text = await this.#db.get('m/mark');
    if (text !== undefined) {
      const mark = unseal<{ applied: number; appliedRef: number; durable: number; lastId: number }>(text);
      this.applied = mark.applied;
      this.appliedRef = mark.appliedRef;
      this.durable = mark.durable;
      this.lastId = mark.lastId;
    }
    for await (const [key, value] of this.#db.iterator({ gte: idKey(this.lastId + 1), lt: 'c0' })) {
      await this.#db.batch([
        { type: 'del', key },
        { type: 'del', key: `u/${unseal<Header>(value).checkpoint.uid}` },
      ]);
    }
    for await (const key of this.#db.keys({ gte: refKey(this.appliedRef + 1), lt: 'r0' })) await this.#db.del(key);
    const last = Math.max(this.applied, this.appliedRef);
    const stale: string[] = [];
    for await (const [key, value] of this.#db.iterator({ gte: 'n/', lt: 'n0' })) {
      const name = unseal<Name>(value);
      if (name.record > last) stale.push(key.slice(2));
      else this.names.set(key.slice(2), name);
    }
    if (stale.length > 0) await this.#namesAtMark(stale);
  }

  /** Names that had moved on behind the mark: where they were at the mark is told by the headers and the refs. */
  async #namesAtMark(stale: string[]): Promise<void> {
    for await (const value of this.#db.values({ gte: 'c/', lt: 'c0' }))
      this.#enter({ headers: [unseal<Header>(value)], refs: [] });
    for await (const value of this.#db.values({ gte: 'r/', lt: 'r0' }))
      this.#enter({ headers: [], refs: [unseal<NumberedRef>(value)] });
    // What moved them may be lost, and once the mark has passed its number it would count again.
    for (const name of stale) {
      const value = this.names.get(name);
      await (value === undefined ? this.#db.del(`n/${name}`) : this.#db.put(`n/${name}`, seal(value)));
    }
  }

  #enter(entries: Entries): void {
    for (const [name, value] of namesOf(entries)) this.names.set(name, value);
  }

  /** Vouches for everything applied so far: what was written before is made durable first, then the mark. */
  async mark(): Promise<void> {
    const { applied, appliedRef, durable, lastId } = this;
    await this.#write(async () => {
      addon().syncLogs(this.folder);
      await this.#db.put('m/mark', seal({ applied, appliedRef, durable, lastId }), { sync: true });
    });
    this.#unmarked = 0;
  }

  /** After one rejected write the rest of LevelDB's log file is unreadable, so none may follow. */
  async #write(write: () => Promise<void>): Promise<void> {
    if (this.#broken && !this.#rewriting) throw new TidemarkError('TIDEMARK_WRITE_FAILED', 'the index has to be made anew');
    try {
      await write();
    } catch (error) {
      this.#broken = true;
      throw storageError(error, 'the index could not be written');
    }
  }

  /** So much has been applied since the last mark that catching up would take a while. */
  get wantsMark(): boolean {
    return !this.#broken && this.#unmarked >= MARK_EVERY;
  }

  close(): Promise<void> {
    return this.#db.close();
  }

  /** Forgets everything. */
  async clear(): Promise<void> {
    await this.#wipe();
    this.#broken = false;
    this.names.clear();
    this.applied = 0;
    this.appliedRef = 0;
    this.durable = 0;
    this.lastId = 0;
  }

  /** Makes the database anew, from all that the log has to say; what is in memory is right and stays. */
  async rewrite(log: AsyncIterable<Entries>): Promise<void> {
    this.#rewriting = true;
    try {
      await this.#wipe();
      for await (const some of log) await this.#put(some);
      await this.mark();
      this.#broken = false;
    } finally {
      this.#rewriting = false;
    }
  }

  async #wipe(): Promise<void> {
    this.#broken = true;
    this.generation++;
    await this.#db.close();
    rmSync(this.folder, { recursive: true, force: true });
    this.#db = await openDatabase(this.folder);
  }

  /** Adds checkpoints in the order of their manifests, and refs. Names move to the newest. */
  async apply(entries: Entries, durable: number): Promise<void> {
    await this.#put(entries);
    this.note(entries, durable);
  }

  #put(entries: Entries): Promise<void> {
    const batch: { type: 'put'; key: string; value: string }[] = [];
    const put = (key: string, value: unknown) => batch.push({ type: 'put', key, value: seal(value) });
    for (const header of entries.headers) {
      const { id, uid } = header.checkpoint;
      put(idKey(id), header);
      put(`u/${uid}`, id);
    }
    for (const ref of entries.refs) put(refKey(ref.number), ref);
    const names = new Names();
    for (const [name, value] of namesOf(entries)) names.set(name, value);
    for (const [name, value] of names) {
      // Refs and headers do not always come in the order of their records.
      if ((this.names.get(name)?.record ?? 0) <= value.record) put(`n/${name}`, value);
    }
    this.#unmarked += entries.headers.length + entries.refs.length;
    return this.#write(async () => {
      fault('index.write');
      await this.#db.batch(batch);
    });
  }

  /** Enters checkpoints and refs in memory: also when they could not be written. */
  note(entries: Entries, durable: number): void {
    this.durable = durable;
    this.#enter(entries);
    for (const { manifest, checkpoint } of entries.headers) {
      this.applied = Math.max(this.applied, manifest);
      this.lastId = Math.max(this.lastId, checkpoint.id);
    }
    for (const { number } of entries.refs) this.appliedRef = Math.max(this.appliedRef, number);
  }

  /** The numbers of the refs from a record on. */
  async refs(from: number): Promise<number[]> {
    const keys = await this.#db.keys({ gte: refKey(from), lt: 'r0' }).all();
    return keys.map((key) => Number.parseInt(key.slice(2), 16));
  }

  async byId(id: number): Promise<Header | undefined> {
    return this.#read<Header>(await this.#db.get(idKey(id)));
  }

  async byUid(uid: string): Promise<Header | undefined> {
    const id = this.#read<number>(await this.#db.get(`u/${uid}`));
    return id === undefined ? undefined : this.byId(id);
  }

  /** Up to `limit` uids that begin with `prefix`. */
  async uidsWith(prefix: string, limit: number): Promise<string[]> {
    const keys = await this.#db.keys({ gte: `u/${prefix}`, lt: `u/${prefix}g`, limit }).all();
    return keys.map((key) => key.slice(2));
  }

  #read<T>(value: string | undefined): T | undefined {
    try {
      return value === undefined ? undefined : unseal<T>(value);
    } catch (error) {
      this.#broken = true;
      throw error;
    }
  }

  /** Headers in the order of their ids, `limit` at a time. */
  async page(options: {
    after?: number | undefined;
    before?: number | undefined;
    reverse: boolean;
    limit: number;
  }): Promise<Header[]> {
    const values = await this.#db
      .values({
        gt: options.after === undefined ? 'c/' : idKey(options.after),
        lt: options.before === undefined ? 'c0' : idKey(options.before),
        reverse: options.reverse,
        limit: options.limit,
      })
      .all();
    return values.map((value) => this.#read<Header>(value)!);
  }
}

/** The names that they set, in no order: the record tells which one counts. */
function* namesOf({ headers, refs }: Entries): Generator<[string, Name]> {
  for (const { checkpoint, manifest } of headers) {
    const { id, branch, label } = checkpoint;
    yield [branch, { type: 'branch', id, record: manifest }];
    if (label !== undefined) yield [label, { type: 'label', id, record: manifest }];
  }
  for (const { name, type, id, number } of refs) yield [name, { type, id, record: number }];
}

/** LevelDB does not notice a flipped bit: every value begins with the CRC32C of the rest. */
function seal(value: unknown): string {
  const text = JSON.stringify(value);
  return checksum(text) + text;
}

function unseal<T>(value: string): T {
  const text = value.slice(8);
  if (checksum(text) !== value.slice(0, 8)) {
    throw new TidemarkError('TIDEMARK_DAMAGED', 'the index is damaged', {
      hint: 'it is made anew from the log: try again',
      retryable: true,
    });
  }
  return JSON.parse(text) as T;
}

function checksum(text: string): string {
  return addon().crc32c(Buffer.from(text)).toString(16).padStart(8, '0');
}

async function openDatabase(folder: string): Promise<IndexDatabase> {
  const db: IndexDatabase = new Level<string, string>(folder, {
    ...databaseOptions(4 << 20),
    keyEncoding: 'utf8',
    valueEncoding: 'utf8',
  });
  try {
    await db.open();
  } catch (error) {
    await db.close().catch(() => {});
    throw storageError(error, 'the index could not be opened');
  }
  return db;
}
