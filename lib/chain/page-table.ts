import { addon, SEGMENT_PAGES } from '../kernel/addon.js';
import { damaged } from './damage.js';
import type { StoredAttachment } from './manifest.js';
import { capacityFor, enlarge, MOST_OLDER, OlderVersions } from './older-versions.js';
import type { StoredExtent } from './stored-extents.js';

/** What the newest version of a page is. `absent` (never stored) and `zero` read the same; from `full` on something is stored. */
export const Version = { absent: 0, zero: 1, full: 2, delta: 3 } as const;

/** How a page is stored. */
export type Stored = typeof Version.full | typeof Version.delta;

/** Levels of tables above the manifests: a table of level k covers 16^k checkpoints. */
export const LEVELS = 4;
const KIND_MASK = 0x0f;

/** The number of checkpoints a table of `level` covers. */
export function levelSpan(level: number): number {
  return 16 ** level;
}

/** The level of the table that a checkpoint of this depth commits; 0: none. */
export function tableLevel(depth: number): number {
  if (depth === 0) return 0;
  let level = 0;
  while (level < LEVELS && depth % levelSpan(level + 1) === 0) level++;
  return level;
}

/** The levels (as a mask) for which a change at `depth` is newer than the last table, seen from `head`. */
export function pendingLevels(depth: number, head: number): number {
  let mask = 0;
  for (let level = 1; level <= LEVELS; level++) {
    const span = levelSpan(level);
    if (depth > Math.floor(head / span) * span) mask |= 1 << (level - 1);
  }
  return mask;
}

const SLOTS = Uint8Array.from({ length: SEGMENT_PAGES }, (_, slot) => slot);
const UNKNOWN = new Uint8Array(SEGMENT_PAGES);

/** Nothing has been entered for these pages yet. */
function isUnknown(state: Uint8Array): boolean {
  return Buffer.compare(state, UNKNOWN.subarray(0, state.length)) === 0;
}

/** Where the newest version of each page of one region is, as of one checkpoint: 12 bytes a page up to the last one with a version, no objects. */
export class RegionTable {
  readonly number: number;
  readonly name: string;
  byteLength: number;
  length: number;
  /** Pages that the region has; the arrays may be shorter, for much of a region may be reserved and never written. */
  pageCount: number;
  /** Low and high part of the number of the extent's record. */
  recordLow = new Uint32Array(0);
  recordHigh = new Uint16Array(0);
  slot = new Uint8Array(0);
  /** Kind of version in the low four bits, in the high four the levels whose next table must have this page. */
  #state = new Uint8Array(0);
  /** Of the page that must come out. */
  crc = new Uint32Array(0);
  /** What the newest versions that are deltas build on. */
  readonly older: OlderVersions;

  constructor(number: number, name: string, byteLength: number, length: number, pageCount: number) {
    this.number = number;
    this.name = name;
    this.byteLength = byteLength;
    this.length = length;
    this.pageCount = pageCount;
    this.older = new OlderVersions(pageCount);
  }

  grow(pageCount: number): void {
    if (pageCount <= this.pageCount) return;
    this.pageCount = pageCount;
    this.older.pageCount = pageCount;
  }

