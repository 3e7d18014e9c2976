import { parentPort, workerData } from 'node:worker_threads';
import { diffTables } from '../chain/diff.js';
import { readManifest } from '../chain/load.js';
import type { StoredAttachment } from '../chain/manifest.js';
import type { PageTable } from '../chain/page-table.js';
import { readAttachment, readRange } from '../chain/read-pages.js';
import { StoreHost } from '../chain/store-host.js';
import { verifyStore } from '../chain/verify.js';
import type { Session } from '../checkpoint/session.js';
import { TidemarkError, toPlain } from '../errors.js';
import { faulty } from '../faults.js';
import { RestoreRun } from '../restore/fill.js';
import { LazyRun } from '../restore/lazy-run.js';
import { CodecPorts } from './codec-ports.js';
import type { Call, Calls, StorageEvent, ToStorage } from './protocol.js';

/**
 * The storage thread of an engine: it owns the LevelDBs of all its stores, and nobody else touches them. Everything it is asked comes as
 * a message; what takes long is asynchronous, so that commits go on beside it.
 */
type Handlers = { [K in keyof Calls]: (...args: Parameters<Calls[K]>) => ReturnType<Calls[K]> | Promise<ReturnType<Calls[K]>> };

const port = parentPort!;
const emit = (event: StorageEvent): void => port.postMessage(event);
const stores = new Map<number, StoreHost>();
const sessions = new Map<number, { store: StoreHost; session: Session }>();
const snapshots = new Map<number, StoreHost>();
/** Ids go on where those of the storage thread before ended: what was opened there must not be taken for something opened here. */
let nextId = (workerData as { firstId: number }).firstId;
/** A capture waits for staging, or is about to: what has arrived is written without waiting for more. */
let starved = false;

const pumpAll = (): void => {
  for (const host of stores.values()) host.committer.pump();
};

const codecs = new CodecPorts((message, staging) => {
  if (faulty('storage.exit')) process.exit(1);
  const host = sessions.get(message.session)?.store;
  const release = () => message.segment !== null && staging.release(message.segment);
  if (host === undefined) release();
  else if (message.type === 'encoded') host.committer.segmentArrived(message, staging);
  else {
    release();
    host.committer.encodeFailed(message, message.error);
  }
}, pumpAll);

function need<T>(map: Map<number, T>, id: number, what: string): T {
  const found = map.get(id);
  if (found === undefined) throw new TidemarkError('TIDEMARK_CLOSED', `the ${what} is closed`);
  return found;
}

