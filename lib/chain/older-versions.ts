import { type LoadingColumns, NO_ROOM } from '../kernel/addon.js';
import type { Stored } from './page-table.js';
import { capacityFor, VersionColumns } from './version-columns.js';

const NONE = 0;
const KIND_MASK = 0x0f;
const FIRST_CAPACITY = 256;
/** More versions below a delta nobody writes; a reader must not be made to keep any number of them. */
export const MOST_OLDER = 64;

/** While a table is loaded, of each page: its last version, and how many it has; and how many pages have no full one yet. */
interface Loading {
  last: Uint32Array;
  counts: Uint8Array;
  open: number;
}

/**
 * The versions below the newest one of pages that are stored as deltas, newest first, down to the full one: a list for each page, its nodes in
 * a pool (12 bytes a node, and 4 bytes a page where there are any), no objects.
 */
export class OlderVersions {
  /** The first node of each page; nodes are numbered from 1. */
  #first = new Uint32Array(0);
  /** The nodes: the next one as the extra word; as state the kind in the low four bits, in the high four the levels whose next table must have it. */
  #pool = new VersionColumns(0);
  /** Nodes that are free again, linked by `extra`. */
  #free = NONE;
  #used = 1;
  #live = 0;
  #pageCount: number;
  #loading: Loading | undefined;

  constructor(pageCount: number) {
    this.#pageCount = pageCount;
  }

  /** There may be pages up to here. */
  set pageCount(count: number) {
    this.#pageCount = count;
  }

  /** Versions kept. */
  get size(): number {
    return this.#live;
  }

  /** Puts a version before the others of a page. */
  push(page: number, kind: Stored, record: number, slot: number, levels: number): void {
    const node = this.#take();
    this.#reach(page + 1);
    this.#pool.set(node, record, slot, this.#first[page]!, kind | (levels << 4));
    this.#first[page] = node;
  }

  /** While a table is loaded, newest version first: has versions added to it and to the lists. @returns what `add` does, but for NO_ROOM */
  load(newest: VersionColumns, add: (columns: LoadingColumns) => number | undefined): number | undefined {
    this.#loading ??= { last: new Uint32Array(0), counts: new Uint8Array(0), open: 0 };
    const loading = this.#loading;
    const counters = Uint32Array.of(this.#used, loading.open, 0);
    for (;;) {
      if (loading.open > 0) this.#makeRoom(newest.count, loading);
      const result = add([newest.bytes, this.#pool.bytes, this.#first, loading.last, loading.counts, counters]);
      this.#live += counters[0]! - this.#used;
      [this.#used, loading.open] = [counters[0]!, counters[1]!];
      // Once for each page is enough, unless what is added has a page twice, which it should not.
      if (result !== NO_ROOM) return result;
    }
  }

  /** For one more version of every page that is open. */
  #makeRoom(pages: number, loading: Loading): void {
    this.#reach(pages);
    if (loading.last.length < this.#first.length) {
      loading.last = enlarge(loading.last, new Uint32Array(this.#first.length));
      loading.counts = enlarge(loading.counts, new Uint8Array(this.#first.length));
    }
    this.#reserve(loading.open);
  }

  /** While a table is loaded: pages that are stored as deltas without the page that they build on. */
  get open(): number {
    return this.#loading?.open ?? 0;
  }

  /** The table is loaded: nothing is added below any more. */
  loaded(): void {
    this.#loading = undefined;
  }

  clear(page: number): void {
    if (page >= this.#first.length) return;
    const { extra } = this.#pool;
    for (let node = this.#first[page]!; node !== NONE; ) {
      const next = extra[node]!;
      extra[node] = this.#free;
      this.#free = node;
      this.#live--;
      node = next;
    }
    this.#first[page] = NONE;
  }

  /** The node of the first version of a page, or of the next one; 0 when there is none. */
  first(page: number): number {
    return this.#first[page] ?? NONE;
  }

  next(node: number): number {
    return this.#pool.extra[node]!;
  }

  /** The node of the full version of a page; 0 when there is none. */
  oldest(page: number): number {
    let node = this.first(page);
    for (let next = node; next !== NONE; next = this.next(node)) node = next;
    return node;
  }

  kind(node: number): Stored {
    return (this.#pool.state[node]! & KIND_MASK) as Stored;
  }

  record(node: number): number {
    return this.#pool.record(node);
  }

  slot(node: number): number {
    return this.#pool.slot[node]!;
  }

  /** Whether the next table of `level` must have it. */
  isPending(node: number, level: number): boolean {
    return (this.#pool.state[node]! & (1 << (level + 3))) !== 0;
  }

  /** @param keep a mask of the state, in which the levels that have their table now are 0 */
  clearPending(keep: number): void {
    const { state } = this.#pool;
    for (let node = 1; node < this.#used; node++) state[node]! &= keep;
  }

  count(page: number): number {
    let count = 0;
    for (let node = this.first(page); node !== NONE; node = this.next(node)) count++;
    return count;
  }

  /** A node that nobody uses. */
  #take(): number {
    this.#live++;
    const node = this.#free;
    if (node === NONE) {
      this.#reserve(1);
      return this.#used++;
    }
    this.#free = this.next(node);
    return node;
  }

  /** The pool has room for so many more. */
  #reserve(nodes: number): void {
    const { count } = this.#pool;
    if (this.#used + nodes > count)
      this.#pool = this.#pool.enlarged(Math.max(FIRST_CAPACITY, Math.ceil(count * 1.25), this.#used + nodes));
  }

  #reach(end: number): void {
    if (end > this.#first.length) this.#first = enlarge(this.#first, new Uint32Array(capacityFor(end, this.#pageCount)));
  }
}

/** The same, longer. */
function enlarge<T extends Uint8Array | Uint32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