  /** The arrays have room for pages before `end`. */
  #reach(end: number): void {
    if (end <= this.crc.length) return;
    const capacity = capacityFor(end, this.pageCount);
    this.recordLow = enlarge(this.recordLow, new Uint32Array(capacity));
    this.recordHigh = enlarge(this.recordHigh, new Uint16Array(capacity));
    this.slot = enlarge(this.slot, new Uint8Array(capacity));
    this.#state = enlarge(this.#state, new Uint8Array(capacity));
    this.crc = enlarge(this.crc, new Uint32Array(capacity));
  }

  kind(page: number): number {
    return page < this.#state.length ? this.#state[page]! & KIND_MASK : Version.absent;
  }

  record(page: number): number {
    return this.recordHigh[page]! * 0x1_0000_0000 + this.recordLow[page]!;
  }

  isStored(page: number): boolean {
    return this.kind(page) >= Version.full;
  }

  /** A newer version of a page. What a delta builds on is kept below it. */
  setStored(page: number, kind: Stored, record: number, slot: number, crc: number, levels: number): void {
    this.#reach(page + 1);
    if (kind === Version.delta) {
      if (this.isStored(page))
        this.older.push(page, this.kind(page) as Stored, this.record(page), this.slot[page]!, this.#state[page]! >> 4);
    } else {
      this.older.clear(page);
    }
    this.recordLow[page] = record >>> 0;
    this.recordHigh[page] = Math.floor(record / 0x1_0000_0000);
    this.slot[page] = slot;
    this.crc[page] = crc;
    this.#state[page] = kind | (this.#state[page]! & ~KIND_MASK) | (levels << 4);
  }

  /** While a table is loaded, newest version first: nothing is known of the page, or only deltas. */
  isOpen(page: number): boolean {
    const kind = this.kind(page);
    return kind === Version.absent || (kind === Version.delta && !this.older.isWhole(page));
  }

  /** The next older version of a page that is open. The CRC32C counts only for the newest. */
  addOlder(page: number, kind: Stored, record: number, slot: number, crc: number, levels: number): void {
    if (this.kind(page) === Version.absent) this.setStored(page, kind, record, slot, crc, levels);
    else if (!this.older.append(page, kind, record, slot, levels))
      throw damaged(`page ${page} has more than ${MOST_OLDER} deltas`);
  }

  /** Adds the versions of an extent to the pages that are open. */
  addExtent(kind: Stored, { record, slots, pages, crcs }: StoredExtent, levels: number): void {
    this.#reach(Math.min(pages.at(-1)! + 1, this.pageCount));
    // Where nothing is known yet, as in most of a table that is loaded, there is nothing to be kept in order.
    const state = this.#state;
    const { recordLow, recordHigh, slot: slotOfPage, crc } = this;
    const low = record >>> 0;
    const high = Math.floor(record / 0x1_0000_0000);
    const first = pages[0]!;
    const end = first + pages.length;
    // A row of them, as in most of a full checkpoint: without a loop, which a thread that has just started runs slowly.
    if (slots === undefined && pages.at(-1) === end - 1 && end <= state.length && isUnknown(state.subarray(first, end))) {
      recordLow.fill(low, first, end);
      recordHigh.fill(high, first, end);
      slotOfPage.set(SLOTS.subarray(0, pages.length), first);
      crc.set(crcs, first);
      state.fill(kind | (levels << 4), first, end);
      return;
    }
    for (let k = 0; k < pages.length; k++) {
      const page = pages[k]!;
      if (page >= this.pageCount) continue;
      const slot = slots === undefined ? k : slots[k]!;
      if ((state[page]! & KIND_MASK) === Version.absent) {
        recordLow[page] = low;
        recordHigh[page] = high;
        slotOfPage[page] = slot;
        crc[page] = crcs[k]!;
        state[page] = kind | (state[page]! & ~KIND_MASK) | (levels << 4);
      } else if (this.isOpen(page)) {
        this.addOlder(page, kind, record, slot, crcs[k]!, levels);
      }
    }
  }

  /** The pages that have a stored version, ascending. */
  storedPages(): Uint32Array {
    return addon().pagesOfKind(this.#state, Version.full);
  }

  /** While a table is loaded: some page is stored as deltas without the page that they build on. */
  hasOpenDeltas(): boolean {
    return addon()
      .pagesOfKind(this.#state, Version.delta)
      .some((page) => !this.older.isWhole(page));
  }

  /** Calls `visit` with every version that makes the page, newest first: deltas, then the full one. */
  versions(page: number, visit: (kind: Stored, record: number, slot: number) => void): void {
    visit(this.kind(page) as Stored, this.record(page), this.slot[page]!);
    if (this.kind(page) !== Version.delta) return;
    const { older } = this;
    for (let node = older.first(page); node !== 0; node = older.next(node))
      visit(older.kind(node), older.record(node), older.slot(node));
  }

  /** Deltas on the full version. */
  depth(page: number): number {
    return this.kind(page) === Version.delta ? this.older.count(page) : 0;
  }

  setZero(page: number, levels: number): void {
    this.#reach(page + 1);
    this.older.clear(page);
    this.#state[page] = Version.zero | (this.#state[page]! & ~KIND_MASK) | (levels << 4);
  }

  /** The pages, ascending, that the next table of `level` must hold. */
  pendingPages(level: number): Uint32Array {
    const bit = 1 << (level + 3);
    let count = 0;
    for (let p = 0; p < this.#state.length; p++) if (this.#state[p]! & bit) count++;
    const pages = new Uint32Array(count);
    let at = 0;
    for (let p = 0; p < this.#state.length; p++) if (this.#state[p]! & bit) pages[at++] = p;
    return pages;
  }

  /** A table of `level` was committed: it and the levels below it start anew. */
  clearPending(level: number): void {
    const keep = ~(((1 << level) - 1) << 4) & 0xff;
    for (let p = 0; p < this.#state.length; p++) this.#state[p]! &= keep;
    this.older.clearPending(keep);
  }

  /** The first page from `from` on, before `end`, of which both do not hold the same version; `end` when there is none. */
  nextDifference(other: RegionTable, from: number, end: number): number {
    const { recordLow, recordHigh, slot } = this;
    const [mine, theirs] = [this.#state, other.#state];
    const both = Math.min(end, mine.length, theirs.length);
    let page = from;
    for (; page < both; page++) {
      // Of two that are stored in the same place, or that have nothing stored at all. Most are the former.
      const stored = (mine[page]! & KIND_MASK) >= Version.full && (theirs[page]! & KIND_MASK) >= Version.full;
      const same =
        recordLow[page] === other.recordLow[page] &&
        slot[page] === other.slot[page] &&
        recordHigh[page] === other.recordHigh[page];
      if (!(stored && same) && !this.sameVersion(other, page)) return page;
    }
    for (; page < end; page++) if (!this.sameVersion(other, page)) return page;
    return end;
  }

  /** Whether both hold the same version of a page (the same bytes, by where they are stored). */
  sameVersion(other: RegionTable | undefined, page: number): boolean {
    const mine = this.kind(page);
    const theirs = other === undefined ? Version.absent : other.kind(page);
    if (mine < Version.full || theirs < Version.full) return mine < Version.full && theirs < Version.full;
    return (
      this.recordLow[page] === other!.recordLow[page] &&
      this.recordHigh[page] === other!.recordHigh[page] &&
      this.slot[page] === other!.slot[page]
    );
  }
}

/** The page tables of all regions of one checkpoint, and what links them to the chain. */
export class PageTable {
  readonly regions = new Map<string, RegionTable>();
  depth = 0;
  state = 0n;
  /** The number of the next region that appears: none is used twice in a chain, or old versions would pass for those of another region. */
  nextRegion = 0;
  /** The attachments of the checkpoint. */
  attachments: readonly StoredAttachment[] = [];
  /** For each level, the newest checkpoint whose depth is a multiple of the level's span: where its next table will end. */
  readonly boundaries: string[] = new Array<string>(LEVELS).fill('');

  /** Versions that are kept below the newest ones. */
  get olderVersions(): number {
    let count = 0;
    for (const { older } of this.regions.values()) count += older.size;
    return count;
  }

  /** Notes a checkpoint that was reached or made at `depth`, seen from `head`. */
  noteBoundary(uid: string, depth: number, head: number): void {
    for (let level = 1; level <= LEVELS; level++) {
      const span = levelSpan(level);
      if (depth === Math.floor(head / span) * span) this.boundaries[level - 1] = uid;
    }
  }

  /** The table of a region by its number in the chain. */
  byNumber(number: number): RegionTable | undefined {
    for (const region of this.regions.values()) if (region.number === number) return region;
    return undefined;
  }
}
