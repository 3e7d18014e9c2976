import { checkExtentUse } from '../chain/assembly.js';
import { type PageTable, type RegionTable, Version } from '../chain/page-table.js';
import { concat, toPages, toRuns, union } from '../chain/runs.js';
import type { RestoreRequest } from '../engine/protocol.js';
import { TidemarkError } from '../errors.js';
import { PAGE_SIZE } from '../kernel/addon.js';

/** Pages of one extent that are stored full: ascending, as `regionFill` takes them, and the slot of each. */
export interface ExtentUse {
  record: number;
  slots: Uint8Array;
  pages: Uint32Array;
}

/** What has to change in one region. */
export interface RegionPlan {
  request: RestoreRequest['regions'][number];
  wanted: RegionTable;
  has: RegionTable | undefined;
  /** Pages that are one full version, by its record. */
  plain: Map<number, ExtentUse>;
  /** Pages that are made of several versions, or of what is in memory, ascending. */
  assembled: Uint32Array;
  /** 1 for those of them that are made of what is in memory: `deltasBetween` what it has and what is wanted. */
  fromMemory: Uint8Array;
  /** Pages that must be zero, runs. */
  zeros: Uint32Array;
  fills: number;
}

/** @param base the page tables of the checkpoint that the memory descends from, when it does */
export function planRegion(
  request: RestoreRequest['regions'][number],
  target: PageTable,
  base: PageTable | undefined,
): RegionPlan {
  const wanted = target.regions.get(request.name);
  if (wanted === undefined) throw new TidemarkError('TIDEMARK_REGION_MISMATCH', `the checkpoint has no region ${request.name}`);
  const has = request.known ? base?.regions.get(request.name) : undefined;
  const isWritten = new Uint8Array(request.byteLength / PAGE_SIZE);
  for (let k = 0; k < request.changed.length; k += 2)
    isWritten.fill(1, request.changed[k], request.changed[k]! + request.changed[k + 1]!);
  const pages = toPages(union(wanted.differences(has), request.changed));
  const plain = new Uint32Array(pages.length);
  let plainCount = 0;
  const assembled: number[] = [];
  const zeros: number[] = [];
  const fromMemory: number[] = [];
  for (const page of pages) {
    if (page >= isWritten.length) break;
    if (!wanted.isStored(page)) {
      zeros.push(page);
      continue;
    }
    // Of pages that were written nobody knows what they hold: it is never what deltas are put on.
    const ofMemory = isWritten[page] === 0 && has !== undefined && wanted.sharesFullVersion(has, page);
    if (ofMemory || wanted.kind(page) === Version.delta) {
      assembled.push(page);
      fromMemory.push(ofMemory ? 1 : 0);
    } else {
      plain[plainCount++] = page;
    }
  }
  return {
    request,
    wanted,
    has,
    plain: groupByExtent(wanted, plain.subarray(0, plainCount)),
    assembled: Uint32Array.from(assembled),
    fromMemory: Uint8Array.from(fromMemory),
    zeros: toRuns(Uint32Array.from(zeros)),
    fills: plainCount + assembled.length,
  };
}

/** In the order of the records. @param pages ascending: most of them in the extent of the one before. @throws `TIDEMARK_DAMAGED` */
export function groupByExtent({ recordLow, recordHigh, slot }: RegionTable, pages: Uint32Array): Map<number, ExtentUse> {
  const rows = new Map<number, { parts: Uint32Array[]; count: number }>();
  for (let from = 0, to = 0; from < pages.length; from = to) {
    const low = recordLow[pages[from]!]!;
    const high = recordHigh[pages[from]!]!;
    while (to < pages.length && recordLow[pages[to]!] === low && recordHigh[pages[to]!] === high) to++;
    const record = high * 0x1_0000_0000 + low;
    const row = rows.get(record) ?? { parts: [], count: 0 };
    row.parts.push(pages.subarray(from, to));
    row.count += to - from;
    // At once: a damaged table may name two extents in turn for many gigabytes, and that would be a view for each page.
    checkExtentUse(record, row.count);
    rows.set(record, row);
  }
  const uses = new Map<number, ExtentUse>();
  for (const [record, { parts }] of [...rows].sort(([a], [b]) => a - b)) {
    // Copied: a message takes the whole buffer of a view along.
    const own = concat(parts);
    const slots = new Uint8Array(own.length);
    for (let k = 0; k < own.length; k++) slots[k] = slot[own[k]!]!;
    uses.set(record, { record, slots, pages: own });
  }
  return uses;
}
