import { MessageChannel, type MessagePort, type Worker } from 'node:worker_threads';
import { VERSION_BYTES } from '../chain/version-columns.js';
import { upkeep, warn } from '../diagnostics.js';
import { fromPlain, TidemarkError } from '../errors.js';
import { addon, SEGMENT_STRIDE } from '../kernel/addon.js';
import type { CodecData, EncodeJobs } from './codec-thread.js';
import { type CheckedEngine, checkEngine, type EngineOptions } from './options.js';
import type { Calls, EncodeJob, StorageEvent, ToStorage } from './protocol.js';
import { Staging } from './staging.js';
import { online, stalled, startStorageThread, startThread } from './thread.js';

/** How an engine is doing. */
export interface EngineStats {
  /** Codec threads that are running; they start with the first checkpointer. */
  workers: number;
  /** Staging, in bytes: what it may take, and what is free. */
  stagingBytes: number;
  stagingFreeBytes: number;
  /** Shadows, in bytes: what they may take, and what they do. */
  shadowBytes: number;
  shadowUsedBytes: number;
  /** Open checkpointers. */
  checkpointers: number;
  /** Requests that the storage thread has not answered. */
  pendingCalls: number;
}

/** What the storage thread has to say about one checkpointer. */
export interface SessionListener {
  committed(event: Extract<StorageEvent, { type: 'committed' }>): void;
  failed(event: Extract<StorageEvent, { type: 'failed' }>): void;
  restored(donePages: number, totalPages: number): void;
  /** All pages of a lazy restore are there, or some cannot be had. */
  resident(error: TidemarkError | undefined): void;
  /** The storage thread has ended: nothing will be answered any more. */
  lost(error: TidemarkError): void;
}

/** The part of the shadows' memory that lists of versions may take, one in so many. */
const LISTS_SHARE = 8;

interface Waiting {
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/**
 * The threads and the memory that checkpoints are made with: codec threads, staging, and the storage thread, which owns the databases.
 * Shared by every store and checkpointer that is opened with it; an idle one costs nothing. Belongs to the thread that made it.
 */
export class Engine {
  static #shared: Engine | undefined;
  /** @internal Codec threads, and threads that copy during a capture. */
  readonly workers: number;
  readonly #options: CheckedEngine;
  readonly #segments: number;
  /** What shadows may take: what was asked for, or nothing where that could not be had. */
  #shadowBytes: number;
  #storage: Worker | undefined;
  #codecs: Worker[] = [];
  /** Jobs sent to these codec threads, as an int32 that wraps. */
  #sentJobs = 0;
  #staging: Staging | undefined;
  /** Native, made anew with the codec threads: what they had in hand is lost, and with it the order in which shadows were used. */
  #shadows: number | undefined;
  #starting: Promise<void> | undefined;
  #closed = false;
  /** Storage threads started so far. */
  #incarnation = 0;
  #nextCall = 1;
  /** Operations that keep the process alive. */
  #busy = 0;
  readonly #calls = new Map<number, Waiting>();
  readonly #sessions = new Map<number, SessionListener>();
  readonly #olderOf = new Map<number, number>();
  #olderVersions = 0;
  #attached: ((ring: number) => void) | undefined;

  constructor(options: EngineOptions = {}) {
    this.#options = checkEngine(options);
    this.workers = this.#options.workers;
    this.#shadowBytes = this.#options.shadowBytes;
    this.#segments = Math.max(3, Math.floor(this.#options.stagingBytes / SEGMENT_STRIDE));
  }

