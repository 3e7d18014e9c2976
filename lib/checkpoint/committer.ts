import { dirname } from 'node:path';
import { publicCheckpoint } from '../chain/header.js';
import type { Entries, IndexCache } from '../chain/index-cache.js';
import { loadPageTable } from '../chain/load.js';
import { deletion, type Log, type LogOperation } from '../chain/log.js';
import { Kind, parseKey } from '../chain/record.js';
import { rebuildIndex, recover } from '../chain/recovery.js';
import type { Ref } from '../chain/ref.js';
import { storageError } from '../chain/store-folder.js';
import type { LogDamage } from '../chain/tail.js';
import type { Captured, Encoded, Precopied, StorageEvent, Ticket, Upkeep } from '../engine/protocol.js';
import type { Staging } from '../engine/staging.js';
import { fromPlain, type PlainError, TidemarkError, toPlain } from '../errors.js';
import { faulty } from '../faults.js';
import { type Batch, BatchBuilder } from './batch.js';
import { now } from './clock.js';
import { InFlight } from './in-flight.js';
import type { Naming } from './naming.js';
import type { Session } from './session.js';

/** A batch is written when it holds this much, even if no checkpoint is complete: memory in use stays bounded. */
const SPILL_BYTES = 4 << 20;
/** No batch takes more than about this. */
const BATCH_BYTES = 8 << 20;

/**
 * Commits the checkpoints of one store, on the storage thread: one write at a time, extents as they arrive, manifests in the
 * order of each checkpointer. Any rejected write stops everything until the log has been opened again and read back.
 */
export class Committer {
  readonly inFlight: InFlight;
  readonly #builder: BatchBuilder;
  readonly #log: Log;
  readonly #index: IndexCache;
  readonly #emit: (event: StorageEvent) => void;
  readonly #starved: () => boolean;
  /** Manifests (and their tables) whose promise was rejected while the log could not be read back: deleted first when they turn out to be there. */
  #doubtful: { number: number; kind: Kind }[] = [];
  #broken: TidemarkError | undefined;
  #working: Promise<void> | undefined;
  /** Calls of `flush` that wait for their turn or have it. */
  #flushes = 0;
  damage: LogDamage[];

  /** @param starved whether a capture waits for staging */
  constructor(log: Log, index: IndexCache, damage: LogDamage[], emit: (event: StorageEvent) => void, starved: () => boolean) {
    this.inFlight = new InFlight(log, emit);
    this.#log = log;
    this.#index = index;
    this.#emit = emit;
    this.#starved = starved;
    this.#builder = new BatchBuilder(log, index, this.inFlight);
    this.damage = damage;
  }

  segmentArrived(encoded: Encoded, staging: Staging): void {
    this.inFlight.segmentArrived(encoded, staging);
    this.pump();
  }

  captureArrived(captured: Captured): void {
    this.inFlight.captureArrived(captured);
    this.pump();
  }

  aheadArrived(precopied: Precopied): void {
    this.inFlight.aheadArrived(precopied);
  }

  /** Writes what has been taken ahead of a session's next checkpoint without waiting for more; resolves when it is written or has failed. */
  async writeAhead(session: Session): Promise<void> {
    const written = this.inFlight.aheadWritten(session);
    this.pump();
    await written;
  }

  abort(ticket: Ticket): void {
    this.inFlight.abort(ticket);
    this.pump();
  }

  dropCapture(ticket: Ticket): void {
    this.inFlight.dropCapture(ticket);
    this.pump();
  }

  encodeFailed(ticket: Ticket, error: PlainError): void {
    const session = this.inFlight.session(ticket.session);
    if (session === undefined || session.gone(ticket)) return;
    this.inFlight.fail(session, ticket.generation, fromPlain(error), ticket.sequence, true);
    this.pump();
  }

  /** Makes a branch of a checkpoint, or gives it a label; durable when it resolves. */
  async name(ref: Ref, move: boolean): Promise<void> {
    if (this.damage.length > 0) throw this.damage[0]!.error;
    const named = this.#builder.namings.add(ref, move);
    this.pump();
    await named;
  }

