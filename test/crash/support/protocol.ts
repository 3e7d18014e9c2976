import type { Plan } from './model.js';

/** What the writer is to do, as JSON in its first argument. */
export interface WriterOptions {
  store: string;
  /** Branches, and what each of them writes. */
  branches: Record<string, Plan>;
  /** Number of this process among those that have written to the store. */
  life: number;
  durability: 'sync' | 'relaxed' | 'mixed';
  /** Of a mix, one in so many is synced. Default: 3. */
  syncOneIn?: number;
  /** Steps of each branch. */
  steps: number;
  /** Calls of checkpoint() in flight at most. */
  overlap: number;
  /** Now and then a flush(). */
  flushes?: boolean;
  /** Besides: attachments, precopy, `ifChanged`, checkpointers with a durability of their own, and questions about what is durable. */
  everything?: boolean;
  end: 'close' | 'kill' | 'stay' | 'exit';
  /** How often a store that cannot be opened is tried again. */
  openRetries?: number;
  maxFailures?: number;
  /** After so many failures it says 'waiting' and when it gets SIGUSR2 does three steps more. */
  waitAfterFailures?: number;
}

export interface Acknowledged {
  event: 'acknowledged';
  branch: string;
  step: number;
  id: number;
  uid: string;
  parent: number | null;
  sync: boolean;
  /** It said so itself: a relaxed one does when it was committed together with a synced one. */
  durable: boolean;
}

/** What the writer prints, one a line. */
export type WriterEvent =
  | Acknowledged
  | { event: 'ready' | 'waiting' | 'done' | 'closed' }
  | { event: 'called'; branch: string; step: number }
  | { event: 'flushed'; branch: string; id: number }
  /** The store says that a checkpoint is durable. */
  | { event: 'durable'; branch: string; uid: string; id: number }
  | { event: 'failed'; branch: string; step: number; code: string; message: string }
  | { event: 'open-failed'; code: string; message: string }
  | { event: 'wrong'; message: string };

/** What the reader is to do, as JSON in its first argument. */
export interface ReaderOptions {
  store: string;
  branches: Record<string, Plan>;
  life: number;
  /** Up to this id they were compared before: `verify` and every eighth have to do. */
  seen?: number;
}

/** What the reader found, as JSON on stdout. */
export interface Findings {
  error?: string;
  code?: string;
  /** Everything that is in the store; each was compared byte for byte with what its metadata says. */
  checkpoints: { id: number; uid: string; branch: string; parent: number | null; step: number; durable: boolean }[];
  problems: string[];
}
