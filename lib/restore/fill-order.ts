import { setTimeout } from 'node:timers/promises';
import { faulty } from '../faults.js';
import { addon } from '../kernel/addon.js';
import { frameOf } from './lazy-plan.js';
import { type LazyRegion, missingPages, stillMissing, whileOpen } from './lazy-region.js';

/** Pages that are filled ahead at a time: a fault turns where filling goes on after as many at the latest. Few at first, for then faults come, and most of what is run is not compiled yet. */
const SLICE_PAGES = 2048;
const FIRST_SLICE_PAGES = 256;
/** Of pages that are expected, as they were noted. So many that those which are in one extent come together: to read it takes longer than to decompress one frame. */
const EXPECTED_PAGES = 1024;
/** Where touches are noted the rest waits until so long no page was touched that was missing, and at most so long in all: touches of pages that are there are not seen. */
const QUIET_MS = 20;
const MOST_QUIET_MS = 5000;
const LOOK_MS = 1;
/** For the tests. */
const HOLD_MS = 50;

/** Pages of a region that are filled next. */
export interface Filling {
  region: LazyRegion;
  pages: Uint32Array;
}

/** Pages that somebody waits for. */
interface Urgent {
  region: LazyRegion;
  first: number;
  end: number;
  resolve(): void;
}

/** What a lazy restore fills next of what nobody has touched yet. */
export class FillOrder {
  readonly #regions: readonly LazyRegion[];
  readonly #noted: boolean;
  readonly #urgent: Urgent[] = [];
  /** Pages that were touched after a restore before this one, some at a time, in that order. */
  readonly #expected: Filling[] = [];
  /** Of those that come next, with their frames: as many as are filled at a time. */
  readonly #pieces: Filling[] = [];
  /** Where it goes on in each region. */
  readonly #from = new Map<LazyRegion, number>();
  /** The region of the last fault, and when it came. */
  #touched: LazyRegion | undefined;
  #touchedAt = 0;
  /** Until when the rest may be held back for what is noted; 0: it was not asked for yet. */
  #heldUntil = 0;
  #slice = FIRST_SLICE_PAGES;
  #ended = false;
  /** Pages were asked for: then nothing is held back any more. */
  #asked = false;

  /**
   * @param regions that are restored lazily, as soon as they are
   * @param noted what is touched first is to be noted
   */
  constructor(regions: readonly LazyRegion[], noted: boolean) {
    this.#regions = regions;
    this.#noted = noted;
  }

  /** These are likely to be touched, in this order. */
  expect(region: LazyRegion, pages: Uint32Array): void {
    whileOpen(() => addon().regionExpect(region.lazy, pages));
    for (let k = 0; k < pages.length; k += EXPECTED_PAGES)
      this.#expected.push({ region, pages: pages.subarray(k, k + EXPECTED_PAGES) });
  }

  /** Resolves when these pages are there, or cannot be had. */
  ask(region: LazyRegion, first: number, end: number): Promise<void> {
    if (this.#ended) return Promise.resolve();
    this.#asked = true;
    return new Promise((resolve) => this.#urgent.push({ region, first, end, resolve }));
  }

  /** Somebody has touched a page that was missing: it goes on from there. */
  noteFault(region: LazyRegion, page: number): void {
    this.#touched = region;
    this.#touchedAt = performance.now();
    this.#from.set(region, page);
  }

  /** Undefined when nothing is missing any more, or it has ended. */
  async next(): Promise<Filling | undefined> {
    if (this.#heldUntil === 0) {
      // The first fault is about to come.
      this.#touchedAt = performance.now();
      this.#heldUntil = this.#noted ? this.#touchedAt + MOST_QUIET_MS : this.#touchedAt;
    }
    for (;;) {
      if (this.#ended) return undefined;
      const wanted = this.#wanted();
      if (wanted !== undefined) return wanted;
      const now = performance.now();
      if (!this.#asked && faulty('lazy.hold')) await setTimeout(HOLD_MS);
      else if (!this.#asked && now < this.#heldUntil && now - this.#touchedAt < QUIET_MS) await setTimeout(LOOK_MS);
      else return this.#rest();
    }
  }

  /** Nobody waits any more. */
  end(): void {
    this.#ended = true;
    for (const { resolve } of this.#urgent.splice(0)) resolve();
  }

  /** What comes before the rest: what somebody has asked for, then what was touched first an earlier time. */
  #wanted(): Filling | undefined {
    for (let urgent = this.#urgent[0]; urgent !== undefined; urgent = this.#urgent[0]) {
      const { region, first, end } = urgent;
      const pages = missingPages(region, first, SLICE_PAGES).filter((page) => page >= first && page < end);
      if (pages.length > 0) return { region, pages };
      this.#urgent.shift();
      urgent.resolve();
    }
    for (let some = this.#nextPiece(); some !== undefined; some = this.#nextPiece()) {
      const pages = stillMissing(some.region, some.pages);
      if (pages.length > 0) return { region: some.region, pages };
    }
    return undefined;
  }

  #nextPiece(): Filling | undefined {
    const some = this.#pieces.length > 0 ? undefined : this.#expected.shift();
    if (some !== undefined) {
      const { region } = some;
      const pages = withFrames(some);
      for (let k = 0; k < pages.length; k += SLICE_PAGES)
        this.#pieces.push({ region, pages: pages.subarray(k, k + SLICE_PAGES) });
    }
    return this.#pieces.shift();
  }

  /** From the last fault on, then whatever there is. */
  #rest(): Filling | undefined {
    const order = this.#touched === undefined ? this.#regions : [this.#touched, ...this.#regions];
    for (const region of order) {
      const pages = missingPages(region, this.#from.get(region) ?? 0, this.#slice);
      if (pages.length === 0) continue;
      this.#slice = Math.min(2 * this.#slice, SLICE_PAGES);
      this.#from.set(region, pages.at(-1)! + 1);
      return { region, pages };
    }
    return undefined;
  }
}

/** The pages that are decompressed with them, too, as after a fault: only the first of these was noted when they were touched. Ascending. */
function withFrames({ region, pages }: Filling): Uint32Array {
  const all = new Set<number>();
  for (const page of pages) for (const one of frameOf(region.wanted, page)) all.add(one);
  return Uint32Array.from(all).sort();
}
