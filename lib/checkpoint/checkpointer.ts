import type { Checkpoint } from '../chain/header.js';
import { CheckpointStore } from '../chain/store.js';
import type { Target } from '../chain/target.js';
import { traced, warn } from '../diagnostics.js';
import type { Engine } from '../engine/engine.js';
import { RegionShadow } from '../engine/shadows.js';
import { abortedBy, TidemarkError } from '../errors.js';
import { isName, isOptions, isSignal, option } from '../options.js';
import { Region } from '../region/region.js';
import { endAtOnce, type Residency } from '../restore/lazy.js';
import { type Restoration, restoreRegions } from '../restore/restore.js';
import { WORKING_SET } from '../restore/working-set.js';
import { commonLineage, type Member, Members } from './members.js';
import {
  type Checked,
  type CheckedRestore,
  type CheckpointerOptions,
  type CheckpointOptions,
  checkCheckpoint,
  checkOptions,
  checkRestore,
  type PrecopyOptions,
  type RestoreOptions,
} from './options.js';
import { Pipeline } from './pipeline.js';
import type { CheckpointerStats } from './tally.js';

/**
 * Takes checkpoints of regions and brings them back. Its promises settle in the order of the calls; what is in flight keeps the process
 * alive, an open checkpointer does not. Belongs to the thread that opened it.
 */
export class Checkpointer<N extends string = string> implements AsyncDisposable {
  readonly #store: CheckpointStore;
  readonly #ownsStore: boolean;
  readonly #engine: Engine;
  readonly #session: number;
  readonly #options: Checked<N>;
  readonly #members: Members;
  readonly #pipeline: Pipeline;
  /** Resolves when everything called so far has settled. */
  #settled: Promise<unknown> = Promise.resolve();
  /** Restores that were called and have not settled. */
  #restoring = 0;
  /** Settles when the pages of the lazy restore that was last called are there, or some cannot be had. */
  #resident: Promise<void> = Promise.resolve();
  /** Of the last restore. */
  #residency: Residency | undefined;
  #closing: Promise<void> | undefined;

  private constructor(
    store: CheckpointStore,
    ownsStore: boolean,
    session: number,
    checked: Checked<N>,
    head: Checkpoint | undefined,
    base: Checkpoint | undefined,
  ) {
    this.#store = store;
    this.#ownsStore = ownsStore;
    this.#engine = store.engine;
    this.#session = session;
    this.#options = checked;
    const { branch, level, startOver } = checked;
    const engine = this.#engine;
    const hasShadows = checked.deltas && engine.hasShadows;
    this.#members = new Members(this, () => (hasShadows ? new RegionShadow(engine) : undefined));
    this.#pipeline = new Pipeline(this.#members, { engine: this.#engine, session, branch, level, startOver, head, base });
    this.#engine.listen(session, this.#pipeline);
  }

  /**
   * @param store a folder (made when it is missing, with those above it), or a store that is open
   * @throws {TidemarkError} as `CheckpointStore.open`, and `TIDEMARK_BRANCH_BUSY`, `TIDEMARK_REGION_BUSY`, `TIDEMARK_NAME_TAKEN`,
   * `TIDEMARK_CHAIN_BROKEN` or `TIDEMARK_DAMAGED` when the head of the branch cannot be read
   */
  static async open<N extends string>(
    store: string | CheckpointStore,
    options: CheckpointerOptions<N>,
  ): Promise<Checkpointer<N>> {
    const checked = checkOptions(store, options);
    const owner = {};
    const claimed: Region[] = [];
    let opened: CheckpointStore | undefined;
    let checkpointer: Checkpointer<N> | undefined;
    try {
      for (const region of checked.regions.values()) {
        region.claim(owner);
        claimed.push(region);
      }
      opened =
        typeof store === 'string' ? await CheckpointStore.open(store, { createIfMissing: true, ...checked.engine }) : store;
      await opened.engine.ready();
      const names = [...checked.regions.keys()];
      const answer = await opened.engine.call('openSession', opened.id, checked.branch, commonLineage(checked.regions), names);
      checkpointer = new Checkpointer(
        opened,
        typeof store === 'string',
        answer.session,
        checked,
        answer.head ?? undefined,
        answer.base ?? undefined,
      );
      opened.adopt(checkpointer);
      checkpointer.#members.take(checked.regions, owner);
      return checkpointer;
    } catch (error) {
      await checkpointer?.close().catch(() => {});
      if (typeof store === 'string') await opened?.close().catch(() => {});
      for (const region of claimed) region.release(owner);
      throw error;
    }
  }

