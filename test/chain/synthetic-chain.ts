import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import type { Header } from '../../lib/chain/header.js';
import { loadPageTable } from '../../lib/chain/load.js';
import { Log } from '../../lib/chain/log.js';
import { type PageTable, type RegionTable, Version } from '../../lib/chain/page-table.js';
import { buildManifest } from '../../lib/checkpoint/build-manifest.js';
import { Pending, type PendingSegment } from '../../lib/checkpoint/session.js';
import { type Captured, type CapturedRegion, PageKind, type Slice } from '../../lib/engine/protocol.js';
import { PAGE, STORE } from './support.js';

/** The newest version of a page as a replay of everything that was committed knows it. */
type Replayed = { kind: number; record: number; slot: number; crc: number; older: number[][] } | 'zero';

interface SyntheticRegion {
  name: string;
  pageCount: number;
  versions: Map<number, Replayed>;
}

const cloned = (regions: SyntheticRegion[]): SyntheticRegion[] =>
  regions.map(({ name, pageCount, versions }) => ({ name, pageCount, versions: new Map(versions) }));

/** The CRC32C of what a delta of a page can be made on. Few deltas: a page has at most so many. */
function basesOf(region: SyntheticRegion, before: ReadonlyMap<number, Replayed>, page: number): number | undefined {
  const base = before.get(page);
  // A page that was taken ahead is stored whole.
  return base === undefined || base === 'zero' || region.versions.get(page) !== base || base.older.length > 12
    ? undefined
    : base.crc;
}

function newestOf(region: RegionTable, page: number): Omit<Exclude<Replayed, 'zero'>, 'crc'> {
  const versions: number[][] = [];
  region.versions(page, (...version) => versions.push(version));
  const [[kind, record, slot], ...older] = versions as [[number, number, number], ...number[][]];
  return { kind, record, slot, older };
}

