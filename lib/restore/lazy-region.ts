import type { RegionTable } from '../chain/page-table.js';
import type { RestoreRequest } from '../engine/protocol.js';
import { addon } from '../kernel/addon.js';

/** A region that is restored lazily, as the storage thread sees it. */
export interface LazyRegion {
  readonly request: RestoreRequest['regions'][number];
  /** Commits go on changing it: they change pages that were captured, and no page that is missing ever is. */
  readonly wanted: RegionTable;
  /** Of `regionBecomeLazy`. */
  readonly lazy: number;
  /** Pages that were missing when they were last counted. */
  left: number;
  /** Pages that could not be restored. */
  readonly poisoned: number[];
}

const NO_PAGES = new Uint32Array(0);

/** Pages from `from` on that are missing, ascending. */
export function missingPages({ lazy }: LazyRegion, from: number, most: number): Uint32Array {
  return whileOpen(() => addon().regionMissing(lazy, from, most)) ?? NO_PAGES;
}

/** Those of the pages that are missing. */
export function stillMissing({ lazy }: LazyRegion, pages: Uint32Array): Uint32Array {
  return whileOpen(() => addon().regionStillMissing(lazy, pages)) ?? NO_PAGES;
}

export function faultsOf({ lazy }: LazyRegion): Uint32Array {
  return whileOpen(() => addon().regionFaults(lazy)) ?? NO_PAGES;
}

export function residence(lazy: number): { missing: number } | undefined {
  return whileOpen(() => addon().regionResidence(lazy));
}

/** Undefined once the program has closed the region, or the region has given its tracking up: then what was missing is poisoned. */
export function whileOpen<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    if (isClosed(error)) return undefined;
    throw error;
  }
}

export function isClosed(error: unknown): boolean {
  const { code } = error as { code?: string };
  return code === 'ERR_CLOSED' || code === 'ERR_NOT_LAZY' || code === 'EPERM';
}
