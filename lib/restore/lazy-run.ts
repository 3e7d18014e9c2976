import { setImmediate, setTimeout } from 'node:timers/promises';
import { pageList, readPagesNow } from '../chain/assembly.js';
import { damaged } from '../chain/damage.js';
import type { Log } from '../chain/log.js';
import type { StoredAttachment } from '../chain/manifest.js';
import type { PageTable } from '../chain/page-table.js';
import { readAttachment } from '../chain/read-pages.js';
import { Kind } from '../chain/record.js';
import { countPages, toPages } from '../chain/runs.js';
import type { CodecPorts, Lent } from '../engine/codec-ports.js';
import type { LazyBegun, RestoreRequest } from '../engine/protocol.js';
import { TidemarkError } from '../errors.js';
import { fault, faulty } from '../faults.js';
import { addon } from '../kernel/addon.js';
import { type Filling, FillOrder } from './fill-order.js';
import { frameOf, missingOf, slicePlan } from './lazy-plan.js';
import { faultsOf, isClosed, type LazyRegion, missingPages, residence, stillMissing, whileOpen } from './lazy-region.js';
import { isNoMemory, noMemory } from './no-memory.js';
import { PlanRunner } from './plan-runner.js';
import { fillPages } from './window.js';
import { decodeWorkingSet, WORKING_SET, type WorkingSet } from './working-set.js';

/** Payloads of extents that are kept, for faults on their neighbours. */
const PAYLOADS_KEPT = 8;
/** For the tests. */
const LATE_MS = 10;

export interface LazyWatch {
  onProgress(donePages: number, totalPages: number): void;
}

/**
 * The storage thread's part of a lazy restore. A fault is answered here and at once: nothing on that way may need another thread, libuv's pool, or `Atomics.wait` and
 * `notify`, for whoever has these may be who waits for the page. The codec threads fill the rest.
 */
export class LazyRun {
  readonly #log: Log;
  readonly #codecs: CodecPorts;
  readonly #watch: LazyWatch;
  readonly #runner: PlanRunner;
  readonly #regions: LazyRegion[] = [];
  readonly #order: FillOrder;
  readonly #payloads = new Map<number, Uint8Array>();
  #reserve: Lent | undefined;
  #total = 0;
  #ended = false;
  /** Why a page could not be restored: the first one, or the first that is damaged. */
  #failure: unknown;

  /** @param noted what is touched first is to be noted */
  constructor(log: Log, codecs: CodecPorts, noted: boolean, watch: LazyWatch) {
    this.#log = log;
    this.#codecs = codecs;
    this.#watch = watch;
    this.#order = new FillOrder(this.#regions, noted);
    this.#runner = new PlanRunner({ log, codecs, checkAborted: () => this.#checkEnded(), reserve: () => this.#reserve });
  }

