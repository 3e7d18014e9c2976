import { ExtentKind } from '../chain/extent-kind.js';
import { concat } from '../chain/runs.js';
import { allSlots, type StoredExtent } from '../chain/stored-extents.js';
import { PageKind, type Slice } from '../engine/protocol.js';
import type { PendingSegment } from './session.js';

/** What is left of the slices of a region when of each page only the newest version counts. */
export interface NewestVersions {
  /** Pages stored full, and as deltas. */
  extents: StoredExtent[];
  deltas: StoredExtent[];
  /** Pages that are zero, ascending. */
  zeros: Uint32Array;
  /** Pages that hold what the version before holds. */
  unchangedPages: number;
  /** Records of extents in which no page counts any more. */
  superseded: number[];
  /** What the deltas were made against, and what the unchanged pages were compared with. */
  compared: ComparedPages[];
}

/** Pages, and the CRC32C that the version before each of them must have. */
export interface ComparedPages {
  pages: Uint32Array;
  bases: Uint32Array;
}

/**
 * A capture is one slice; what `precopy()` took ahead comes before it. A page in several slices counts as the last one holds it: it was
 * armed before it was copied, so a write that an earlier copy missed, or tore, has brought it into a later slice.
 * @param segments of all slices, in order
 */
export function newestVersions(slices: readonly Slice[], segments: readonly PendingSegment[], pageCount: number): NewestVersions {
  const newest: NewestVersions = { extents: [], deltas: [], zeros: NO_PAGES, unchangedPages: 0, superseded: [], compared: [] };
  const seen = slices.length === 1 ? undefined : new Uint8Array(pageCount);
  const take = (page: number): boolean => {
    if (seen === undefined) return true;
    if (seen[page] === 1) return false;
    seen[page] = 1;
    return true;
  };
  const zeros: Uint32Array[] = [];
  let next = segments.length;
  for (const slice of [...slices].reverse()) {
    next -= slice.segments.length;
    // A slice has a page once: either in its segments or among its zeros.
    zeros.push(slice.zeros.filter(take));
    let at = 0;
    for (const [k, count] of slice.segments.entries()) {
      addSegment(newest, segments[next + k]!, slice.pages.subarray(at, at + count), take);
      at += count;
    }
  }
  newest.extents.sort(byRecord);
  newest.deltas.sort(byRecord);
  newest.zeros = zeros.length === 1 ? zeros[0]! : concat(zeros).sort();
  return newest;
}

const NO_PAGES = new Uint32Array(0);

function byRecord(a: StoredExtent, b: StoredExtent): number {
  return a.record - b.record;
}

function addSegment(newest: NewestVersions, segment: PendingSegment, pages: Uint32Array, take: (page: number) => boolean): void {
  const { kinds, crcs, bases } = segment;
  const counts = pages.map((page) => (take(page) ? 1 : 0));
  const compared = indices(kinds, (kind, k) => kind !== PageKind.full && counts[k] === 1);
  if (compared.length > 0) newest.compared.push({ pages: at(pages, compared), bases: at(bases, compared) });
  newest.unchangedPages += compared.filter((k) => kinds[k] === PageKind.unchanged).length;
  for (const { kind, record } of segment.extents) {
    const wanted = kind === ExtentKind.full ? PageKind.full : PageKind.delta;
    const slots = indices(kinds, (one) => one === wanted);
    const live = slots.filter((k) => counts[k] === 1);
    if (live.length === 0) {
      newest.superseded.push(record);
      continue;
    }
    const count = slots.length;
    const counting = live.length === count ? allSlots(count) : Uint8Array.from(indices(slots, (k) => counts[k] === 1));
    const extent: StoredExtent = { record, count, slots: counting, pages: at(pages, live), crcs: at(crcs, live) };
    (kind === ExtentKind.full ? newest.extents : newest.deltas).push(extent);
  }
}

function indices(values: Uint8Array | Uint32Array, wanted: (value: number, k: number) => boolean): Uint32Array {
  const found = new Uint32Array(values.length);
  let count = 0;
  for (let k = 0; k < values.length; k++) if (wanted(values[k]!, k)) found[count++] = k;
  return found.subarray(0, count);
}

function at(values: Uint32Array, where: Uint32Array): Uint32Array {
  return where.length === values.length ? values : where.map((k) => values[k]!);
}
