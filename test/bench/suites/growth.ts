import { dirtyShares, regionSizes } from '../support/growth-dirty.js';
import { fleets, workers } from '../support/growth-parallel.js';
import type { Suite } from '../support/suite.js';

/** How cost grows: with the region, with what is written, with threads, and with the number of checkpointers. */
export const suite: Suite = async (bench) => {
  // First, while the process is small: it looks at the memory of the process.
  await fleets(bench);
  await regionSizes(bench);
  await dirtyShares(bench);
  await workers(bench);
};