  /** The engine that is used when none is named. */
  static get shared(): Engine {
    if (Engine.#shared === undefined || Engine.#shared.#closed) Engine.#shared = new Engine();
    return Engine.#shared;
  }

  /** How it is doing now. */
  stats(): EngineStats {
    return {
      workers: this.#codecs.length,
      stagingBytes: this.#segments * SEGMENT_STRIDE,
      stagingFreeBytes: (this.#staging?.free() ?? this.#segments) * SEGMENT_STRIDE,
      shadowBytes: this.#shadowBytes,
      shadowUsedBytes: this.#shadows === undefined ? 0 : addon().shadowsUsed(this.#shadows),
      checkpointers: this.#sessions.size,
      pendingCalls: this.#calls.size,
    };
  }

  /** Ends its threads. What is open on it fails from then on; close stores and checkpointers first. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#starting?.catch(() => {});
    const storage = this.#storage;
    this.#stopCodecs();
    await storage?.terminate();
  }

  // --- storage thread -----------------------------------------------------------------------------------

  /** @internal Asks the storage thread; starts it when it is not running. */
  async call<K extends keyof Calls>(method: K, ...args: Parameters<Calls[K]>): Promise<ReturnType<Calls[K]>> {
    const storage = this.#startStorage();
    const call = this.#nextCall++;
    this.hold();
    try {
      return (await new Promise((resolve, reject) => {
        this.#calls.set(call, { resolve, reject });
        storage.postMessage({ type: 'call', call, method, args } as ToStorage);
      })) as ReturnType<Calls[K]>;
    } finally {
      this.letGo();
    }
  }

  /** @internal A message without an answer; dropped when the storage thread has ended. */
  tell(message: ToStorage): void {
    this.#storage?.postMessage(message);
  }

  /** @internal */
  listen(session: number, listener: SessionListener): void {
    this.#sessions.set(session, listener);
  }

  /** @internal */
  forget(session: number): void {
    this.#sessions.delete(session);
    this.noteOlderVersions(session, 0);
    this.#olderOf.delete(session);
  }

  /** @internal Work in flight keeps the process alive, an open checkpointer does not. */
  hold(): void {
    if (this.#busy++ === 0) this.#storage?.ref();
  }

  /** @internal */
  letGo(): void {
    if (--this.#busy === 0) this.#storage?.unref();
  }

  #startStorage(): Worker {
    if (this.#closed) throw new TidemarkError('TIDEMARK_CLOSED', 'the engine is closed');
    if (this.#storage !== undefined) return this.#storage;
    const storage = startStorageThread('./storage-thread.js', { firstId: this.#incarnation++ * 2 ** 32 + 1 });
    this.#storage = storage;
    if (this.#busy > 0) storage.ref();
    storage.on('message', (event: StorageEvent) => this.#onEvent(event));
    let cause: unknown;
    storage.on('error', (error) => {
      cause = error;
    });
    storage.on('exit', () => this.#storageEnded(storage, cause));
    return storage;
  }

  #onEvent(event: StorageEvent): void {
    switch (event.type) {
      case 'reply': {
        const waiting = this.#calls.get(event.call);
        this.#calls.delete(event.call);
        if (event.error === undefined) waiting?.resolve(event.value);
        else waiting?.reject(fromPlain(event.error));
        break;
      }
      case 'committed':
        this.#sessions.get(event.session)?.committed(event);
        break;
      case 'failed':
        this.#sessions.get(event.session)?.failed(event);
        break;
      case 'restored':
        this.#sessions.get(event.session)?.restored(event.donePages, event.totalPages);
        break;
      case 'resident':
        this.#sessions.get(event.session)?.resident(event.error === undefined ? undefined : fromPlain(event.error));
        break;
      case 'upkeep':
        upkeep(event);
        break;
      case 'attached':
        this.#attached?.(event.ring);
        break;
    }
  }

  #storageEnded(storage: Worker, cause: unknown): void {
    if (this.#storage !== storage) return;
    this.#storage = undefined;
    this.#stopCodecs();
    const error = this.#closed
      ? new TidemarkError('TIDEMARK_CLOSED', 'the engine was closed')
      : new TidemarkError('TIDEMARK_WRITE_FAILED', 'the storage thread of the engine has ended', {
          ...(cause === undefined ? {} : { cause }),
          hint: 'nothing in memory is lost, and what was acknowledged is in the store: close the checkpointer and the store and open them again',
          retryable: false,
        });
    if (!this.#closed) warn({ name: 'storage-thread-ended', message: error.message, cause });
    const waiting = [...this.#calls.values()];
    const listeners = [...this.#sessions.values()];
    this.#calls.clear();
    this.#sessions.clear();
    this.#olderOf.clear();
    this.#olderVersions = 0;
    for (const { reject } of waiting) reject(error);
    for (const listener of listeners) listener.lost(error);
  }

  // --- codec threads and staging ------------------------------------------------------------------------

  /** @internal Resolves when codec threads and staging are there. */
  async ready(): Promise<void> {
    while (this.#staging === undefined) {
      this.#starting ??= this.#startCodecs().finally(() => {
        this.#starting = undefined;
      });
      await this.#starting;
    }
  }

  /** @internal @throws `TIDEMARK_STALLED` while the codec threads are being replaced */
  get staging(): Staging {
    if (this.#staging === undefined) {
      if (this.#closed) throw new TidemarkError('TIDEMARK_CLOSED', 'the engine is closed');
      // They may have failed to start: whoever tries again finds them started again.
      this.ready().catch(() => {});
      throw new TidemarkError('TIDEMARK_STALLED', 'the codec threads of the engine have ended and are being replaced', {
        hint: 'try again',
      });
    }
    return this.#staging;
  }

  /** @internal The number of the shadows that codec threads use now. */
  get shadows(): number {
    // Checked first: it starts what has ended.
    void this.staging;
    return this.#shadows!;
  }

  /** @internal How many deltas a page may have. None while the lists of versions take their share of the shadows' memory: pages that are stored full make them shorter. */
  get maxDeltas(): number {
    return this.#olderVersions * VERSION_BYTES < this.#shadowBytes / LISTS_SHARE ? this.#options.maxDeltas : 0;
  }

  /** @internal The page tables of a checkpointer keep so many versions below the newest ones. */
  noteOlderVersions(session: number, count: number): void {
    this.#olderVersions += count - (this.#olderOf.get(session) ?? 0);
    this.#olderOf.set(session, count);
  }

  /** @internal Whether there is any room for shadows. */
  get hasShadows(): boolean {
    return this.#options.shadowBytes > 0;
  }

  /** @internal At least one free segment; where there is none it tells the storage thread, then waits. @throws `TIDEMARK_STALLED` */
  acquire(want: number): Int32Array {
    const { staging } = this;
    const free = this.#tryAcquire(staging, want);
    if (free !== undefined) return free;
    // The storage thread may hold the last segments, waiting for more to write with them: it must be told before this thread waits.
    this.tell({ type: 'starved' });
    try {
      return staging.acquire(want, this.#options.stallMs);
    } catch (error) {
      throw stalled(error, this.#options.stallMs);
    }
  }

  /** @internal Free segments, if there are any. @throws `TIDEMARK_STALLED` when there are no codec threads */
  tryAcquire(want: number): Int32Array | undefined {
    return this.#tryAcquire(this.staging, want);
  }

  #tryAcquire(staging: Staging, want: number): Int32Array | undefined {
    try {
      return staging.tryAcquire(want);
    } catch (error) {
      throw stalled(error, this.#options.stallMs);
    }
  }

  /** @internal For who waits for staging without blocking, since `started`. @throws `TIDEMARK_STALLED` */
  checkStall(started: number): void {
    if (performance.now() - started > this.#options.stallMs) throw stalled({ code: 'ERR_STALLED' }, this.#options.stallMs);
  }

  /**
   * @internal Every codec thread is told of all jobs, and who comes first takes one: none is idle while another has a row of them.
   * @throws when the message cannot be made; then none was sent
   */
  encode(jobs: readonly EncodeJob[]): void {
    const message: EncodeJobs = { first: this.#sentJobs, jobs };
    const [first, ...others] = this.#codecs;
    first!.postMessage(message);
    this.#sentJobs = (this.#sentJobs + jobs.length) | 0;
    for (const codec of others) {
      try {
        codec.postMessage(message);
      } catch {
        // There is no memory for another copy. The first thread has all jobs there ever were, so each is done.
      }
    }
  }

  async #startCodecs(): Promise<void> {
    const storage = this.#startStorage();
    const staging = Staging.create(this.#segments);
    const shadows = this.#createShadows(staging);
    const taken = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
    const ports: MessagePort[] = [];
    const codecs: Worker[] = [];
    let fail = (_what: string): void => {};
    const storageEnded = () => fail('the storage thread');
    const failed = new Promise<never>((_, reject) => {
      fail = (what: string) => reject(new TidemarkError('TIDEMARK_STALLED', `${what} ended while the engine was starting`));
      storage.once('exit', storageEnded);
      for (let k = 0; k < this.workers; k++) {
        const { port1, port2 } = new MessageChannel();
        const data: CodecData = { staging: staging.handle, shadows, taken, storage: port2 };
        const codec = startThread('./codec-thread.js', data, [port2]);
        codec.once('error', reject);
        codec.once('exit', () => {
          fail('a codec thread');
          this.#codecEnded(staging);
        });
        codecs.push(codec);
        ports.push(port1);
      }
    });
    this.hold();
    try {
      // A thread that has not joined the ring yet would not be missed by who waits for staging.
      await Promise.race([failed, Promise.all(codecs.map(online))]);
      const attached = new Promise<void>((resolve) => {
        this.#attached = (ring) => ring === staging.handle.ring && resolve();
      });
      const { ring, memory } = staging.handle;
      storage.postMessage({ type: 'codecs', ring, staging: memory, ports } satisfies ToStorage, ports);
      await Promise.race([failed, attached]);
    } catch (error) {
      for (const codec of codecs) void codec.terminate();
      for (const port of ports) port.close();
      staging.close();
      addon().shadowsClose(shadows);
      throw error;
    } finally {
      this.letGo();
      // Who ends later is told to #codecEnded; nobody waits here any more.
      this.#attached = undefined;
      failed.catch(() => {});
      storage.off('exit', storageEnded);
    }
    this.#codecs = codecs;
    this.#sentJobs = 0;
    this.#staging = staging;
    this.#shadows = shadows;
  }

  #createShadows(staging: Staging): number {
    const { shadowBytes, shadowsAsked } = this.#options;
    try {
      const shadows = addon().shadowsCreate(shadowBytes - Math.floor(shadowBytes / LISTS_SHARE));
      this.#shadowBytes = shadowBytes;
      return shadows;
    } catch (cause) {
      const message = `maxShadowBytes: ${shadowBytes} bytes of address space cannot be had`;
      if (shadowsAsked) {
        staging.close();
        throw new RangeError(`${message}, make it smaller`, { cause });
      }
      this.#shadowBytes = 0;
      warn({ name: 'no-shadows', message: `${message}: pages are stored whole`, cause });
      return addon().shadowsCreate(0);
    }
  }

  /** A codec thread has ended: what it had in hand is lost, so the storage thread fails what was in flight, and all of them are replaced. */
  #codecEnded(staging: Staging): void {
    if (this.#staging !== staging) return;
    warn({
      name: 'codec-thread-ended',
      message: 'a codec thread has ended: what was in flight fails, and the threads are replaced',
    });
    this.#stopCodecs();
    this.tell({ type: 'codecs-ended' });
    if (!this.#closed && this.#sessions.size > 0) this.ready().catch(() => {});
  }

  #stopCodecs(): void {
    const codecs = this.#codecs;
    this.#staging?.close();
    this.#staging = undefined;
    if (this.#shadows !== undefined) addon().shadowsClose(this.#shadows);
    this.#shadows = undefined;
    this.#codecs = [];
    for (const codec of codecs) void codec.terminate();
  }
}
