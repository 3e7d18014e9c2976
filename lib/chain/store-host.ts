import { Committer } from '../checkpoint/committer.js';
import { Session } from '../checkpoint/session.js';
import type { ListQuery, PlainTarget, StorageEvent } from '../engine/protocol.js';
import { TidemarkError } from '../errors.js';
import { ancestor, type HeaderSource } from './ancestors.js';
import { broken } from './damage.js';
import { type Checkpoint, type Header, publicCheckpoint } from './header.js';
import { IndexCache } from './index-cache.js';
import { loadPageTable } from './load.js';
import { Log } from './log.js';
import type { PageTable } from './page-table.js';
import { recover } from './recovery.js';
import type { Ref } from './ref.js';
import { openFolder, type StoreFolder } from './store-folder.js';

/** Headers read at once while a listing looks for those that were asked for. */
const PAGE_OF_HEADERS = 256;

/** A checkpoint that is being read. */
export interface OpenSnapshot {
  header: Header;
  table: PageTable;
}

/** One open store, on the storage thread: folder, log, index, what commits and what reads. */
export class StoreHost {
  readonly folder: StoreFolder;
  readonly log: Log;
  readonly index: IndexCache;
  readonly committer: Committer;
  readonly snapshots = new Map<number, OpenSnapshot>();
  readonly #running = new Set<Promise<unknown>>();
  /** Resolves when the targets of all calls of `name` so far have been looked up. */
  #lookups: Promise<unknown> = Promise.resolve();
  #closing = false;

  private constructor(folder: StoreFolder, log: Log, index: IndexCache, committer: Committer) {
    this.folder = folder;
    this.log = log;
    this.index = index;
    this.committer = committer;
  }

  static async open(
    path: string,
    createIfMissing: boolean,
    starved: () => boolean,
    emit: (event: StorageEvent) => void,
  ): Promise<StoreHost> {
    const folder = openFolder(path, createIfMissing);
    let log: Log | undefined;
    let index: IndexCache | undefined;
    try {
      log = await Log.open(path, folder.uuid, folder.created);
      index = await IndexCache.open(path);
      if (folder.created) folder.finish();
      const damage = await recover(log, index);
      return new StoreHost(folder, log, index, new Committer(log, index, damage, emit, starved));
    } catch (error) {
      await index?.close().catch(() => {});
      await log?.close().catch(() => {});
      folder.unlock();
      throw error;
    }
  }