  /** The newest checkpoint of the branch. */
  get head(): Checkpoint | undefined {
    return this.#pipeline.head;
  }

  /** The newest checkpoint that this memory descends from. */
  get base(): Checkpoint | undefined {
    return this.#pipeline.base;
  }

  /**
   * Stores the memory as it is at this call: when the promise is returned the capture is done, and the memory may be written again. Other
   * threads that write must be held still around the call, not around the await.
   * @throws {TidemarkError} (rejects) `TIDEMARK_NOT_RESTORED`, `TIDEMARK_REGION_TORN`, `TIDEMARK_REGION_BUSY` (a restore is running), `TIDEMARK_NAME_TAKEN`, `TIDEMARK_BRANCH_BUSY`, `TIDEMARK_PERMISSION`, `TIDEMARK_CHAIN_BROKEN`,
   * `TIDEMARK_NO_SPACE`, `TIDEMARK_WRITE_FAILED`, `TIDEMARK_STALLED`, `TIDEMARK_TRACKING_LOST`, `TIDEMARK_DAMAGED`, `TIDEMARK_ABORTED`, `TIDEMARK_CLOSED`; nothing is lost: what it
   * would have stored is in the next one
   */
  checkpoint(options: CheckpointOptions<N> = {}): Promise<Checkpoint> {
    return this.#inOrder(
      traced('checkpoint', this.#context(), () => this.#atOnce(() => this.#pipeline.begin(this.#begin(options)))),
    );
  }

