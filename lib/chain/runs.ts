/** Sets of pages as runs, `[firstPage, pageCount, ...]`, ascending and not touching. */
export type Runs = Uint32Array;

export function countPages(runs: Runs): number {
  let count = 0;
  for (let k = 1; k < runs.length; k += 2) count += runs[k]!;
  return count;
}

/** Ascending page numbers as runs. */
export function toRuns(pages: Uint32Array): Runs {
  let runCount = 0;
  for (let k = 0; k < pages.length; k++) if (k === 0 || pages[k] !== pages[k - 1]! + 1) runCount++;
  const runs = new Uint32Array(runCount * 2);
  let at = -2;
  for (let k = 0; k < pages.length; k++) {
    if (k === 0 || pages[k] !== pages[k - 1]! + 1) {
      at += 2;
      runs[at] = pages[k]!;
    }
    runs[at + 1]!++;
  }
  return runs;
}

export function toPages(runs: Runs): Uint32Array {
  const pages = new Uint32Array(countPages(runs));
  let at = 0;
  for (let k = 0; k < runs.length; k += 2) {
    const end = runs[k]! + runs[k + 1]!;
    for (let page = runs[k]!; page < end; page++) pages[at++] = page;
  }
  return pages;
}

/** The pages that are in either set. */
export function union(a: Runs, b: Runs): Runs {
  if (a.length === 0) return b;
  if (b.length === 0) return a;
  const merged: number[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const fromA = j >= b.length || (i < a.length && a[i]! <= b[j]!);
    const first = fromA ? a[i]! : b[j]!;
    const count = fromA ? a[i + 1]! : b[j + 1]!;
    if (fromA) i += 2;
    else j += 2;
    const last = merged.length - 2;
    if (last >= 0 && first <= merged[last]! + merged[last + 1]!) {
      merged[last + 1] = Math.max(merged[last + 1]!, first + count - merged[last]!);
    } else {
      merged.push(first, count);
    }
  }
  return Uint32Array.from(merged);
}

/** The pages of `a` that are not in `b`. */
export function without(a: Runs, b: Runs): Runs {
  if (b.length === 0) return a;
  const left: number[] = [];
  let next = 0;
  for (let k = 0; k < a.length; k += 2) {
    let at = a[k]!;
    const end = at + a[k + 1]!;
    while (next < b.length && b[next]! + b[next + 1]! <= at) next += 2;
    for (let j = next; j < b.length && b[j]! < end; j += 2) {
      if (b[j]! > at) left.push(at, b[j]! - at);
      at = b[j]! + b[j + 1]!;
    }
    if (at < end) left.push(at, end - at);
  }
  return Uint32Array.from(left);
}

/** `0-15, 20`: for people. */
export function pageRanges(runs: ArrayLike<number>): string {
  const ranges: string[] = [];
  for (let k = 0; k + 1 < runs.length; k += 2) {
    const [first, pages] = [runs[k]!, runs[k + 1]!];
    ranges.push(pages === 1 ? `${first}` : `${first}-${first + pages - 1}`);
  }
  return ranges.join(', ');
}

/** Lists of numbers, one behind the other. */
export function concat(parts: readonly Uint32Array[]): Uint32Array {
  const joined = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
