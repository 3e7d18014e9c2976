import type { Log } from '../chain/log.js';
import type { PageTable } from '../chain/page-table.js';
import type { CodecPorts, Lent } from '../engine/codec-ports.js';
import type { RestoreRequest } from '../engine/protocol.js';
import { TidemarkError } from '../errors.js';
import { addon } from '../kernel/addon.js';
import { planRegion, type RegionPlan } from './plan.js';
import { PlanRunner } from './plan-runner.js';
import type { Window } from './window.js';

/** Who looks on. */
export interface RestoreWatch {
  /** It is to end at the next opportunity. */
  aborted(): boolean;
  onProgress(donePages: number, totalPages: number): void;
}

/**
 * The storage thread's part of an eager restore. `check` reads, decodes and compares everything that `fill` will put into the regions, and
 * touches nothing; `fill` alone compares each page before it fills it.
 */
export class RestoreRun {
  readonly #codecs: CodecPorts;
  readonly #watch: RestoreWatch;
  readonly #runner: PlanRunner;
  /** What `check` has put together, where all of it fits into staging at once: one for each region. */
  #kept: (Window | undefined)[] = [];
  /** Made by `check`, for both phases: what differs does not change in between. */
  #planned: RegionPlan[] | undefined;
  /** For the phase that is under way. */
  #plans: RegionPlan[] = [];
  #reserve: Lent | undefined;

  constructor(log: Log, codecs: CodecPorts, watch: RestoreWatch) {
    this.#codecs = codecs;
    this.#watch = watch;
    this.#runner = new PlanRunner({ log, codecs, checkAborted: () => this.#checkAborted(), reserve: () => this.#reserve });
  }

  /**
   * Finds out what has to be done, and takes the staging that is needed at least: before the log is pinned, for what is in staging may wait for the log to be
   * reopened.
   * @param base the page tables of the checkpoint that the memory descends from, when it does
   */
  async prepare(request: RestoreRequest, target: PageTable, base: PageTable | undefined): Promise<void> {
    this.#planned ??= request.regions.map((region) => planRegion(region, target, base));
    // A region may have moved when it grew.
    this.#plans = this.#planned.map((plan, k) => ({ ...plan, plain: new Map(plan.plain), request: request.regions[k]! }));
    const isKept = (k: number): boolean => request.phase === 'fill' && this.#kept[k]?.usable === true;
    if (!this.#plans.some(({ assembled }, k) => assembled.length > 0 && !isKept(k))) return;
    this.#reserve = await this.#codecs.reserve(() => this.#checkAborted());
  }

  async run(phase: RestoreRequest['phase']): Promise<{ filledPages: number; zeroedPages: number }> {
    const fill = phase === 'fill';
    const plans = this.#plans;
    const total = plans.reduce((sum, plan) => sum + plan.fills, 0);
    let done = 0;
    let zeroed = 0;
    const onPages = (pages: number): void => {
      done += pages;
      this.#watch.onProgress(done, total);
    };
    for (const [k, plan] of plans.entries()) {
      for (let j = 1; j < plan.zeros.length; j += 2) zeroed += plan.zeros[j]!;
      const keep = await this.#runner.run(plan, fill, this.#kept[k], onPages);
      if (keep !== undefined) this.#kept[k] = keep;
      if (!fill) continue;
      const { native, shadow } = plan.request;
      addon().regionZero(native, plan.zeros);
      if (shadow !== null) addon().shadowForget(shadow.shadows, shadow.table, plan.zeros);
    }
    return { filledPages: total, zeroedPages: zeroed };
  }

  /** Gives up what is kept. */
  close(): void {
    for (const window of this.#kept) window?.close();
    this.#kept = [];
    this.#planned = undefined;
    this.release();
  }

  /** One phase is over. */
  release(): void {
    this.#plans = [];
    this.#reserve?.staging.releaseAll(this.#reserve.segments);
    this.#reserve = undefined;
  }

  #checkAborted(): void {
    if (this.#watch.aborted()) throw new TidemarkError('TIDEMARK_ABORTED', 'the restore was aborted');
  }
}
