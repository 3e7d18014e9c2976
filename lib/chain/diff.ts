import { addon, PAGE_SIZE, SEGMENT_PAGES } from '../kernel/addon.js';
import type { Log } from './log.js';
import type { PageTable, RegionTable } from './page-table.js';
import { readRange } from './read-pages.js';
import { type Runs, toPages, toRuns } from './runs.js';

/** For each region of either, the pages whose bytes differ; what only one has counts as zero in the other. */
export async function diffTables(log: Log, a: PageTable, b: PageTable): Promise<Record<string, Runs>> {
  const names = new Set([...a.regions.keys(), ...b.regions.keys()]);
  const differences: [string, Runs][] = [];
  for (const name of names) differences.push([name, await diffRegion(log, a.regions.get(name), b.regions.get(name))]);
  return Object.fromEntries(differences);
}

async function diffRegion(log: Log, a: RegionTable | undefined, b: RegionTable | undefined): Promise<Runs> {
  const zero = addon().crc32c(new Uint8Array(PAGE_SIZE));
  const checksum = (table: RegionTable | undefined, page: number) => (table?.isStored(page) ? table.crc[page]! : zero);
  const differ: number[] = [];
  const read = (table: RegionTable | undefined, from: number, byteLength: number) =>
    table === undefined ? new Uint8Array(byteLength) : readRange(log, table, from, byteLength);
  /** Stored twice, or once where the other has zeros, with one checksum: most likely, but not certainly, the same bytes. */
  const alike: number[] = [];
  for (const page of toPages(a === undefined ? b!.differences(a) : a.differences(b)))
    (checksum(a, page) === checksum(b, page) ? alike : differ).push(page);
  for (let k = 0; k < alike.length; ) {
    const first = alike[k]!;
    let count = 1;
    while (count < SEGMENT_PAGES && alike[k + count] === first + count) count++;
    const [left, right] = await Promise.all([a, b].map((table) => read(table, first * PAGE_SIZE, count * PAGE_SIZE)));
    for (let j = 0; j < count; j++) {
      const [from, to] = [j * PAGE_SIZE, (j + 1) * PAGE_SIZE];
      if (Buffer.compare(left!.subarray(from, to), right!.subarray(from, to)) !== 0) differ.push(first + j);
    }
    k += count;
  }
  return toRuns(Uint32Array.from(differ).sort());
}
