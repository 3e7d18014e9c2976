import { isMainThread } from 'node:worker_threads';
import type { Engine } from '../engine/engine.js';
import { TidemarkError } from '../errors.js';
import { addon, PAGE_SIZE } from '../kernel/addon.js';
import { capabilities } from '../kernel/capabilities.js';
import type { Region } from '../region/region.js';
import { encodeWorkingSet, WORKING_SET_PAGES } from './working-set.js';

/** How the pages of a lazy restore have come so far. */
export interface LazyStats {
  /** Pages that are not there yet. */
  missingPages: number;
  /** Pages that could not be restored, and cannot be read. */
  poisonedPages: number;
  /** Pages that somebody touched before they were there. */
  faults: number;
  /** How long they waited, in milliseconds, from when the fault was read until the page was there. */
  medianWaitMs: number;
  worstWaitMs: number;
  /** Pages filled for a fault (with those that are decompressed with it), and in between. */
  filledByFault: number;
  filledAhead: number;
}

/** @throws {TidemarkError} `TIDEMARK_PERMISSION` where faults from inside the kernel cannot be served */
export function requireServing(userFaults: boolean): void {
  if (userFaults || capabilities().kernelFaults) return;
  throw new TidemarkError('TIDEMARK_PERMISSION', 'a lazy restore needs a userfaultfd that serves faults from inside the kernel', {
    hint:
      'give the process access to /dev/userfaultfd (in a container: --device /dev/userfaultfd) or CAP_SYS_PTRACE, or set vm.unprivileged_userfaultfd=1; ' +
      "or restore with lazy: 'user-faults' and call ensureResident() before memory is handed to system calls; or leave lazy out",
  });
}

export interface LazyRegionInput {
  name: string;
  region: Region;
  /** Of `regionBecomeLazy`; 0 for an eager restore. */
  lazy: number;
}

let isWatched = false;

/** An orderly `process.exit()` stays one, whichever thread is ended first. */
export function endAtOnce(): void {
  if (isWatched || !isMainThread) return;
  isWatched = true;
  process.on('exit', (code) => addon().exiting(code & 0xff));
}

/** The caller's side of a lazy restore, while pages are filled and after that. */
export class Residency {
  readonly done: Promise<void>;
  readonly #engine: Engine;
  readonly #session: number;
  readonly #regions: readonly LazyRegionInput[];
  readonly #isLazy: boolean;
  /** As they were when all pages were there. */
  #last: LazyStats | undefined;
  /** As it was last asked for: it only grows. */
  #workingSet: { count: number; bytes: Uint8Array } | undefined;

  /** @param resident settles when all pages are there, or some cannot be had; undefined: they are */
  constructor(engine: Engine, session: number, regions: readonly LazyRegionInput[], resident: Promise<void> | undefined) {
    this.#engine = engine;
    this.#session = session;
    this.#regions = regions;
    this.#isLazy = resident !== undefined;
    this.done = (resident ?? Promise.resolve()).finally(() => {
      this.#last = this.#count();
    });
  }

  stats(): { lazy?: LazyStats } {
    return this.#isLazy ? { lazy: this.#last ?? this.#count() } : {};
  }

  #count(): LazyStats {
    const all = this.#regions.flatMap(({ lazy }) => {
      try {
        return [addon().regionResidence(lazy)];
      } catch {
        // It was closed: what it had missing is poisoned.
        return [];
      }
    });
    const sum = (of: (one: (typeof all)[number]) => number): number => all.reduce((total, one) => total + of(one), 0);
    const waits = new Float64Array(256);
    for (const one of all) for (const [k, count] of one.waits.entries()) waits[k]! += count;
    const worst = all.reduce((most, one) => Math.max(most, one.worstWait), 0);
    return {
      missingPages: sum((one) => one.missing),
      poisonedPages: sum((one) => one.poisoned),
      faults: sum((one) => one.faults),
      medianWaitMs: Math.min(worst, medianOf(waits)) / 1000,
      worstWaitMs: worst / 1000,
      filledByFault: sum((one) => one.byFault),
      filledAhead: sum((one) => one.ahead),
    };
  }

  /** The order in which pages were first touched, to be stored with a checkpoint; undefined where none is known. */
  workingSet(): Uint8Array | undefined {
    if (!this.#isLazy) return undefined;
    let left = WORKING_SET_PAGES;
    const touched = new Map<string, Uint32Array>();
    for (const { name, lazy } of this.#regions) {
      try {
        const pages = addon().regionTouched(lazy, left);
        left -= pages.length;
        touched.set(name, pages);
      } catch {
        // It was closed.
      }
    }
    if (left === WORKING_SET_PAGES) return undefined;
    const count = WORKING_SET_PAGES - left;
    if (this.#workingSet?.count !== count) this.#workingSet = { count, bytes: encodeWorkingSet(touched) };
    return this.#workingSet.bytes;
  }

  /** @throws {TidemarkError} `TIDEMARK_NOT_FOUND`, `TIDEMARK_DAMAGED`, `TIDEMARK_CLOSED` */
  async ensure(name: string, byteOffset: number, byteLength: number): Promise<void> {
    const found = this.#regions.find((one) => one.name === name);
    if (found === undefined) throw new TidemarkError('TIDEMARK_NOT_FOUND', `region ${name} was not restored`);
    const { byteLength: size } = found.region;
    if (!(byteOffset >= 0 && byteLength >= 0 && byteOffset + byteLength <= size))
      throw new RangeError(`bytes ${byteOffset} to ${byteOffset + byteLength} are not in region ${name} of ${size} bytes`);
    const first = Math.floor(byteOffset / PAGE_SIZE);
    const end = Math.ceil((byteOffset + byteLength) / PAGE_SIZE);
    if (end === first) return;
    if (this.#isLazy && this.#last === undefined)
      await this.#engine.call('ensureResident', this.#session, name, first, end - first);
    if (intersects(found.region.poisoned(), first, end))
      throw new TidemarkError(
        'TIDEMARK_DAMAGED',
        `some of the pages ${first} to ${end - 1} of region ${name} could not be restored`,
        {
          hint: 'what `done` rejects with says why',
        },
      );
    if (!capabilities().kernelFaults) touch(found.region.view(), first, end);
  }
}

/** A page of zeros is missing, too, in memory that is or was restored lazily; whoever touches it from JavaScript gets it, the kernel EFAULT. */
function touch(bytes: Uint8Array, first: number, end: number): void {
  for (let page = first; page < end; page++) Atomics.load(bytes, page * PAGE_SIZE);
}

function intersects(runs: Uint32Array, first: number, end: number): boolean {
  for (let k = 0; k < runs.length; k += 2) if (runs[k]! < end && runs[k]! + runs[k + 1]! > first) return true;
  return false;
}

/** The middle of the eighth of a doubling that the median wait lies in, in microseconds. */
function medianOf(waits: Float64Array): number {
  const total = waits.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  for (const [k, count] of waits.entries()) {
    seen += count;
    if (total > 0 && seen * 2 >= total) return 2 ** ((k + 0.5) / 8);
  }
  return 0;
}