/** A log with checkpoints whose extents are only numbers: manifests and page tables are all that is written. Counts what is read. */
export class SyntheticChain {
  readonly log: Log;
  reads = 0;
  head!: Header;
  /** As of `head`; undefined before the first checkpoint. */
  table!: PageTable;
  #regions: SyntheticRegion[] = [
    { name: 'heap', pageCount: 40, versions: new Map() },
    { name: 'stack', pageCount: 9, versions: new Map() },
  ];
  readonly #headers = new Map<string, Header>();
  readonly #states = new Map<string, SyntheticRegion[]>();
  #id = 0;

  private constructor(log: Log) {
    this.log = log;
    const read = log.record.bind(log);
    log.record = (number, kind) => {
      this.reads++;
      return read(number, kind);
    };
  }

  static async open(path: string): Promise<SyntheticChain> {
    mkdirSync(path, { recursive: true });
    return new SyntheticChain(await Log.open(path, STORE, true));
  }

  readonly find = async (uid: string): Promise<Header | undefined> => this.#headers.get(uid);

  /** Commits a checkpoint of random changes: clusters, single pages, pages that become zero, a region that grows. */
  async checkpoint(pick: (below: number) => number): Promise<void> {
    const full = this.head === undefined;
    const pending = new Pending({ session: 1, generation: 0, sequence: ++this.#id });
    if (!full && pick(12) === 0) this.#toggleExtra();
    const regions = this.#regions.map((region, k) => this.#change(region, k, pick, pending, !full && pick(20) === 0));
    const captured = {
      type: 'captured',
      ...pending.ticket,
      full,
      sync: pick(2) === 0,
      createdAt: this.#id,
      capturedAt: 0,
      info: { captureMs: 0 },
      regions,
      attachments: [],
    } as Captured;
    const built = buildManifest(captured, pending, {
      log: this.log,
      id: this.#id,
      branch: 'main',
      base: this.head,
      table: this.table,
      lowWater: 1,
      previousManifest: this.head?.manifest ?? 0,
      encodeMs: 0,
    });
    await this.log.write(built.operations, false);
    this.head = built.header;
    this.table = built.table;
    this.#headers.set(built.header.checkpoint.uid, built.header);
    this.#states.set(built.header.checkpoint.uid, cloned(this.#regions));
  }

  /** A region that comes and goes. */
  #toggleExtra(): void {
    if (this.#regions.length > 2) this.#regions.pop();
    else this.#regions.push({ name: 'extra', pageCount: 12, versions: new Map() });
  }

  /** @param replaced other memory stands under this name from now on */
  #change(
    region: SyntheticRegion,
    k: number,
    pick: (below: number) => number,
    pending: Pending,
    replaced: boolean,
  ): CapturedRegion {
    if (replaced) region.versions.clear();
    const before = new Map(region.versions);
    const ordinals = { next: 0 };
    // What was taken ahead: later slices count where they have the same page.
    for (let rounds = pick(3); rounds > 0; rounds--) pending.takeAhead(k, this.#slice(region, k, pick, pending, ordinals));
    const slice = this.#slice(region, k, pick, pending, ordinals, before);
    // A page that is zero and was not stored before has not changed.
    for (const [page, version] of region.versions) {
      if (version === 'zero' && !before.has(page)) region.versions.delete(page);
    }
    const bytes = region.pageCount * PAGE;
    return { name: region.name, slot: k, byteLength: bytes, length: bytes, fresh: replaced, ...slice };
  }

  #slice(
    region: SyntheticRegion,
    k: number,
    pick: (below: number) => number,
    pending: Pending,
    ordinals: { next: number },
    /** What was committed before: deltas can be made on it, but for what was taken ahead. */
    before: ReadonlyMap<number, Replayed> = new Map(),
  ): Slice {
    if (pick(40) === 0) region.pageCount += pick(20);
    const written = new Set<number>();
    if (pick(6) > 0) for (let times = pick(6); times > 0; times--) written.add(pick(region.pageCount));
    if (pick(8) === 0)
      for (let page = pick(region.pageCount), end = page + 12; page < end; page++) written.add(page % region.pageCount);
    const zeros = [...written].filter(() => pick(4) === 0).sort((a, b) => a - b);
    const pages = [...written].filter((page) => !zeros.includes(page)).sort((a, b) => a - b);
    const segments: number[] = [];
    const made: { segment: PendingSegment; pages: number[] }[] = [];
    for (let at = 0; at < pages.length; ) {
      const slots = Math.min(1 + pick(8), pages.length - at);
      const crcs = Uint32Array.from({ length: slots }, () => pick(2 ** 32));
      const own = pages.slice(at, at + slots);
      const bases = Uint32Array.from(own, (page) => basesOf(region, before, page) ?? 0);
      const kinds = Uint8Array.from(own, (page, j) => {
        if (basesOf(region, before, page) === undefined || pick(3) === 0) return PageKind.full;
        if (pick(5) > 0) return PageKind.delta;
        crcs[j] = bases[j]!;
        return PageKind.unchanged;
      });
      const segment = { slot: k, ordinal: ordinals.next++, extents: [], kinds, crcs, bases, written: true };
      made.push({ segment, pages: own });
      segments.push(slots);
      at += slots;
    }
    // Codec threads overtake each other: numbers are given in another order than the pages'.
    for (const { segment, pages: own } of [...made].sort(() => pick(3) - 1)) {
      pending.segments.push(segment);
      for (const wanted of [PageKind.full, PageKind.delta]) {
        const members = [...own.keys()].filter((j) => segment.kinds[j] === wanted);
        if (members.length === 0) continue;
        const record = this.log.nextNumber();
        segment.extents.push({ kind: wanted, record, storedBytes: 100 });
        for (const [slot, j] of members.entries()) {
          const base = before.get(own[j]!);
          const older =
            wanted === PageKind.full || base === undefined || base === 'zero'
              ? []
              : [[base.kind, base.record, base.slot], ...base.older];
          const kind = wanted === PageKind.full ? Version.full : Version.delta;
          region.versions.set(own[j]!, { kind, record, slot, crc: segment.crcs[j]!, older });
        }
      }
    }
    for (const page of zeros) region.versions.set(page, 'zero');
    return { pages: Uint32Array.from(pages), segments: Uint32Array.from(segments), zeros: Uint32Array.from(zeros) };
  }

  /** Goes on from a checkpoint in the past. */
  async fork(header: Header): Promise<void> {
    this.head = header;
    this.table = await loadPageTable(this.log, header, this.find);
    this.#regions = cloned(this.#states.get(header.checkpoint.uid)!);
  }

  /** Compares with a plain map of what was committed last for each page. */
  checkAgainstReplay(table: PageTable): void {
    assert.deepEqual(
      [...table.regions.keys()],
      this.#regions.map(({ name }) => name),
    );
    for (const { name, pageCount, versions } of this.#regions) {
      const region = table.regions.get(name)!;
      assert.equal(region.pageCount, pageCount);
      for (let page = 0; page < pageCount; page++) {
        const expected = versions.get(page);
        const found = region.isStored(page)
          ? { ...newestOf(region, page), crc: region.crc[page]! }
          : region.kind(page) === Version.zero
            ? 'zero'
            : undefined;
        assert.deepEqual(found, expected, `${name} page ${page}`);
      }
    }
  }
}
