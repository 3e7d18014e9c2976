/** What the program and the one that kills it agree on. */

export const regionBytes = 16 << 20;

/** Metadata of every checkpoint: the last operation in it. */
export type Metadata = { operations: number };

/** A store belongs to one seed: another one would go on with other operations. */
export function fingerprint(seed: number): string {
  return `survive-kill 1, seed ${seed}`;
}