const handlers: Handlers = {
  async openStore(path, createIfMissing) {
    const host = await StoreHost.open(path, createIfMissing, () => starved || codecs.starved(), emit);
    stores.set(nextId, host);
    return nextId++;
  },

  async closeStore(id) {
    const host = stores.get(id);
    stores.delete(id);
    await host?.close();
  },

  async openSession(store, branch, base, regions) {
    const host = need(stores, store, 'store');
    const id = nextId++;
    const { session, head, base: found } = await host.use(() => host.openSession(id, branch, base, regions));
    sessions.set(id, { store: host, session });
    return {
      session: id,
      head: head === undefined ? null : host.publicOf(head),
      base: found === undefined ? null : host.publicOf(found),
    };
  },

  async closeSession(id) {
    const entry = sessions.get(id);
    if (entry === undefined) return;
    endRestore(entry.session);
    entry.session.lazy?.end();
    entry.store.committer.inFlight.remove(id);
    sessions.delete(id);
  },

  precopied(id) {
    const { store, session } = need(sessions, id, 'checkpointer');
    return store.use(() => store.committer.writeAhead(session));
  },

  async flush(id) {
    const { store, session } = need(sessions, id, 'checkpointer');
    return store.use(async () => {
      await store.committer.flush();
      const head = await store.find({ head: session.branch });
      return head === undefined ? null : store.publicOf(head);
    });
  },

  async find(store, target) {
    const host = need(stores, store, 'store');
    const header = await host.use(() => host.find(target));
    return header === undefined ? null : host.publicOf(header);
  },

  list(store, query) {
    const host = need(stores, store, 'store');
    return host.use(() => host.list(query));
  },

  async openSnapshot(store, target) {
    const host = need(stores, store, 'store');
    const id = nextId++;
    const { header } = await host.use(() => host.openSnapshot(id, target));
    snapshots.set(id, host);
    return { snapshot: id, checkpoint: host.publicOf(header) };
  },

  readSnapshot(id, region, byteOffset, byteLength) {
    const host = need(snapshots, id, 'snapshot');
    const { table } = need(host.snapshots, id, 'snapshot');
    const pages = table.regions.get(region);
    if (pages === undefined) throw new TidemarkError('TIDEMARK_NOT_FOUND', `the checkpoint has no region ${region}`);
    return host.use(async () => {
      await host.committer.read(() => {});
      return readRange(host.log, pages, byteOffset, byteLength);
    });
  },

  async readSnapshotAttachment(id, name) {
    const host = need(snapshots, id, 'snapshot');
    const { table } = need(host.snapshots, id, 'snapshot');
    return host.use(async () => {
      await host.committer.read(() => {});
      return readAttachment(host.log, findAttachment(table.attachments, name));
    });
  },

  async readAttachment(store, uid, name) {
    const host = need(stores, store, 'store');
    return host.use(async () => {
      const { manifest } = await host.require({ uid });
      return readAttachment(host.log, findAttachment((await readManifest(host.log, manifest)).attachments, name));
    });
  },

  closeSnapshot(id) {
    snapshots.get(id)?.snapshots.delete(id);
    snapshots.delete(id);
  },

  label(store, name, target, move) {
    const host = need(stores, store, 'store');
    return host.use(async () => void (await host.name('label', name, target, move)));
  },

  fork(store, target, branch) {
    const host = need(stores, store, 'store');
    return host.use(async () => host.publicOf(await host.name('branch', branch, target, false)));
  },

  diff(store, a, b) {
    const host = need(stores, store, 'store');
    return host.use(async () => {
      const [left, right] = [await host.require(a), await host.require(b)];
      return diffTables(host.log, await host.loadTable(left), await host.loadTable(right));
    });
  },

  verify(store, readData) {
    const host = need(stores, store, 'store');
    return host.use(() => verifyStore(host, readData));
  },

  async planRestore(id, target) {
    const { store, session } = need(sessions, id, 'checkpointer');
    // With damage that recovery could not place, what is known as the head may be older than the real one: not to be taken without a word.
    if (target === null && store.committer.damage.length > 0) throw store.committer.damage[0]!.error;
    const { header, table } = await store.use(async () => {
      const found = await store.require(target ?? { head: session.branch });
      return { header: found, table: await store.loadTable(found) };
    });
    endRestore(session);
    session.restoreAborted = false;
    const run = new RestoreRun(store.log, codecs, {
      aborted: () => session.restoreAborted,
      onProgress: (donePages, totalPages) => emit({ type: 'restored', session: session.id, donePages, totalPages }),
    });
    session.restoring = { header, table, run };
    return {
      checkpoint: store.publicOf(header),
      regions: [...table.regions.values()].map(({ name, byteLength }) => ({ name, byteLength })),
    };
  },

  async restore(id, request) {
    const { store, session } = need(sessions, id, 'checkpointer');
    const plan = planned(session, request.uid);
    // Before the log is pinned: it may wait for a reopening, which waits for pins.
    const base = await baseTable(store, session, request.base);
    try {
      await plan.run.prepare(request, plan.table, base);
      // A rejected write of another checkpointer must not close the log under a region that is being filled.
      await store.log.pin();
      try {
        return await plan.run.run(request.phase);
      } finally {
        store.log.unpin();
      }
    } catch (error) {
      endRestore(session);
      throw error;
    } finally {
      plan.run.release();
    }
  },

  async restoreLazily(id, request, { userFaults, noted }) {
    const { store, session } = need(sessions, id, 'checkpointer');
    const plan = planned(session, request.uid);
    const base = await baseTable(store, session, request.base);
    const lazy = new LazyRun(store.log, codecs, noted, {
      onProgress: (donePages, totalPages) => emit({ type: 'restored', session: session.id, donePages, totalPages }),
    });
    try {
      const counts = await lazy.begin(request, plan.table, base, userFaults);
      session.lazy = lazy;
      adoptPlan(session, plan);
      // The answer first: filling takes the thread at once.
      setImmediate(() => {
        void lazy
          .run()
          .then(
            () => emit({ type: 'resident', session: id }),
            (error) => emit({ type: 'resident', session: id, error: toPlain(error, 'TIDEMARK_DAMAGED') }),
          )
          .finally(() => {
            // It has the page tables.
            if (session.lazy === lazy) session.lazy = undefined;
          });
      });
      return counts;
    } catch (error) {
      lazy.end();
      throw error;
    }
  },

  ensureResident(id, region, firstPage, pageCount) {
    const { session } = need(sessions, id, 'checkpointer');
    return session.lazy?.ensure(region, firstPage, pageCount);
  },

  adopt(id, uid) {
    const { session } = need(sessions, id, 'checkpointer');
    adoptPlan(session, planned(session, uid));
  },
};

