import { addon, type RunColumns } from '../kernel/addon.js';
import { damaged } from './damage.js';
import type { StoredAttachment } from './manifest.js';
import { MOST_OLDER, OlderVersions } from './older-versions.js';
import type { Runs } from './runs.js';
import { capacityFor, VersionColumns } from './version-columns.js';

/** What the newest version of a page is. `absent` (never stored) and `zero` read the same; from `full` on something is stored. */
export const Version = { absent: 0, zero: 1, full: 2, delta: 3 } as const;

/** How a page is stored. */
export type Stored = typeof Version.full | typeof Version.delta;

/** Levels of tables above the manifests: a table of level k covers 16^k checkpoints. */
export const LEVELS = 4;
const KIND_MASK = 0x0f;
const NO_CRCS = new Uint8Array(0);

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

/** Where the newest version of each page of one region is, as of one checkpoint: 12 bytes a page up to the last one with a version, no objects. */
export class RegionTable {
  readonly number: number;
  readonly name: string;
  byteLength: number;
  length: number;
  /** Pages that the region has; the arrays may be shorter, for much of a region may be reserved and never written. */
  pageCount: number;
  /** Of each page up to the last one with a version: its CRC32C as the extra word; as state the kind in the low four bits, in the high four the levels whose next table must have it. */
  #newest = new VersionColumns(0);
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

  /** There is room for pages before `end`. */
  #reach(end: number): void {
    if (end > this.#newest.count) this.#newest = this.#newest.enlarged(capacityFor(end, this.pageCount));
  }

  /** Of the page that must come out, for each page up to the last one with a version. */
  get crc(): Uint32Array {
    return this.#newest.extra;
  }

  /** Low and high part of the number of the record that each page is in. */
  get recordLow(): Uint32Array {
    return this.#newest.recordLow;
  }

  get recordHigh(): Uint16Array {
    return this.#newest.recordHigh;
  }

  /** Where in its extent each page is. */
  get slot(): Uint8Array {
    return this.#newest.slot;
  }

  kind(page: number): number {
    const { state } = this.#newest;
    return page < state.length ? state[page]! & KIND_MASK : Version.absent;
  }

  record(page: number): number {
    return this.#newest.record(page);
  }

  isStored(page: number): boolean {
    return this.kind(page) >= Version.full;
  }

  /** A newer version of a page. What a delta builds on is kept below it. */
  setStored(page: number, kind: Stored, record: number, slot: number, crc: number, levels: number): void {
    this.#reach(page + 1);
    const newest = this.#newest;
    if (kind === Version.delta) {
      if (this.isStored(page))
        this.older.push(page, this.kind(page) as Stored, newest.record(page), newest.slot[page]!, newest.state[page]! >> 4);
    } else {
      this.older.clear(page);
    }
    newest.set(page, record, slot, crc, kind | (newest.state[page]! & ~KIND_MASK) | (levels << 4));
  }

  /**
   * While a table is loaded, newest version first: adds versions to pages of which nothing is known, or only deltas.
   * @param crcs 4 bytes for each page that does not become zero, in a row; undefined: older versions have none
   * @throws `TIDEMARK_DAMAGED`
   */
  addRuns(
    kinds: Uint8Array,
    { records, firsts, lengths, slots }: RunColumns,
    crcs: Uint8Array | undefined,
    levels: number,
  ): void {
    let end = 0;
    for (let k = 0; k < firsts.length; k++) if (lengths[k]! > 0) end = Math.max(end, firsts[k]! + lengths[k]!);
    let tooDeep: number | undefined;
    try {
      this.#reach(Math.min(end, this.pageCount));
      tooDeep = this.older.load(this.#newest, (columns) =>
        addon().tableAddRuns(...columns, levels, kinds, records, firsts, lengths, slots, crcs ?? NO_CRCS),
      );
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw damaged(`region ${this.name} has a page ${end - 1}, and memory for a page table up to there could not be had`, cause);
    }
    if (tooDeep !== undefined) throw damaged(`page ${tooDeep} has more than ${MOST_OLDER} deltas`);
  }

  /** The pages that have a stored version. */
  stored(): Runs {
    return addon().tableStored(this.#newest.bytes);
  }

  /** What all stored pages contribute to the state of the chain. */
  state(): bigint {
    return addon().tableSum(this.number, this.#newest.bytes);
  }

  /** What these pages, all of them stored, contribute to it. */
  stateOf(pages: Uint32Array): bigint {
    return addon().stateSum(this.number, pages, addon().pick(this.crc, pages));
  }

  /** Calls `visit` with every version that makes the page, newest first: deltas, then the full one. */
  versions(page: number, visit: (kind: Stored, record: number, slot: number) => void): void {
    visit(this.kind(page) as Stored, this.record(page), this.slot[page]!);
    if (this.kind(page) !== Version.delta) return;
    const { older } = this;
    for (let node = older.first(page); node !== 0; node = older.next(node))
      visit(older.kind(node), older.record(node), older.slot(node));
  }

  /** Whether both are made of the same full version: then deltas lead from one to the other. */
  sharesFullVersion(other: RegionTable, page: number): boolean {
    if (!this.isStored(page) || !other.isStored(page)) return false;
    const [mine, theirs] = [this.older.oldest(page), other.older.oldest(page)];
    return (
      this.#recordOf(page, mine) === other.#recordOf(page, theirs) && this.#slotOf(page, mine) === other.#slotOf(page, theirs)
    );
  }

  /** Of the newest version of a page, or of the one in a node of the older ones. */
  #recordOf(page: number, node: number): number {
    return node === 0 ? this.record(page) : this.older.record(node);
  }

  #slotOf(page: number, node: number): number {
    return node === 0 ? this.slot[page]! : this.older.slot(node);
  }

  /** Deltas on the full version. */
  depth(page: number): number {
    return this.kind(page) === Version.delta ? this.older.count(page) : 0;
  }

  setZero(page: number, levels: number): void {
    this.#reach(page + 1);
    this.older.clear(page);
    const { state } = this.#newest;
    state[page] = Version.zero | (state[page]! & ~KIND_MASK) | (levels << 4);
  }

  /** The pages, ascending, that the next table of `level` must hold. */
  pendingPages(level: number): Uint32Array {
    const bit = 1 << (level + 3);
    const { state } = this.#newest;
    let count = 0;
    for (let p = 0; p < state.length; p++) if (state[p]! & bit) count++;
    const pages = new Uint32Array(count);
    let at = 0;
    for (let p = 0; p < state.length; p++) if (state[p]! & bit) pages[at++] = p;
    return pages;
  }

  /** A table of `level` was committed: it and the levels below it start anew. */
  clearPending(level: number): void {
    const keep = ~(((1 << level) - 1) << 4) & 0xff;
    const { state } = this.#newest;
    for (let p = 0; p < state.length; p++) state[p]! &= keep;
    this.older.clearPending(keep);
  }

  /** The pages of which both do not hold the same version (the same bytes, by where they are stored), `other` none at all where there is none. */
  differences(other: RegionTable | undefined): Runs {
    return other === undefined ? this.stored() : addon().tableDifferences(this.#newest.bytes, other.#newest.bytes);
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
