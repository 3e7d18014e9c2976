import { type Part, pageList } from '../chain/assembly.js';
import { foundIn } from '../chain/damage.js';
import type { Log } from '../chain/log.js';
import { type PageTable, type Stored, Version } from '../chain/page-table.js';
import { present } from '../chain/read-pages.js';
import { Kind } from '../chain/record.js';
import { concat } from '../chain/runs.js';
import type { CodecPorts, Lent } from '../engine/codec-ports.js';
import type { DecodeJob, RestoreRequest, Segments } from '../engine/protocol.js';
import { TidemarkError } from '../errors.js';
import { addon } from '../kernel/addon.js';
import { type ExtentUse, planRegion, type RegionPlan } from './plan.js';
import { fillPages, Window } from './window.js';

/** Who looks on. */
export interface RestoreWatch {
  /** It is to end at the next opportunity. */
  aborted(): boolean;
  onProgress(donePages: number, totalPages: number): void;
}

const READ_AT_ONCE = 8;

/** An extent to be decoded, for one purpose or both. */
interface Wanted {
  record: number;
  kind: Stored;
  plain: ExtentUse | undefined;
  part: DecodeJob['part'];
  pages: Uint32Array;
}

/**
 * The storage thread's part of an eager restore. `check` reads, decodes and compares everything that `fill` will put into the regions, and
 * touches nothing; `fill` alone compares each page before it fills it.
 */
export class RestoreRun {
  readonly #log: Log;
  readonly #codecs: CodecPorts;
  readonly #watch: RestoreWatch;
  /** What `check` has put together, where all of it fits into staging at once: one for each region. */
  #kept: (Window | undefined)[] = [];
  /** Made by `check`, for both phases: what differs does not change in between. */
  #planned: RegionPlan[] | undefined;
  /** For the phase that is under way. */
  #plans: RegionPlan[] = [];
  #reserve: Lent | undefined;

  constructor(log: Log, codecs: CodecPorts, watch: RestoreWatch) {
    this.#log = log;
    this.#codecs = codecs;
    this.#watch = watch;
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
      await this.#runRegion(k, plan, fill, onPages);
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

  async #runRegion(k: number, plan: RegionPlan, fill: boolean, onPages: (pages: number) => void): Promise<void> {
    const kept = this.#kept[k];
    if (fill && kept?.usable) {
      await kept.fill(plan);
      onPages(plan.assembled.length);
    } else {
      await this.#assemble(k, plan, fill, onPages);
    }
    const rest = [...plan.plain.values()].map((use) => wantedOf(use));
    plan.plain.clear();
    await this.#decodeAll(rest, plan, fill, onPages);
  }

  async #assemble(k: number, plan: RegionPlan, fill: boolean, onPages: (pages: number) => void): Promise<void> {
    for (let from = 0; from < plan.assembled.length; ) {
      this.#checkAborted();
      const window = Window.open(plan, from, this.#codecs, this.#reserve);
      let keep = false;
      try {
        await window.assemble((parts, combine, into) =>
          this.#decodeAll(
            parts.map((part) => this.#withPlain(part, combine, into, plan, from)),
            plan,
            fill,
            onPages,
          ),
        );
        if (fill) await window.fill(plan);
        keep = !fill && window.isKeepable && from === 0 && window.end === plan.assembled.length;
      } finally {
        if (keep) this.#kept[k] = window;
        else window.close();
      }
      onPages(window.end - from);
      from = window.end;
    }
  }

  /** An extent is read once: what else is wanted of it goes along. */
  #withPlain({ record, kind, slots, places }: Part, combine: boolean, into: Segments, plan: RegionPlan, from: number): Wanted {
    const plain = plan.plain.get(record);
    // All that a damaged extent takes along.
    const pages = concat([places.map((place) => plan.assembled[from + place]!), ...(plain === undefined ? [] : [plain.pages])]);
    return { record, kind, plain, part: { slots, places, combine, ...into }, pages };
  }

  /**
   * Reads the extents a few at a time and keeps the codec threads busy with them. Whatever fails, no job is under way any more when it ends:
   * one that went on would write into memory that the program has back.
   */
  async #decodeAll(all: readonly Wanted[], plan: RegionPlan, fill: boolean, onPages: (pages: number) => void): Promise<void> {
    const running = new Set<Promise<void>>();
    let failure: unknown;
    const start = (wanted: Wanted, record: Uint8Array | undefined): void => {
      const job = this.#decode(wanted, record, plan, fill)
        .then(() => {
          // Only now: what fails may be done again in another way.
          plan.plain.delete(wanted.record);
          onPages(wanted.plain?.pages.length ?? 0);
        })
        .catch((error) => {
          failure ??= foundIn(pageList(plan.wanted.name, wanted.pages), error);
        })
        .finally(() => running.delete(job));
      running.add(job);
    };
    try {
      for (let k = 0; k < all.length && failure === undefined; k += READ_AT_ONCE) {
        this.#checkAborted();
        const some = all.slice(k, k + READ_AT_ONCE);
        const records = await this.#log.records(
          some.map(({ record }) => record),
          Kind.extent,
        );
        for (const [j, wanted] of some.entries()) {
          while (running.size >= this.#codecs.width && failure === undefined) await Promise.race(running);
          if (failure === undefined) start(wanted, records[j]);
        }
      }
    } finally {
      await Promise.all(running);
    }
    if (failure !== undefined) throw failure;
  }

  async #decode(
    { record: number, kind, plain, part }: Wanted,
    record: Uint8Array | undefined,
    plan: RegionPlan,
    fill: boolean,
  ): Promise<void> {
    await this.#codecs.run({
      type: 'decode',
      record: present(record, number),
      number,
      store: this.#log.store,
      kind,
      plain:
        plain === undefined
          ? null
          : { slots: plain.slots, ...fillPages(plan.wanted, plain.pages, fill ? plan.request : undefined) },
      part,
    });
  }
}

function wantedOf(use: ExtentUse): Wanted {
  return { record: use.record, kind: Version.full, plain: use, part: null, pages: use.pages };
}