/** The memory descends from what was planned. */
function adoptPlan(session: Session, { header, table }: NonNullable<Session['restoring']>): void {
  session.base = header;
  session.table = table;
  endRestore(session);
}

function findAttachment(attachments: readonly StoredAttachment[], name: string): StoredAttachment {
  const found = attachments.find((one) => one.name === name);
  if (found === undefined) throw new TidemarkError('TIDEMARK_NOT_FOUND', `the checkpoint has no attachment ${name}`);
  return found;
}

/** What it keeps for its second phase is free. */
function endRestore(session: Session): void {
  session.restoring?.run.close();
  session.restoring = undefined;
}

function planned(session: Session, uid: string): NonNullable<Session['restoring']> {
  if (session.restoring?.header.checkpoint.uid !== uid)
    throw new TidemarkError('TIDEMARK_NOT_FOUND', `no restore of ${uid} was planned`);
  return session.restoring;
}

/** The page tables of what the memory descends from: at hand unless a failure has made them void. */
async function baseTable(store: StoreHost, session: Session, base: string | null): Promise<PageTable | undefined> {
  if (base === null) return undefined;
  if (session.base?.checkpoint.uid === base && session.table !== undefined) return session.table;
  return store.loadTable(await store.require({ uid: base }));
}

async function answer({ call, method, args }: Call): Promise<void> {
  try {
    const handler = handlers[method] as (...values: unknown[]) => unknown;
    emit({ type: 'reply', call, value: await handler(...args) });
  } catch (error) {
    // What is damage says so itself; the rest is a failure of ours or of the system, not of the disk.
    emit({ type: 'reply', call, error: toPlain(error, 'TIDEMARK_WRITE_FAILED') });
  }
}

port.on('message', (message: ToStorage) => {
  switch (message.type) {
    case 'captured':
      starved = false;
      sessions.get(message.session)?.store.committer.captureArrived(message);
      break;
    case 'precopied':
      starved = false;
      sessions.get(message.session)?.store.committer.aheadArrived(message);
      break;
    case 'abort':
      sessions.get(message.session)?.store.committer.abort(message);
      break;
    case 'abort-restore': {
      const session = sessions.get(message.session)?.session;
      if (session !== undefined) session.restoreAborted = true;
      break;
    }
    case 'restore-ended': {
      const session = sessions.get(message.session)?.session;
      if (session !== undefined) endRestore(session);
      break;
    }
    case 'dropped':
      starved = false;
      sessions.get(message.session)?.store.committer.dropCapture(message);
      break;
    case 'starved':
      starved = true;
      pumpAll();
      break;
    case 'codecs':
      codecs.attach(message);
      emit({ type: 'attached', ring: message.ring });
      break;
    case 'codecs-ended': {
      // What they had in hand is lost: it fails here, where it is known what was committed.
      const error = new TidemarkError('TIDEMARK_STALLED', 'a codec thread of the engine ended', {
        hint: 'nothing in memory is lost; take the checkpoint again',
      });
      codecs.detach();
      for (const host of stores.values()) host.committer.inFlight.failAll(error);
      break;
    }
    case 'call':
      void answer(message);
      break;
  }
});
