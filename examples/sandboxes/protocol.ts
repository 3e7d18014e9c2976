import { createHash } from 'node:crypto';
import type { History } from './model.js';

/** What the program and the one that kills it agree on. */

/** Metadata of every checkpoint. */
export type Metadata = { step: number; history: History };

/** Sandbox number n, and the branch that its checkpoints are on. */
export function sandboxName(n: number): string {
  return `s${n}`;
}

/** The n-th fork of all. */
export function forkName(n: number): string {
  return `f${n}`;
}

/** The label of a sandbox's first checkpoint. */
export function startOf(name: string): string {
  return `${name}.start`;
}

/** A memory is restored only into the module whose memory it was; and a store belongs to one seed: another one would go on with other steps. */
export function fingerprint(moduleHash: string, seed: number): string {
  return `${moduleHash}, seed ${seed}`;
}

/** What the program says, a line of JSON each. What it is about to do it says before it does it. */
export type Said =
  | { event: 'restored'; name: string; history: History; digest: string }
  | { event: 'ready'; sandboxes: number }
  | { event: 'taking'; name: string; history: History }
  | { event: 'acknowledged'; name: string; blockedMs: number; storedBytes: number }
  | { event: 'rollingBack'; name: string; target: string }
  | { event: 'rolledBack'; name: string; history: History; digest: string }
  | { event: 'forking'; name: string; from: string; history: History }
  | { event: 'forked'; name: string }
  | ({ event: 'usage' } & Usage);

export interface Usage {
  sandboxes: number;
  regionBytes: number;
  residentBytes: number;
  threads: number;
}

/** Of a memory; the zeros at its end do not count. */
export function digest(memory: Uint8Array): string {
  let end = memory.length;
  while (end > 0 && memory[end - 1] === 0) end--;
  return createHash('sha1').update(memory.subarray(0, end)).digest('hex');
}
