import type { Report } from './report.js';

/** What a suite is run with. */
export interface Bench {
  report: Report;
  /** Everything small, to see that it runs: under two minutes for all suites together. The figures mean less. */
  quick: boolean;
  /** A folder on the disk that stores are put into; it is removed afterwards. */
  scratch: string;
  /** Codec threads, and threads of the limits: one a core, at most 4. */
  cores: number;
}

/** A suite is a process of its own: what an earlier one did to its memory is no concern of it. */
export type Suite = (bench: Bench) => Promise<void>;
