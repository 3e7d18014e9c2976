/** What one way of taking snapshots did, in a process of its own: a first epoch with every page, then one a round. */
export interface Outcome {
  /** Processor time of the writing thread for the first write to a page, one value a round. Absent where it was not measured. */
  writeNs?: number[];
  blockedMs: number[];
  durableMs: number[];
  storedBytes: number[];
  /** Stored in the epoch. */
  pages: number[];
  /** Written in a round. */
  dirty: number;
  /** The peak over what the process had with the memory filled, and nothing opened. */
  extraBytes: number;
  /** Faults of mprotect for which more than their page had to be given up. */
  enlarged: number;
  /** Of the memory, filled, and after the last round. */
  sums: [filled: string, end: string];
}