  /** Runs a request: the store is not closed under it. @throws `TIDEMARK_CLOSED` */
  async use<T>(request: () => Promise<T>): Promise<T> {
    if (this.#closing) throw new TidemarkError('TIDEMARK_CLOSED', 'the store is closed');
    const running = request();
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  async close(): Promise<void> {
    this.#closing = true;
    await Promise.allSettled(this.#running);
    await this.committer.close();
    try {
      await this.index.close().finally(() => this.log.close());
    } finally {
      this.folder.unlock();
    }
  }

  publicOf(header: Header): Checkpoint {
    return publicCheckpoint(header, this.index.durable, this.index.names.labelsOf(header.checkpoint.id));
  }

  /** @param base uid of the checkpoint that the memory descends from, when it does */
  async openSession(
    id: number,
    branch: string,
    base: string | null,
    regions: string[],
  ): Promise<{ session: Session; head: Header | undefined; base: Header | undefined }> {
    if (this.committer.inFlight.onBranch(branch) !== undefined) {
      throw new TidemarkError('TIDEMARK_BRANCH_BUSY', `branch ${branch} has a checkpointer already`, {
        hint: 'close it first, or use another branch',
      });
    }
    const session = new Session(id, branch);
    // Taken before anything is awaited: two opens of one branch must not both succeed.
    this.committer.inFlight.add(session);
    try {
      // A batch that was built before may make a branch of this name.
      await this.committer.batchWritten();
      const name = await this.committer.read((index) => index.names.get(branch));
      if (name?.type === 'label') {
        throw new TidemarkError('TIDEMARK_NAME_TAKEN', `${branch} is the label of checkpoint ${name.id}`, {
          hint: 'choose another branch name',
        });
      }
      const head = name === undefined ? undefined : await this.headerOf(name.id);
      session.expectedHead = head?.checkpoint.id;
      session.base = base === null ? undefined : await this.#byUid(base);
      // The page tables of a checkpoint are those of all its regions: with others the memory does not descend from it.
      if (session.base !== undefined && !sameNames(Object.keys(session.base.checkpoint.regions), regions))
        session.base = undefined;
      if (session.base !== undefined) session.table = await this.loadTable(session.base);
      return { session, head, base: session.base };
    } catch (error) {
      this.committer.inFlight.remove(id);
      throw error;
    }
  }

  loadTable(header: Header): Promise<PageTable> {
    return loadPageTable(this.log, header, (uid) => this.#byUid(uid));
  }

  #byUid(uid: string): Promise<Header | undefined> {
    return this.committer.read((index) => index.byUid(uid));
  }

  async headerOf(id: number): Promise<Header> {
    const header = await this.committer.read((index) => index.byId(id));
    if (header === undefined) throw broken(`checkpoint ${id} is missing from the index`);
    return header;
  }

  /** @throws `TIDEMARK_NOT_FOUND` */
  async require(target: PlainTarget): Promise<Header> {
    const header = await this.find(target);
    if (header === undefined) {
      throw new TidemarkError('TIDEMARK_NOT_FOUND', `${describeTarget(target)} is not in the store ${this.folder.path}`, {
        hint: '`tidemark log` lists what is there',
      });
    }
    return header;
  }

  async find(target: PlainTarget): Promise<Header | undefined> {
    if ('uid' in target) return this.#byUid(target.uid);
    if ('head' in target) {
      const name = await this.committer.read((index) => index.names.get(target.head));
      return name?.type === 'branch' ? this.headerOf(name.id) : undefined;
    }
    const header = await ('id' in target ? this.#byId(target.id, target.text) : this.#byName(target.name));
    if (header === undefined) return undefined;
    const { back = 0, until = Number.POSITIVE_INFINITY } = target;
    // Known without walking there.
    if (back > header.depth) return undefined;
    let steps = 0;
    return ancestor(header, this.#headers, ({ checkpoint }) => steps++ >= back && checkpoint.createdAt <= until);
  }

  readonly #headers: HeaderSource = {
    byId: (id) => this.headerOf(id),
    downFrom: (id, limit) => this.committer.read((index) => index.page({ before: id + 1, reverse: true, limit })),
  };

  /** @param text digits only: an id first, else perhaps the beginning of a uid */
  async #byId(id: number, text: string | undefined): Promise<Header | undefined> {
    const header = await this.committer.read((index) => index.byId(id));
    return header === undefined && (text?.length ?? 0) >= 8 ? this.#byPrefix(text!) : header;
  }

  async #byName(text: string): Promise<Header | undefined> {
    const name = await this.committer.read((index) => index.names.get(text));
    if (name !== undefined) return this.headerOf(name.id);
    return /^[0-9a-f]{8,32}$/.test(text) ? this.#byPrefix(text) : undefined;
  }

  /** Makes a branch of a checkpoint, or gives it a label; durable when it resolves. @throws `TIDEMARK_NOT_FOUND`, `TIDEMARK_NAME_TAKEN` */
  async name(type: Ref['type'], name: string, target: PlainTarget, move: boolean): Promise<Header> {
    // One look-up may take longer than another; calls for one name are to come out in their order.
    const found = this.#lookups.then(() => this.require(target));
    this.#lookups = found.catch(() => {});
    const header = await found;
    const { id, uid } = header.checkpoint;
    await this.committer.name({ type, name, id, uid, createdAt: Date.now() }, move);
    return header;
  }

  async #byPrefix(prefix: string): Promise<Header | undefined> {
    const uids = await this.committer.read((index) => index.uidsWith(prefix, 2));
    if (uids.length > 1)
      throw new TidemarkError('TIDEMARK_NOT_FOUND', `several checkpoints have a uid that begins with ${prefix}`, {
        hint: 'give more digits',
      });
    return uids[0] === undefined ? undefined : this.#byUid(uids[0]);
  }

  async list(query: ListQuery): Promise<{ checkpoints: Checkpoint[]; next: number | null }> {
    const checkpoints: Checkpoint[] = [];
    let cursor = query.after;
    for (;;) {
      const [after, before] = query.reverse ? [undefined, cursor] : [cursor, undefined];
      const { reverse } = query;
      // Also where few are wanted: those that are passed over on the way to them must not cost a look-up each.
      const limit = isFiltered(query) ? PAGE_OF_HEADERS : query.limit;
      const headers = await this.committer.read((index) => index.page({ after, before, reverse, limit }));
      for (const header of headers) {
        cursor = header.checkpoint.id;
        if (!matches(header, query)) continue;
        checkpoints.push(this.publicOf(header));
        if (checkpoints.length === query.limit) return { checkpoints, next: cursor };
      }
      if (headers.length < limit) return { checkpoints, next: null };
    }
  }

  async openSnapshot(id: number, target: PlainTarget): Promise<OpenSnapshot> {
    const header = await this.require(target);
    const snapshot = { header, table: await this.loadTable(header) };
    this.snapshots.set(id, snapshot);
    return snapshot;
  }
}

function describeTarget(target: PlainTarget): string {
  if ('head' in target) return `a checkpoint on branch ${target.head}`;
  if ('uid' in target) return `checkpoint ${target.uid}`;
  const { back = 0, until } = target;
  const start = 'id' in target ? `checkpoint ${target.text ?? target.id}` : target.name;
  if (until !== undefined)
    return `a checkpoint on the way from ${start} to the root that was taken at ${new Date(until).toISOString()} or before`;
  return back > 0 ? `${start}~${back}` : start;
}

function sameNames(a: string[], b: string[]): boolean {
  return a.length === b.length && a.every((name) => b.includes(name));
}

function isFiltered({ branch, since, until }: ListQuery): boolean {
  return branch !== undefined || since !== undefined || until !== undefined;
}

function matches({ checkpoint }: Header, query: ListQuery): boolean {
  return (
    (query.branch === undefined || checkpoint.branch === query.branch) &&
    (query.since === undefined || checkpoint.createdAt >= query.since) &&
    (query.until === undefined || checkpoint.createdAt <= query.until)
  );
}
