import type { Log } from '../chain/log.js';
import { type PageTable, type RegionTable, Version } from '../chain/page-table.js';
import { type ExtentUse, groupByExtent, present } from '../chain/read-pages.js';
import { Kind } from '../chain/record.js';
import { toRuns } from '../chain/runs.js';
import type { CodecPorts } from '../engine/codec-ports.js';
import type { RestoreRequest } from '../engine/protocol.js';
import { TidemarkError } from '../errors.js';
import { addon, PAGE_SIZE } from '../kernel/addon.js';

/** What has to change in one region. */
interface RegionPlan {
  native: number;
  uses: ExtentUse[];
  /** Pages that must be zero, runs. */
  zeros: Uint32Array;
  fills: number;
}

/** Who looks on. */
export interface RestoreWatch {
  /** It is to end at the next opportunity. */
  aborted(): boolean;
  onProgress(donePages: number, totalPages: number): void;
}

const READ_AT_ONCE = 8;

/**
 * The storage thread's part of an eager restore. Phase `check` reads, decodes and compares everything that phase `fill` will put into the
 * regions, and touches nothing.
 * @param base the page tables of the checkpoint that the memory descends from, when it does
 */
export async function runRestore(
  request: RestoreRequest,
  target: PageTable,
  base: PageTable | undefined,
  log: Log,
  codecs: CodecPorts,
  watch: RestoreWatch,
): Promise<{ filledPages: number; zeroedPages: number }> {
  const plans = request.regions.map((region) => planRegion(region, target, base));
  const total = plans.reduce((sum, plan) => sum + plan.fills, 0);
  let done = 0;
  let zeroed = 0;
  for (const plan of plans) {
    for (let k = 1; k < plan.zeros.length; k += 2) zeroed += plan.zeros[k]!;
    await decodeAll(plan, request.phase === 'fill', log, codecs, watch.aborted, (pages) => {
      done += pages;
      watch.onProgress(done, total);
    });
    if (request.phase === 'fill') addon().regionZero(plan.native, plan.zeros);
  }
  return { filledPages: total, zeroedPages: zeroed };
}

function planRegion(request: RestoreRequest['regions'][number], target: PageTable, base: PageTable | undefined): RegionPlan {
  const wanted = target.regions.get(request.name);
  if (wanted === undefined) throw new TidemarkError('TIDEMARK_REGION_MISMATCH', `the checkpoint has no region ${request.name}`);
  const pageCount = request.byteLength / PAGE_SIZE;
  const changed = new Uint8Array(pageCount);
  for (let k = 0; k < request.changed.length; k += 2)
    changed.fill(1, request.changed[k], request.changed[k]! + request.changed[k + 1]!);
  markDifferent(changed, wanted, request.known ? base?.regions.get(request.name) : undefined);
  const fills: number[] = [];
  const zeros: number[] = [];
  for (let page = 0; page < pageCount; page++) {
    if (changed[page] === 0) continue;
    if (wanted.kind(page) === Version.full) fills.push(page);
    else zeros.push(page);
  }
  return {
    native: request.native,
    uses: groupByExtent(wanted, fills),
    zeros: toRuns(Uint32Array.from(zeros)),
    fills: fills.length,
  };
}

/** Marks the pages whose version in `wanted` is not the one that `has` holds. */
function markDifferent(changed: Uint8Array, wanted: RegionTable, has: RegionTable | undefined): void {
  for (let page = 0; page < changed.length; page++) if (changed[page] === 0 && !wanted.sameVersion(has, page)) changed[page] = 1;
}

/**
 * Reads the extents a few at a time and keeps the codec threads busy with them. Whatever fails, no job is under way any more when it ends:
 * one that went on would write into memory that the program has back.
 */
async function decodeAll(
  plan: RegionPlan,
  fill: boolean,
  log: Log,
  codecs: CodecPorts,
  aborted: () => boolean,
  onPages: (pages: number) => void,
): Promise<void> {
  const running = new Set<Promise<void>>();
  let failure: unknown;
  const start = (use: ExtentUse, record: Uint8Array | undefined): void => {
    const job = decode(use, present(record, use.record))
      .then(() => onPages(use.pages.length))
      .catch((error) => {
        failure ??= error;
      })
      .finally(() => running.delete(job));
    running.add(job);
  };
  const decode = (use: ExtentUse, record: Uint8Array): Promise<void> =>
    codecs.decode({ ...jobOf(use, log), record, fill: fill ? plan.native : 0 });
  try {
    for (let k = 0; k < plan.uses.length && failure === undefined; k += READ_AT_ONCE) {
      if (aborted()) throw new TidemarkError('TIDEMARK_ABORTED', 'the restore was aborted');
      const uses = plan.uses.slice(k, k + READ_AT_ONCE);
      const numbers = uses.map((use) => use.record);
      const records = await log.records(numbers, Kind.extent);
      for (const [j, use] of uses.entries()) {
        while (running.size >= codecs.width && failure === undefined) await Promise.race(running);
        if (failure === undefined) start(use, records[j]);
      }
    }
  } finally {
    await Promise.all(running);
  }
  if (failure !== undefined) throw failure;
}

function jobOf(
  use: ExtentUse,
  log: Log,
): { number: number; store: Uint8Array; slots: Uint8Array; pages: Uint32Array; crcs: Uint32Array } {
  return { number: use.record, store: log.store, slots: use.slots, pages: use.pages, crcs: use.crcs };
}