  /** Resolves when the batch that is being written now, if any, is: what it names is known then. */
  async batchWritten(): Promise<void> {
    await this.#working?.catch(() => {});
  }

  /** Starts writing if there is something to write; never two writes at a time. */
  pump(): void {
    if (this.#working !== undefined || this.#flushes > 0 || !this.#due()) return;
    this.#working = this.#work().finally(() => {
      this.#working = undefined;
      this.pump();
    });
  }

  /** Resolves when no write is under way. */
  async idle(): Promise<void> {
    while (this.#working !== undefined) await this.#working.catch(() => {});
  }

  /**
   * Reads the index. After a rejected write the log is opened again first, and an index that is broken made anew; both are steps of their own,
   * like a write, so that nothing else works on the index meanwhile. What was read while it was made anew is read again.
   */
  async read<T>(read: (index: IndexCache) => T | Promise<T>): Promise<T> {
    for (;;) {
      await this.#readable();
      const { generation } = this.#index;
      try {
        const result = await read(this.#index);
        if (generation === this.#index.generation) return result;
      } catch (error) {
        if (generation === this.#index.generation) throw error;
      }
    }
  }

  async #readable(): Promise<void> {
    while (this.#broken !== undefined || this.#index.broken) {
      if (this.#working !== undefined) {
        await this.idle();
        continue;
      }
      const mending = this.#broken !== undefined ? this.#mend() : this.#freshIndex();
      this.#working = mending.finally(() => {
        this.#working = undefined;
        this.pump();
      });
      await this.#working;
    }
  }

  /** Makes everything committed so far durable: a step of its own, which the writes that are due wait for. */
  async flush(): Promise<void> {
    await this.read(() => {});
    this.#flushes++;
    try {
      while (this.#working !== undefined) await this.idle();
      this.#working = this.#sync().finally(() => {
        this.#working = undefined;
      });
      await this.#working;
    } finally {
      this.#flushes--;
      this.pump();
    }
  }

  async #sync(): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    try {
      this.#log.syncAll();
    } catch (error) {
      // Whether the unsynced part is on disk is unknown now, and syncing again would not tell: only opening the log again does. What is in
      // flight has extents in that part.
      this.#broken = storageError(error, 'the log could not be synced');
      this.inFlight.failAll(this.#broken);
      throw this.#broken;
    }
    this.#index.durable = Math.max(this.#index.durable, this.#index.applied);
  }

  /** Leaves nothing behind that the next open would have to make up for; what fails here is made up for there. */
  async close(): Promise<void> {
    await this.idle();
    // What was rejected and may be there all the same must not come up at the next open.
    if (this.#broken !== undefined && this.#doubtful.length > 0) await this.#mend().catch(() => {});
    if (this.#broken !== undefined || this.damage.length > 0) return;
    try {
      const operations: LogOperation[] = [];
      this.inFlight.takeGarbage(operations);
      if (operations.length > 0) await this.#log.write(operations, false);
      await this.#freshIndex();
      await this.#index.mark();
    } catch {
      // The log has everything that was acknowledged.
    }
  }

  /** Makes the index anew after a write to it has failed. Only as a part of `#working`. */
  async #freshIndex(): Promise<void> {
    if (this.#index.broken) await this.#upkeep('rebuild-index', () => rebuildIndex(this.#log, this.#index));
  }

  /** Work that nobody has asked for: told to who traces it. */
  async #upkeep(what: Upkeep['what'], run: () => Promise<void>, reason?: unknown): Promise<void> {
    const told = { type: 'upkeep', what, store: dirname(this.#log.folder) } as const;
    const plain = (error: unknown) => (error === undefined ? {} : { error: toPlain(error, 'TIDEMARK_WRITE_FAILED') });
    this.#emit({ ...told, phase: 'start', ...plain(reason) });
    let failure: unknown;
    try {
      await run();
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      this.#emit({ ...told, phase: 'end', ...plain(failure) });
    }
  }

  #due(): boolean {
    if (this.inFlight.anyComplete || this.#builder.namings.any) return true;
    const bytes = this.inFlight.queuedBytes;
    return bytes >= SPILL_BYTES || (bytes > 0 && (this.#starved() || this.inFlight.awaited));
  }

  async #work(): Promise<void> {
    try {
      if (faulty('storage.hang')) await new Promise(() => {});
      if (this.#broken !== undefined) await this.#mend();
      // Page tables that a failure has made void are loaded again before anything builds on them.
      for (const session of this.inFlight.active) if (session.table === undefined) await this.#loadTable(session);
      await this.#writeBatch();
    } catch (error) {
      for (const session of this.inFlight.active) for (const pending of session.pendings) pending.committing = false;
      this.inFlight.failAll(error);
      this.#builder.namings.failAll(error);
    }
  }

  async #loadTable(session: Session): Promise<void> {
    if (session.base === undefined) return;
    const { generation } = session;
    try {
      await this.#freshIndex();
      session.table = await loadPageTable(this.#log, session.base, (uid) => this.#index.byUid(uid));
    } catch (error) {
      this.inFlight.fail(session, generation, error);
    }
  }

  async #writeBatch(): Promise<void> {
    const operations: LogOperation[] = [];
    const garbage = this.inFlight.takeGarbage(operations);
    const taken = this.inFlight.takeSegments(BATCH_BYTES, operations);
    let batch: Batch = { committing: [], namings: [] };
    let durable = false;
    let writing: Promise<void>;
    try {
      batch = this.#builder.build(operations, garbage, this.damage);
      if (operations.length === 0) return;
      durable = batch.namings.length > 0 || batch.committing.some(({ pending }) => pending.captured!.sync);
      writing = this.#log.write(operations, durable);
    } catch (error) {
      this.inFlight.addGarbage(garbage);
      for (const { reject } of batch.namings) reject(error);
      throw error;
    } finally {
      // LevelDB has copied the values when `batch()` returns its promise.
      for (const { place, staging } of taken) staging.release(place);
    }
    try {
      await writing;
    } catch (error) {
      this.inFlight.addGarbage(garbage);
      await this.#readBack(error, batch);
      return;
    }
    for (const { pending } of taken) pending.noteWritten();
    await this.#acknowledge(batch, durable);
  }

  async #acknowledge({ committing, namings }: Batch, durable: boolean): Promise<void> {
    if (committing.length + namings.length === 0) return;
    const at = now();
    const headers = committing.map(({ pending, built }) => {
      const { timings } = built.header.checkpoint;
      timings.commitMs = at - pending.encodedAt;
      timings.totalMs = timings.captureMs + (at - pending.captured!.capturedAt);
      return built.header;
    });
    const refs = namings.map(({ ref }) => ref);
    const written = [...headers.map(({ manifest }) => manifest), ...refs.map(({ number }) => number)];
    const durableThrough = durable ? Math.max(this.#index.applied, ...written) : this.#index.durable;
    await this.#updateIndex({ headers, refs }, durableThrough);
    // Nothing is awaited from here on, and until here they counted as committing: a failure of what is behind them cannot overtake them.
    for (const { session, pending, built } of committing) {
      pending.committing = false;
      session.base = built.header;
      session.expectedHead = built.header.checkpoint.id;
      this.inFlight.settled(session, pending);
      const labels = this.#index.names.labelsOf(built.header.checkpoint.id);
      const { olderVersions } = built.table;
      const checkpoint = publicCheckpoint(built.header, durableThrough, labels);
      this.#emit({ type: 'committed', ...pending.ticket, checkpoint, olderVersions });
    }
    for (const { session } of committing) this.inFlight.reportFailure(session);
    for (const { resolve } of namings) resolve();
  }

  /** The index is a cache: when it cannot be written the checkpoint stands, and the index is made up from the log. */
  async #updateIndex(entries: Entries, durableThrough: number): Promise<void> {
    try {
      await this.#freshIndex();
      await this.#index.apply(entries, durableThrough);
      if (this.#index.wantsMark) await this.#index.mark();
    } catch {
      this.#index.note(entries, durableThrough);
    }
  }

  /** After a rejected write: opens the log again and finds out what is there. */
  async #readBack(error: unknown, { committing, namings }: Batch): Promise<void> {
    const failure = storageError(error, 'a checkpoint could not be written');
    this.#broken = failure;
    // Taken before anything is awaited: what is captured from now on has not failed.
    const failed = new Set<Session>();
    for (const session of this.inFlight.active) {
      if (session.pendings.some((pending) => !pending.committing)) failed.add(session);
    }
    let lost = committing;
    try {
      await this.#upkeep('reopen-log', () => this.#log.reopen(), failure);
      // Before recovery, which neither brings nor takes refs: once it has entered one as durable nothing may fail that would delete it.
      const unnamed: Naming[] = [];
      for (const naming of namings) if (!(await this.#log.has(naming.ref.number, Kind.ref))) unnamed.push(naming);
      // It cuts back what is not whole: only what stands afterwards is there.
      await this.#recover();
      let count = 0;
      while (count < committing.length && (await this.#index.byUid(committing[count]!.built.header.checkpoint.uid))) count++;
      lost = committing.slice(count);
      const named = namings.filter((naming) => !unnamed.includes(naming));
      await this.#acknowledge({ committing: committing.slice(0, count), namings: named }, true);
      for (const { reject } of unnamed) reject(failure);
      this.#broken = undefined;
    } catch {
      // It cannot be read back now: nothing is acknowledged, and what may be there must not stay.
      lost = committing.filter(({ pending }) => pending.committing);
      this.#doubtful.push(...lost.flatMap(({ built }) => built.operations.map(({ key }) => parseKey(key))));
      this.#doubtful.push(...namings.map(({ ref }) => ({ number: ref.number, kind: Kind.ref })));
      for (const { reject } of namings) reject(failure);
    }
    for (const { session, pending } of lost) {
      pending.committing = false;
      this.inFlight.discard(session, pending);
    }
    for (const { session } of lost) failed.add(session);
    try {
      if (this.#broken === undefined) for (const session of await this.#checkBases()) failed.add(session);
    } catch {
      // What they build on is not known: it is looked for again before anything else is written.
      this.#broken = failure;
    }
    for (const session of failed) this.inFlight.fail(session, session.generation, failure);
  }

  async #recover(): Promise<void> {
    this.damage = await recover(this.#log, this.#index);
    await this.#builder.namings.refuseLost(async (uid) => (await this.#index.byUid(uid)) !== undefined);
  }

  /** Tries to open the log again before new work is accepted. */
  async #mend(): Promise<void> {
    // Recovery takes extents without a manifest for what a crash has left.
    for (const session of this.inFlight.active) {
      const spilled = session.pendings.some(({ segments }) =>
        segments.some(({ written, extents }) => written && extents.length > 0),
      );
      if (spilled) this.inFlight.fail(session, session.generation, this.#broken);
    }
    let rebased: Session[];
    try {
      await this.#upkeep('reopen-log', () => this.#log.reopen(), this.#broken);
      const operations: LogOperation[] = [];
      for (const { number, kind } of this.#doubtful) {
        if (await this.#log.has(number, kind)) operations.push(deletion(number, kind));
      }
      // Synced before anything else is written: a number or an id must not come up twice.
      if (operations.length > 0) await this.#log.write(operations, true);
      this.#doubtful = [];
      await this.#recover();
      rebased = await this.#checkBases();
      this.#broken = undefined;
    } catch (error) {
      this.#broken = storageError(error, 'the log could not be opened again after a write had failed');
      throw this.#broken;
    }
    for (const session of rebased) {
      const message = `the file system lost what branch ${session.branch} builds on`;
      const hint = 'nothing in memory is lost; the next checkpoint stores all of it';
      this.inFlight.fail(session, session.generation, new TidemarkError('TIDEMARK_WRITE_FAILED', message, { hint }));
    }
  }

  /**
   * After a failed sync the kernel may have dropped pages that it could not write, with relaxed checkpoints in them that were acknowledged
   * (their promise is to survive the process, not the disk). Memory that descends from one of these starts anew.
   */
  async #checkBases(): Promise<Session[]> {
    const rebased: Session[] = [];
    for (const session of this.inFlight.all) {
      session.table = undefined;
      session.expectedHead = this.#index.names.get(session.branch)?.id;
      if (session.base === undefined || (await this.#log.has(session.base.manifest, Kind.manifest))) continue;
      session.base = undefined;
      rebased.push(session);
    }
    return rebased;
  }
}
