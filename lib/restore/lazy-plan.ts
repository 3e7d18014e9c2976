import { FRAME_PAGES } from '../chain/extent.js';
import { type PageTable, type RegionTable, Version } from '../chain/page-table.js';
import { type Runs, toRuns } from '../chain/runs.js';
import type { RestoreRequest } from '../engine/protocol.js';
import { groupByExtent, planRegion, type RegionPlan } from './plan.js';

/** How far from a page others of its frame are looked for. */
const FRAME_REACH = 2 * FRAME_PAGES;

/** What of a region has to be made missing, and what zero. */
export function missingOf(
  region: RestoreRequest['regions'][number],
  target: PageTable,
  base: PageTable | undefined,
): { region: RestoreRequest['regions'][number]; wanted: RegionTable; missing: Runs; zeros: Runs } {
  const wanted = target.regions.get(region.name);
  if (wanted !== undefined && !region.known && region.changed.length === 0)
    return { region, wanted, missing: wanted.stored(), zeros: new Uint32Array(0) };
  const plan = planRegion(region, target, base);
  const pages = new Uint32Array(plan.fills);
  pages.set(plan.assembled);
  let at = plan.assembled.length;
  for (const use of plan.plain.values()) {
    pages.set(use.pages, at);
    at += use.pages.length;
  }
  return { region, wanted: plan.wanted, missing: toRuns(pages.sort()), zeros: plan.zeros };
}

export function slicePlan({ request, wanted }: Pick<RegionPlan, 'request' | 'wanted'>, pages: Uint32Array): RegionPlan {
  const assembled = pages.filter((page) => wanted.kind(page) === Version.delta);
  const plain = assembled.length === 0 ? pages : pages.filter((page) => wanted.kind(page) !== Version.delta);
  return {
    request,
    wanted,
    has: undefined,
    plain: groupByExtent(wanted, plain),
    assembled,
    fromMemory: new Uint8Array(assembled.length),
    zeros: new Uint32Array(0),
    fills: pages.length,
  };
}

/** The page, and where it is one full version, those whose bytes are decompressed with it. Ascending. */
export function frameOf(wanted: RegionTable, page: number): Uint32Array {
  if (wanted.kind(page) !== Version.full) return Uint32Array.of(page);
  const record = wanted.record(page);
  const frame = Math.floor(wanted.slot[page]! / FRAME_PAGES);
  const pages: number[] = [];
  const end = Math.min(page + FRAME_REACH, wanted.pageCount);
  for (let k = Math.max(0, page - FRAME_REACH); k < end; k++) {
    if (wanted.kind(k) !== Version.full || wanted.record(k) !== record) continue;
    if (Math.floor(wanted.slot[k]! / FRAME_PAGES) === frame) pages.push(k);
  }
  return Uint32Array.from(pages);
}
