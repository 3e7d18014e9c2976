import { totalmem } from 'node:os';

/** The memory that the process may use, in bytes: of its container where that has a limit (one without says 0, or more than there is). */
export function memoryLimit(): number {
  const limit = process.constrainedMemory?.() ?? 0;
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

/** A share of it, within bounds: what defaults follow. */
export function memoryShare(parts: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, Math.floor(memoryLimit() / parts)));
}
