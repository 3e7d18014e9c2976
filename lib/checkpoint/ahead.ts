import { setImmediate, setTimeout } from 'node:timers/promises';
import { countPages, type Runs, union } from '../chain/runs.js';
import { EncodeQueue } from '../engine/encode-queue.js';
import type { Engine } from '../engine/engine.js';
import type { Ticket } from '../engine/protocol.js';
import { ShadowMode } from '../engine/shadows.js';
import { PAGE_SIZE } from '../kernel/addon.js';
import type { Region } from '../region/region.js';
import { giveBack, type Scanned, SliceCopy } from './capture.js';
import type { Member } from './members.js';

/** Segments copied between two turns of the event loop: a few milliseconds. */
const SEGMENTS_A_TURN = 8;
/** Another round helps only while it finds much less than the one before: a writer that is as fast as we are is not caught up with. */
const MAX_ROUNDS = 8;
const FEW_PAGES = 256;
/** So much is taken ahead of one checkpoint, as a multiple of its regions: what is superseded stays in the log and in memory until that commits. */
const MOST_TAKEN = 2;
const NO_RUNS: Runs = new Uint32Array(0);
/** Milliseconds between two looks for free staging. */
const LOOK_AGAIN_MS = 1;

/**
 * What was taken of a checkpoint before it is captured: `precopy()`. A debt until that checkpoint commits: the dirty bits of these pages exist only here.
 */
export class Ahead {
  /** The checkpoint that it belongs to. */
  readonly ticket: Ticket;
  readonly #engine: Engine;
  readonly #level: number;
  /** What was scanned and re-armed. */
  readonly #scanned = new Map<Region, Runs>();
  #taken = 0;
  /** Extents of each region so far, by its slot. */
  readonly #ordinals = new Map<number, number>();
  /** Regions of which everything was taken, by their slots. */
  readonly #whole = new Set<number>();
  /** The part of a round that is not copied yet. */
  #current: { member: Member; copy: SliceCopy } | undefined;
  #ended = false;

  constructor(engine: Engine, ticket: Ticket, level: number) {
    this.#engine = engine;
    this.ticket = ticket;
    this.#level = level;
  }

  /** The number of the next extent of a region. */
  ordinal(member: Member): number {
    return this.#ordinals.get(member.slot) ?? 0;
  }

  /** Everything that was in the region is taken, or given back: from here on only what the kernel reports has to be. */
  tookWhole(member: Member): boolean {
    return this.#whole.has(member.slot);
  }

  get scanned(): readonly Scanned[] {
    return [...this.#scanned].map(([region, runs]) => ({ region, runs }));
  }

  /** Nothing was written when it looked, and nothing had to be taken whole. */
  get isEmpty(): boolean {
    return this.#scanned.size === 0 && this.#whole.size === 0;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Takes rounds of what is dirty until another one would not help, or somebody ends it. One at a time. */
  async run(members: readonly Member[], isWhole: (member: Member) => boolean, signal: AbortSignal | undefined): Promise<void> {
    this.#ended = false;
    let before = Number.POSITIVE_INFINITY;
    const most = MOST_TAKEN * members.reduce((sum, { region }) => sum + region.byteLength / PAGE_SIZE, 0);
    for (let round = 0; round < MAX_ROUNDS && !this.#ended && this.#taken < most; round++) {
      let pages = 0;
      for (const member of members) {
        pages += await this.#take(member, isWhole(member) && !this.tookWhole(member), signal);
        if (this.#ended) return;
      }
      if (pages <= FEW_PAGES || pages > before / 2) break;
      before = pages;
    }
    await aborting(this.#written(), signal);
  }

  async #take(member: Member, whole: boolean, signal: AbortSignal | undefined): Promise<number> {
    const { region, slot } = member;
    const runs = region.scan(true);
    if (runs.length > 0) this.#scanned.set(region, union(this.#scanned.get(region) ?? NO_RUNS, runs));
    if (whole) this.#whole.add(slot);
    const taken = region.fetched(whole ? region.content() : runs, whole);
    const job = { ...this.ticket, slot, ordinal: this.ordinal(member), level: this.#level };
    const shadows = member.shadow?.slice(ShadowMode.ahead, this.ticket.sequence);
    const queue = new EncodeQueue(this.#engine);
    const copy = new SliceCopy(this.#engine, queue, region, taken, job, shadows);
    this.#current = { member, copy };
    this.#taken += countPages(taken);
    while (!copy.done) {
      // Nothing is awaited between acquiring and copying: a capture that comes in between would wait for these segments, and what it has given back
      // must not be copied.
      const segments = this.#engine.tryAcquire(Math.min(copy.segmentsLeft, SEGMENTS_A_TURN));
      if (segments === undefined) {
        await this.#anyFree(signal);
        if (this.#ended) return 0;
        continue;
      }
      copy.copy(segments);
      try {
        queue.flush();
      } catch (error) {
        // Jobs were counted and not sent: a new generation waits for none of them.
        member.shadow?.fail(0);
        throw error;
      }
      this.#send();
      await setImmediate();
      if (this.#ended) return 0;
      signal?.throwIfAborted();
    }
    this.#current = undefined;
    return countPages(taken);
  }

  /** Resolves when segments are free, or it was ended: it looks again and again. */
  async #anyFree(signal: AbortSignal | undefined): Promise<void> {
    const started = performance.now();
    let asked = false;
    let failure: unknown;
    for (;;) {
      // What was taken ahead waits for a batch that is worth writing: it must not wait for what there is no staging for.
      if (!asked) {
        asked = true;
        // Nor must what others have in staging, in whatever store.
        this.#engine.tell({ type: 'starved' });
        this.#written()
          .catch((error) => {
            failure = error;
          })
          .finally(() => {
            asked = false;
          });
      }
      await setTimeout(LOOK_AGAIN_MS);
      if (this.#ended) return;
      signal?.throwIfAborted();
      if (failure !== undefined) throw failure;
      if (this.#engine.staging.free() > 0) return;
      this.#engine.checkStall(started);
    }
  }

  /** What was copied since the last time goes to the storage thread, as a slice. */
  #send(): void {
    const { member, copy } = this.#current!;
    const slice = copy.take();
    this.#ordinals.set(member.slot, this.ordinal(member) + slice.segments.length);
    this.#engine.tell({ type: 'precopied', ...this.ticket, slot: member.slot, slice });
  }

  /** Resolves when what was taken is in the log: then its segments are free. */
  async #written(): Promise<void> {
    await this.#engine.call('precopied', this.ticket.session);
  }

  /** No more is taken. What the round has scanned and not copied is given back, so that whoever scans next finds it. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#current !== undefined) this.#current.member.region.giveBack(this.#current.copy.remaining());
    this.#current = undefined;
  }

  /** Ends it and gives everything back: what it has stored is of no use. */
  drop(): void {
    this.end();
    giveBack(this.scanned);
  }
}

/** What a promise says, or the reason of the signal if that is aborted first. */
async function aborting(promise: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return promise;
  let abort = (): void => {};
  try {
    await Promise.race([
      promise,
      new Promise<never>((_, reject) => {
        abort = () => reject(signal.reason);
        signal.addEventListener('abort', abort);
      }),
    ]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
