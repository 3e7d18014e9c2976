import type { Stored } from './page-table.js';

const NONE = 0;
const FULL = 2;
const FIRST_CAPACITY = 256;
/** More versions below a delta nobody writes; a reader must not be made to keep any number of them. */
export const MOST_OLDER = 64;

/** What must be done with one version. */
export type Visit = (kind: Stored, record: number, slot: number) => void;

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
  #kind = new Uint8Array(0);
  #next = new Uint32Array(0);
  /** Nodes that are free again, linked by `next`. */
  #free = NONE;
  #used = 1;
  #live = 0;

  /** Versions kept. */
  get size(): number {
    return this.#live;
  }

  /** Puts a version before the others of a page. */
  push(page: number, kind: Stored, record: number, slot: number): void {
    const node = this.#take(kind, record, slot);
    this.#reach(page);
    this.#next[node] = this.#first[page]!;
    this.#first[page] = node;
  }

  /** Puts a version behind the others of a page. */
  append(page: number, kind: Stored, record: number, slot: number): void {
    const node = this.#take(kind, record, slot);
    this.#reach(page);
    this.#next[node] = NONE;
    const last = this.#last(page);
    if (last === NONE) this.#first[page] = node;
    else this.#next[last] = node;
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

  /** The kind of the last version of a page; undefined where it has none. */
  oldest(page: number): number | undefined {
    const last = this.#last(page);
    return last === NONE ? undefined : this.#kind[last];
  }

  count(page: number): number {
    let count = 0;
    for (let node = this.#first[page] ?? NONE; node !== NONE; node = this.#next[node]!) count++;
    return count;
  }

  each(page: number, visit: Visit): void {
    for (let node = this.#first[page] ?? NONE; node !== NONE; node = this.#next[node]!)
      visit(this.#kind[node] as Stored, this.#recordHigh[node]! * 0x1_0000_0000 + this.#recordLow[node]!, this.#slot[node]!);
  }

  #last(page: number): number {
    let last = NONE;
    // The list ends with the full version, if that is known: nothing is looked for behind it.
    for (let node = this.#first[page] ?? NONE; node !== NONE && this.#kind[last] !== FULL; node = this.#next[node]!) last = node;
    return last;
  }

  #take(kind: Stored, record: number, slot: number): number {
    let node = this.#free;
    if (node === NONE) {
      node = this.#used++;
      if (node >= this.#next.length) this.#grow(Math.max(FIRST_CAPACITY, Math.ceil(this.#next.length * 1.5)));
    } else {
      this.#free = this.#next[node]!;
    }
    this.#live++;
    this.#recordLow[node] = record >>> 0;
    this.#recordHigh[node] = Math.floor(record / 0x1_0000_0000);
    this.#slot[node] = slot;
    this.#kind[node] = kind;
    return node;
  }

  #reach(page: number): void {
    if (page >= this.#first.length)
      this.#first = enlarge(this.#first, new Uint32Array(Math.max(page + 1, this.#first.length * 2)));
  }

  #grow(capacity: number): void {
    this.#recordLow = enlarge(this.#recordLow, new Uint32Array(capacity));
    this.#recordHigh = enlarge(this.#recordHigh, new Uint16Array(capacity));
    this.#slot = enlarge(this.#slot, new Uint8Array(capacity));
    this.#kind = enlarge(this.#kind, new Uint8Array(capacity));
    this.#next = enlarge(this.#next, new Uint32Array(capacity));
  }
}

function enlarge<T extends Uint8Array | Uint16Array | Uint32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
