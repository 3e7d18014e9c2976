import type { Stored } from './page-table.js';

const NONE = 0;
const FULL = 2;
const KIND_MASK = 0x0f;
const FIRST_CAPACITY = 256;
/** More versions below a delta nobody writes; a reader must not be made to keep any number of them. */
export const MOST_OLDER = 64;
/** What one of them takes in memory. */
export const OLDER_VERSION_BYTES = 12;

/**
 * The versions below the newest one of pages that are stored as deltas, newest first, down to the full one: a list for each page, its nodes in
 * a pool (12 bytes a node, and 4 bytes a page where there are any), no objects.
 */
export class OlderVersions {
  /** The first node of each page; nodes are numbered from 1. */
  #first = new Uint32Array(0);
  #recordLow = new Uint32Array(0);
  #recordHigh = new Uint16Array(0);
  #slot = new Uint8Array(0);
  /** Kind in the low four bits, in the high four the levels whose next table must have this version. */
  #state = new Uint8Array(0);
  #next = new Uint32Array(0);
  /** Nodes that are free again, linked by `next`. */
  #free = NONE;
  #used = 1;
  #live = 0;
  #pageCount: number;
  /** While a table is loaded: the last node of each page, and how many it has. */
  #last: Uint32Array | undefined;
  #counts: Uint8Array | undefined;

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
    const node = this.#take(kind, record, slot, levels);
    this.#reach(page);
    this.#next[node] = this.#first[page]!;
    this.#first[page] = node;
  }

  /** Puts a version behind the others of a page. False when there are too many. */
  append(page: number, kind: Stored, record: number, slot: number, levels: number): boolean {
    this.#reach(page);
    if (this.#last === undefined || this.#last.length < this.#first.length) {
      this.#last = enlarge(this.#last ?? new Uint32Array(0), new Uint32Array(this.#first.length));
      this.#counts = enlarge(this.#counts ?? new Uint8Array(0), new Uint8Array(this.#first.length));
    }
    if (this.#counts![page]! === MOST_OLDER) return false;
    const node = this.#take(kind, record, slot, levels);
    this.#next[node] = NONE;
    const last = this.#last[page]!;
    if (last === NONE) this.#first[page] = node;
    else this.#next[last] = node;
    this.#last[page] = node;
    this.#counts![page]!++;
    return true;
  }

  /** While a table is loaded: the page's list ends with a full version. */
  isWhole(page: number): boolean {
    const last = this.#last?.[page] ?? NONE;
    return last !== NONE && this.kind(last) === FULL;
  }

  /** The table is loaded: nothing is appended any more. */
  loaded(): void {
    this.#last = undefined;
    this.#counts = undefined;
  }

  clear(page: number): void {
    if (page >= this.#first.length) return;
    for (let node = this.#first[page]!; node !== NONE; ) {
      const next = this.#next[node]!;
      this.#next[node] = this.#free;
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
    return this.#next[node]!;
  }

  kind(node: number): Stored {
    return (this.#state[node]! & KIND_MASK) as Stored;
  }

  record(node: number): number {
    return this.#recordHigh[node]! * 0x1_0000_0000 + this.#recordLow[node]!;
  }

  slot(node: number): number {
    return this.#slot[node]!;
  }

  /** Whether the next table of `level` must have it. */
  isPending(node: number, level: number): boolean {
    return (this.#state[node]! & (1 << (level + 3))) !== 0;
  }

  /** @param keep a mask of the state, in which the levels that have their table now are 0 */
  clearPending(keep: number): void {
    for (let node = 1; node < this.#used; node++) this.#state[node]! &= keep;
  }

  count(page: number): number {
    let count = 0;
    for (let node = this.first(page); node !== NONE; node = this.#next[node]!) count++;
    return count;
  }

  #take(kind: Stored, record: number, slot: number, levels: number): number {
    let node = this.#free;
    if (node === NONE) {
      node = this.#used++;
      if (node >= this.#next.length) this.#grow(Math.max(FIRST_CAPACITY, Math.ceil(this.#next.length * 1.25)));
    } else {
      this.#free = this.#next[node]!;
    }
    this.#live++;
    this.#recordLow[node] = record >>> 0;
    this.#recordHigh[node] = Math.floor(record / 0x1_0000_0000);
    this.#slot[node] = slot;
    this.#state[node] = kind | (levels << 4);
    return node;
  }

  #reach(page: number): void {
    if (page < this.#first.length) return;
    this.#first = enlarge(this.#first, new Uint32Array(capacityFor(page + 1, this.#pageCount)));
  }

  #grow(capacity: number): void {
    this.#recordLow = enlarge(this.#recordLow, new Uint32Array(capacity));
    this.#recordHigh = enlarge(this.#recordHigh, new Uint16Array(capacity));
    this.#slot = enlarge(this.#slot, new Uint8Array(capacity));
    this.#state = enlarge(this.#state, new Uint8Array(capacity));
    this.#next = enlarge(this.#next, new Uint32Array(capacity));
  }
}

/** A length of an array that must reach to `end`, of `most` that are expected: growing page by page it is seldom made anew. */
export function capacityFor(end: number, most: number): number {
  return Math.max(end, Math.min(2 ** Math.ceil(Math.log2(end)), most));
}

/** The same, longer. */
export function enlarge<T extends Uint8Array | Uint16Array | Uint32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