  /**
   * Everything that must change is dropped and missing when it resolves. What fails before the first region has become lazy has changed nothing but zeros.
   * @param base the page tables of the checkpoint that the memory descends from, when it does
   */
  async begin(request: RestoreRequest, target: PageTable, base: PageTable | undefined, userFaults: boolean): Promise<LazyBegun> {
    const plans = request.regions.map((region) => missingOf(region, target, base));
    const expected = await this.#workingSet(target.attachments);
    // Before the log is pinned for a slice: what is in staging may wait for the log to be reopened.
    if (target.olderVersions > 0) this.#reserve = await this.#codecs.reserve(() => this.#checkEnded());
    let zeroedPages = 0;
    for (const { region, wanted, missing, zeros } of plans) {
      const { native, shadow } = region;
      addon().regionZero(native, zeros);
      if (shadow !== null) {
        addon().shadowForget(shadow.shadows, shadow.table, zeros);
        if (region.known) addon().shadowForget(shadow.shadows, shadow.table, missing);
      }
      fault('lazy.begin');
      const lazy = addon().regionBecomeLazy(native, missing, userFaults, () => this.#serve(lazy));
      const left = countPages(missing);
      this.#regions.push({ request: { ...region, lazy }, wanted, lazy, left, poisoned: [] });
      this.#total += left;
      zeroedPages += countPages(zeros);
    }
    for (const region of this.#regions) {
      const pages = expected.get(region.wanted.name);
      if (pages !== undefined) this.#order.expect(region, pages);
    }
    const lazy = Object.fromEntries(this.#regions.map((region) => [region.wanted.name, region.lazy]));
    return { filledPages: this.#total, zeroedPages, lazy };
  }

  /** Fills what nobody asks for. @throws what names the pages that could not be restored, when all others are there */
  async run(): Promise<void> {
    try {
      this.#warmUp();
      for (let work = await this.#order.next(); work !== undefined; work = await this.#order.next()) {
        await this.#fillSlice(work);
        this.#watch.onProgress(this.#total - this.#missing(), this.#total);
      }
      this.#checkEnded();
    } finally {
      this.end();
    }
    const lost = this.#regions.filter(({ poisoned }) => poisoned.length > 0);
    if (lost.length === 0) {
      this.#checkTracked();
      this.#checkOpen();
      return;
    }
    const pages = lost.map(({ wanted, poisoned }) => pageList(wanted.name, Uint32Array.from(poisoned)));
    const message = `${pages.join('; ')}: could not be restored, whoever touches them gets SIGBUS`;
    throw isNoMemory(this.#failure) ? noMemory(message, this.#failure) : damaged(message, this.#failure);
  }

  #checkOpen(): void {
    for (const { lazy, left, wanted } of this.#regions) {
      if (left === 0 || residence(lazy) !== undefined) continue;
      throw new TidemarkError('TIDEMARK_CLOSED', `region ${wanted.name} was closed while pages of it were missing`, {
        hint: 'await `done` before you close it',
      });
    }
  }

  /** What was missing where the memory is not the region's any more, or not tracked, is not there either. */
  #checkTracked(): void {
    for (const { request, wanted } of this.#regions) {
      const lost = whileOpen(() => addon().regionPoisoned(request.native, false)) ?? new Uint32Array(0);
      if (lost.length === 0) continue;
      throw new TidemarkError(
        'TIDEMARK_TRACKING_LOST',
        `${pageList(wanted.name, toPages(lost))}: the kernel did not track the memory any more while they were missing`,
        {
          hint: 'these pages are lost in memory, not in the store: restore a checkpoint',
        },
      );
    }
  }

  /** Resolves when these pages are there, or cannot be had: they are poisoned then. */
  ensure(name: string, first: number, count: number): Promise<void> {
    const region = this.#regions.find(({ request }) => request.name === name);
    return region === undefined ? Promise.resolve() : this.#order.ask(region, first, first + count);
  }

  /** What is missing is poisoned. Idempotent. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const { lazy } of this.#regions) addon().regionEndServing(lazy);
    if (this.#reserve !== undefined) this.#reserve.staging.releaseAll(this.#reserve.segments);
    this.#reserve = undefined;
    this.#payloads.clear();
    this.#order.end();
  }

  /** A page is filled as for a fault, before one comes: what that runs is not compiled yet. */
  #warmUp(): void {
    for (const region of this.#regions) {
      const first = missingPages(region, 0, 1)[0];
      if (first === undefined) continue;
      this.#supply(region, first, false);
      return;
    }
  }

  /** What was touched first after an earlier restore comes first. It is a hint: without it everything comes, too. */
  async #workingSet(attachments: readonly StoredAttachment[]): Promise<WorkingSet> {
    const stored = attachments.find(({ name }) => name === WORKING_SET);
    if (stored === undefined) return new Map();
    try {
      return decodeWorkingSet(await readAttachment(this.#log, stored));
    } catch {
      return new Map();
    }
  }

  #checkEnded(): void {
    if (this.#ended) throw new TidemarkError('TIDEMARK_CLOSED', 'the checkpointer was closed while its memory was restored');
  }

  #missing(): number {
    for (const region of this.#regions) region.left = residence(region.lazy)?.missing ?? region.left;
    return this.#regions.reduce((sum, { left }) => sum + left, 0);
  }

  async #fillSlice({ region, pages }: Filling): Promise<void> {
    // Only as long as it takes: a rejected write waits for it, and all commits with that.
    await this.#log.pin();
    try {
      fault('lazy.ahead');
      await this.#runner.run(slicePlan(region, pages), true, undefined, () => {});
    } catch {
      // Damage, or codec threads that have ended, or a page that was captured anew since the slice was planned: page by page what is
      // still missing, and what cannot be had is known then.
      await this.#fillOneByOne(region, pages);
    } finally {
      this.#log.unpin();
    }
  }

  async #fillOneByOne(region: LazyRegion, pages: Uint32Array): Promise<void> {
    for (const page of stillMissing(region, pages)) {
      if (this.#ended) return;
      // With the frame of one before it, or for a fault.
      if (missingPages(region, page, 1)[0] !== page) continue;
      this.#supply(region, page, false);
      // Faults come first.
      await setImmediate();
    }
  }

  #serve(lazy: number): void {
    const region = this.#regions.find((one) => one.lazy === lazy);
    if (region === undefined || this.#ended) return;
    if (faulty('lazy.exit')) process.exit(1);
    if (faulty('lazy.serve')) return;
    if (faulty('lazy.late')) void setTimeout(LATE_MS).then(() => this.#ended || this.#answer(region));
    else this.#answer(region);
  }

  #answer(region: LazyRegion): void {
    for (const page of faultsOf(region)) {
      this.#supply(region, page, true);
      this.#order.noteFault(region, page);
    }
  }

  /** A page and those of its frame, or where that fails the page alone, or it is poisoned. */
  #supply(region: LazyRegion, page: number, byFault: boolean, again = true): void {
    const frame = frameOf(region.wanted, page);
    try {
      this.#supplyPages(region, frame, byFault);
    } catch (error) {
      if (isClosed(error)) return;
      if (again && (error as { code?: string }).code === 'TIDEMARK_WRITE_FAILED') {
        // The log is being opened anew, since a write to it was rejected.
        void this.#log.pin().then(() => {
          this.#log.unpin();
          if (!this.#ended) this.#supply(region, page, byFault, false);
        });
        return;
      }
      try {
        if (frame.length === 1) throw error;
        this.#supplyPages(region, Uint32Array.of(page), byFault);
      } catch (reason) {
        if (isClosed(reason)) return;
        // It may have come meanwhile, and been captured anew: then the table has a version of it that is not written yet, or never will be.
        if (missingPages(region, page, 1)[0] === page) this.#poison(region, page, reason);
      }
    }
  }

  #supplyPages({ request, wanted }: LazyRegion, pages: Uint32Array, byFault: boolean): void {
    const bytes = readPagesNow((record) => this.#payload(record), wanted, pages);
    const { lazy, crcs, depths, shadow } = fillPages(wanted, pages, request);
    addon().regionSupply(lazy, bytes, pages, byFault, shadow?.shadows ?? 0, shadow?.table ?? 0, crcs, depths);
  }

  #payload(record: number): Uint8Array {
    const kept = this.#payloads.get(record);
    if (kept !== undefined) return kept;
    const payload = this.#log.payloadNow(record, Kind.extent);
    for (const oldest of this.#payloads.keys()) {
      if (this.#payloads.size < PAYLOADS_KEPT) break;
      this.#payloads.delete(oldest);
    }
    this.#payloads.set(record, payload);
    return payload;
  }

  #poison({ lazy, poisoned }: LazyRegion, page: number, reason: unknown): void {
    // What is damaged matters more: that there was no memory passes.
    if (this.#failure === undefined || (isNoMemory(this.#failure) && !isNoMemory(reason))) this.#failure = reason;
    poisoned.push(page);
    try {
      addon().regionPoison(lazy, Uint32Array.of(page, 1));
    } catch (error) {
      if (!isClosed(error)) throw error;
    }
  }
}
