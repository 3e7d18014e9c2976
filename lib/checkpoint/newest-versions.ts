import type { StoredExtent } from '../chain/stored-extents.js';
import type { Slice } from '../engine/protocol.js';
import type { PendingExtent } from './session.js';

/** What is left of the slices of a region when of each page only the newest version counts. */
export interface NewestVersions {
  extents: StoredExtent[];
  /** Pages that are zero, ascending. */
  zeros: Uint32Array;
  /** Records of extents in which no page counts any more. */
  superseded: number[];
}

/**
 * A capture is one slice; what `precopy()` took ahead comes before it. A page in several slices counts as the last one holds it: it was
 * armed before it was copied, so a write that an earlier copy missed, or tore, has brought it into a later slice.
 * @param extents of all slices, in order
 */
export function newestVersions(slices: readonly Slice[], extents: readonly PendingExtent[], pageCount: number): NewestVersions {
  if (slices.length === 1) {
    const [slice] = slices as [Slice];
    return { extents: extentsOf(slice, extents, 0), zeros: slice.zeros, superseded: [] };
  }
  const seen = new Uint8Array(pageCount);
  const take = (page: number): boolean => {
    if (seen[page] === 1) return false;
    seen[page] = 1;
    return true;
  };
  const kept: StoredExtent[][] = [];
  const zeros: Uint32Array[] = [];
  const superseded: number[] = [];
  let next = extents.length;
  for (const slice of [...slices].reverse()) {
    next -= slice.segments.length;
    // A slice has a page once: either in its extents or among its zeros.
    zeros.push(slice.zeros.filter(take));
    const some: StoredExtent[] = [];
    for (const extent of extentsOf(slice, extents, next)) {
      const live = extent.pages.map((page, slot) => (take(page) ? slot : NONE)).filter((slot) => slot !== NONE);
      if (live.length === 0) superseded.push(extent.record);
      else some.push(live.length === extent.count ? extent : reduced(extent, live));
    }
    kept.push(some);
  }
  const zeroPages = new Uint32Array(zeros.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const some of zeros) {
    zeroPages.set(some, at);
    at += some.length;
  }
  return { extents: kept.reverse().flat(), zeros: zeroPages.sort(), superseded };
}

const NONE = 0xffff_ffff;

function reduced({ record, count, pages, crcs }: StoredExtent, live: Uint32Array): StoredExtent {
  const of = (values: Uint32Array) => live.map((slot) => values[slot]!);
  return { record, count, slots: Uint8Array.from(live), pages: of(pages), crcs: of(crcs) };
}

function extentsOf({ pages, segments }: Slice, extents: readonly PendingExtent[], first: number): StoredExtent[] {
  let at = 0;
  return Array.from(segments, (count, k) => {
    const { record, crcs } = extents[first + k]!;
    const part = pages.subarray(at, at + count);
    at += count;
    return { record, count, pages: part, crcs };
  });
}