  /**
   * Stores ahead what is dirty now, in rounds until another one would not help, so that the next `checkpoint()` finds little and blocks the caller for
   * a short time only. Describes no moment by itself. A `checkpoint()`, `restore()`, `attach()`, `detach()` or `close()` called meanwhile ends it.
   * @throws {TidemarkError} (rejects) as `checkpoint`
   */
  precopy(options: PrecopyOptions = {}): Promise<void> {
    return this.#inOrder(
      traced('precopy', this.#context(), () =>
        this.#atOnce(async () => {
          isOptions('precopy', options, ['signal']);
          const signal = option(options.signal, isSignal);
          this.#usable(this.#closedError());
          this.#notRestoring();
          await this.#pipeline.precopy(signal);
        }),
      ),
    );
  }

  /**
   * Everything committed so far is durable when it resolves; the newest checkpoint of the branch.
   * @throws {TidemarkError} (rejects) `TIDEMARK_WRITE_FAILED`, `TIDEMARK_NO_SPACE`, `TIDEMARK_CLOSED`
   */
  flush(): Promise<Checkpoint | undefined> {
    const closed = this.#closedError();
    return this.#inOrder(
      this.#settled.then(() => {
        this.#usable(closed);
        return this.#pipeline.flush();
      }),
    );
  }

  /**
   * Makes the memory what it was at a checkpoint; by default the newest of the branch. Memory that descends from a checkpoint of the store is
   * changed only where it differs, in place. Everything is read and checked before the first byte is changed.
   * Nothing else may write to the regions until it resolves.
   * @throws {TidemarkError} (rejects) `TIDEMARK_NOT_FOUND`, `TIDEMARK_REGION_MISMATCH`, `TIDEMARK_FINGERPRINT`, `TIDEMARK_DAMAGED`, `TIDEMARK_CHAIN_BROKEN`, `TIDEMARK_STALLED`, `TIDEMARK_TRACKING_LOST`,
   * `TIDEMARK_ABORTED`, `TIDEMARK_CLOSED`; the memory is as it was (but for what grew: it is longer, and zero there), or the error is `TIDEMARK_REGION_TORN`
   */
  restore(target?: Target, options: RestoreOptions<N> = {}): Promise<Restoration> {
    return this.#inOrder(
      traced('restore', this.#context(), () =>
        this.#atOnce(() => {
          const checked = checkRestore(target, options, this.#members.all);
          this.#usable(this.#closedError());
          // From now on no capture: what it re-arms would be missing from the plan of the restore.
          this.#restoring++;
          this.#pipeline.endAhead();
          return this.#settled
            .then(() => this.#restore(checked))
            .finally(() => {
              this.#restoring--;
            });
        }),
      ),
    );
  }

  /**
   * From the next checkpoint on the region is part of it, stored whole the first time (unless its memory descends from `base` under this name).
   * @throws {TidemarkError} `TIDEMARK_REGION_BUSY` (another checkpointer has it, or a restore is running), `TIDEMARK_CLOSED`
   */
  attach(name: N, region: Region): void {
    this.#usable(this.#closedError());
    isName('region name', name);
    if (!(region instanceof Region)) throw new TypeError('region must be a Region');
    this.#notRestoring();
    this.#pipeline.dropAhead();
    this.#members.attach(name, region, this.#pipeline.inFlight === 0 ? this.base : undefined);
  }

  /**
   * From the next checkpoint on the region is not part of it; checkpoints in flight are not touched. The region is free at once.
   * @throws {TidemarkError} `TIDEMARK_NOT_FOUND`, `TIDEMARK_REGION_BUSY` (a restore is running), `TIDEMARK_CLOSED`
   */
  detach(name: N): Region {
    this.#usable(this.#closedError());
    isName('region name', name);
    this.#members.need(name);
    this.#notRestoring();
    this.#pipeline.dropAhead();
    const { region } = this.#members.detach(name);
    // What is in flight has its dirty pages.
    if (this.#pipeline.inFlight > 0) region.lineage = undefined;
    return region;
  }

  /** What it has done since it was opened. */
  stats(): CheckpointerStats {
    return this.#pipeline.tally.read(this.#pipeline.inFlight);
  }

  /** Waits for what is in flight, then gives the regions free, and the store if it was opened by path. Idempotent. */
  close(): Promise<void> {
    if (this.#closing === undefined) {
      this.#pipeline.endAhead();
      this.#closing = this.#close();
    }
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await this.#settled;
    await this.#resident;
    try {
      this.#pipeline.dropAhead();
      if (!this.#pipeline.storageEnded) await this.#engine.call('closeSession', this.#session).catch(ignoreClosed);
    } finally {
      this.#engine.forget(this.#session);
      this.#members.releaseAll();
      this.#store.disown(this);
      if (this.#ownsStore) await this.#store.close();
    }
  }

  /** Lets what is called later settle later. */
  #inOrder<T>(result: Promise<T>): Promise<T> {
    // While it waits for what was called before, nobody else handles it.
    result.catch(() => {});
    const ordered = this.#settled.then(() => result);
    this.#settled = ordered.catch(() => {});
    // A promise of its own: a rejection that its owner does not handle must not pass unseen.
    return ordered.then((value) => value);
  }

  /** For calls that run later: what was called before `close()` is still done. */
  #closedError(): TidemarkError | undefined {
    return this.#closing === undefined ? undefined : new TidemarkError('TIDEMARK_CLOSED', 'the checkpointer is closed');
  }

  #usable(closed: TidemarkError | undefined): void {
    if (closed !== undefined) throw closed;
    if (this.#pipeline.lostBy !== undefined) throw this.#pipeline.lostBy;
  }

  #notRestoring(): void {
    if (this.#restoring > 0) throw new TidemarkError('TIDEMARK_REGION_BUSY', 'a restore is running', { hint: 'await it first' });
  }

  /** What happens in the call; what it throws rejects, after what was called before has settled. */
  #atOnce<T>(call: () => Promise<T>): Promise<T> {
    try {
      return call();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** What tracing channels are told. */
  #context(): { branch: string; store: string } {
    return { branch: this.#options.branch, store: this.#store.path };
  }

  #begin(options: CheckpointOptions<N>): ReturnType<typeof checkCheckpoint> {
    // Runs code of the caller (getters, toJSON), which may close it.
    const checked = checkCheckpoint(options, this.#options, this.#members.all);
    this.#usable(this.#closedError());
    this.#notRestoring();
    const touched = this.#options.workingSet ? this.#residency?.workingSet() : undefined;
    if (touched !== undefined) checked.attachments.set(WORKING_SET, touched);
    return checked;
  }

  async #restore({ target, asked, lazy, userFaults, signal, onProgress }: CheckedRestore): Promise<Restoration> {
    const pipeline = this.#pipeline;
    const members = asked ?? this.#members.all;
    // What is still to be filled is filled first, also by another checkpointer that had the region: it would come over what is restored now.
    await Promise.all([this.#resident, ...members.map(({ region }) => region.filling)]);
    this.#usable(undefined);
    pipeline.onProgress = onProgress === undefined ? undefined : (donePages, totalPages) => onProgress({ donePages, totalPages });
    this.#engine.hold();
    const others = this.#members.all.filter((member) => !members.includes(member));
    const { base } = pipeline;
    let touched = false;
    const resident = lazy ? this.#listenResident() : undefined;
    let filling = false;
    try {
      if (signal?.aborted) throw abortedBy(signal, 'the restore');
      // Its pages must be found by the scan.
      pipeline.dropAhead();
      await this.#engine.ready();
      const restoration = await restoreRegions({
        engine: this.#engine,
        store: this.#store.id,
        session: this.#session,
        target,
        regions: new Map(
          members.map(({ name, region, fresh, shadow }) => [
            name,
            { region, known: base !== undefined && !fresh && !region.torn, shadow },
          ]),
        ),
        partial: asked !== undefined,
        base: base?.uid ?? null,
        fingerprint: this.#options.fingerprint,
        signal,
        lazy: resident === undefined ? undefined : { request: { userFaults, noted: this.#options.workingSet }, resident },
        onRestored: (residency) => {
          this.#residency = residency;
        },
        onTouched: () => {
          touched = true;
          for (const member of members) {
            // What it holds is of other memory.
            if (member.fresh || base === undefined || member.region.torn) member.shadow?.fail(0);
            member.fresh = true;
          }
          this.#members.descend(members, undefined);
          if (others.every((member) => member.fresh)) pipeline.base = undefined;
        },
      });
      pipeline.base = restoration.checkpoint;
      for (const member of members) member.fresh = false;
      for (const member of others) member.fresh = true;
      this.#members.descend(members, restoration.checkpoint);
      this.#members.descend(others, undefined);
      filling = lazy;
      if (lazy) this.#keepFilling(restoration.done, members);
      return restoration;
    } catch (error) {
      // What was empty and is again is no reason to forget what the others descend from.
      if (touched && !members.some(({ region }) => region.torn)) pipeline.base = base;
      if (touched) for (const { shadow } of members) shadow?.fail(0);
      throw signal?.aborted && (error as TidemarkError).code !== 'TIDEMARK_REGION_TORN'
        ? abortedBy(signal, 'the restore')
        : error;
    } finally {
      this.#engine.letGo();
      if (!filling) {
        pipeline.onProgress = undefined;
        pipeline.onResident = undefined;
      }
    }
  }

  /** Settles when the storage thread says that all pages are there, or why not. */
  #listenResident(): Promise<void> {
    const resident = new Promise<void>((resolve, reject) => {
      this.#pipeline.onResident = (error) => (error === undefined ? resolve() : reject(error));
    });
    // The restore may fail before anybody has it.
    resident.catch(() => {});
    return resident;
  }

  /** Pages that are filled keep the process alive, and what is called next waits for them where it must. */
  #keepFilling(done: Promise<void>, members: readonly Member[]): void {
    const pipeline = this.#pipeline;
    endAtOnce();
    this.#engine.hold();
    this.#resident = done
      .catch((cause: TidemarkError) => warn({ name: 'pages-lost', message: cause.message, cause }))
      .finally(() => {
        this.#engine.letGo();
        pipeline.onProgress = undefined;
        pipeline.onResident = undefined;
      });
    for (const { region } of members) region.filling = this.#resident;
  }
}

function ignoreClosed(error: TidemarkError): void {
  if (error.code !== 'TIDEMARK_CLOSED' && error.code !== 'TIDEMARK_WRITE_FAILED') throw error;
}
