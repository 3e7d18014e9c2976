import type { CCtx } from 'zstd-napi/binding.js';
import { collectPart, type PageVersion, type Part, Parts } from '../../../lib/chain/assembly.js';
import {
  DELTAS,
  EXTENT_ROOM,
  type ExtentLayout,
  ExtentReader,
  encodeExtent,
  FULL_PAGES,
  scratchSize,
} from '../../../lib/chain/extent.js';
import { KEY_BYTES } from '../../../lib/chain/header.js';
import { Version } from '../../../lib/chain/page-table.js';
import { RECORD_HEADER } from '../../../lib/chain/record.js';
import { frameContext, zstd } from '../../../lib/chain/zstd.js';
import { PageKind } from '../../../lib/engine/protocol.js';
import { ShadowMode } from '../../../lib/engine/shadows.js';
import { addon, PAGE_SIZE, SEGMENT_HEADROOM, SEGMENT_PAGES, SEGMENT_STRIDE } from '../../../lib/kernel/addon.js';
import type { Epoch } from './epochs.js';

/** What can be chosen about deltas. */
export interface Parameters {
  /** 0: no deltas. */
  maxDeltas: number;
  framePages: number;
  level: number;
  maxWords: number;
}

/** zstd level of pages that are stored full: the default of a checkpointer. */
const FULL_LEVEL = 1;

interface Stored extends PageVersion {
  epoch: number;
  crc: number;
}

/** A page that became zero: the next version is full. */
const ZERO = { kind: Version.full, record: -1, slot: 0, crc: 0 };

/** A recorded workload as checkpoints would store it: extents, and the versions of every page. */
export interface Chain {
  payloads: Uint8Array[];
  /** By page: ascending. */
  versions: Map<number, Stored[]>;
  /** Of all epochs but the first. */
  encodeMs: number;
  storedBytes: number;
  pages: number;
  deltaPages: number;
}

/** Encodes epochs segment by segment on this thread, with the steps of a codec thread. */
export class OfflineEncoder {
  readonly #chain: Chain = { payloads: [], versions: new Map(), encodeMs: 0, storedBytes: 0, pages: 0, deltaPages: 0 };
  readonly #segment = new Uint8Array(SEGMENT_STRIDE);
  readonly #deltas = new Uint8Array(SEGMENT_PAGES * PAGE_SIZE);
  readonly #scratch = new Uint8Array(Math.max(scratchSize(), zstd().compressBound(SEGMENT_PAGES * PAGE_SIZE)));
  readonly #parameters: Parameters;
  readonly #shadows: number;
  readonly #table: number;
  #epoch = 0;
  #jobs = 0;

  /** @param maxPages the most that have shadows */
  constructor(parameters: Parameters, maxPages: number) {
    this.#parameters = parameters;
    this.#shadows = addon().shadowsCreate(maxPages * PAGE_SIZE);
    this.#table = addon().shadowOpen(this.#shadows);
  }

  /** Everything stored full: it does not depend on what is varied, so another encoder's is taken over where there is one, and only the pages that will be written get shadows. */
  begin(first: Epoch, known?: { chain: Chain; written: Epoch }): void {
    if (known === undefined) {
      this.#encodeEpoch(first, ShadowMode.whole);
    } else {
      this.#chain.payloads = known.chain.payloads.slice();
      for (const [page, [first]] of known.chain.versions) this.#chain.versions.set(page, [first!]);
      const { pages, bytes } = known.written;
      const crcs = new Uint32Array(pages.length);
      addon().crc32cPages(bytes, crcs);
      addon().shadowPut(this.#shadows, this.#table, pages, bytes, crcs, new Uint8Array(pages.length));
    }
    Object.assign(this.#chain, { encodeMs: 0, storedBytes: 0, pages: 0, deltaPages: 0 });
  }

  next(epoch: Epoch): void {
    this.#epoch++;
    this.#encodeEpoch(epoch, ShadowMode.written);
  }

  finish(): Chain {
    addon().shadowsClose(this.#shadows);
    return this.#chain;
  }

  #encodeEpoch(epoch: Epoch, mode: ShadowMode): void {
    for (const page of epoch.zeros) this.#chain.versions.get(page)?.push({ ...ZERO, epoch: this.#epoch });
    let { zeros } = epoch;
    for (let from = 0; from < epoch.pages.length; from += SEGMENT_PAGES) {
      const pages = epoch.pages.slice(from, from + SEGMENT_PAGES);
      this.#segment.set(epoch.bytes.subarray(from * PAGE_SIZE, (from + pages.length) * PAGE_SIZE), SEGMENT_HEADROOM);
      this.#encodeSegment(pages, zeros, mode);
      zeros = new Uint32Array(0);
    }
  }

  #encodeSegment(pages: Uint32Array, zeros: Uint32Array, mode: ShadowMode): void {
    const { maxDeltas, maxWords, framePages, level } = this.#parameters;
    const bytes = this.#segment.subarray(SEGMENT_HEADROOM, SEGMENT_HEADROOM + pages.length * PAGE_SIZE);
    const kinds = new Uint8Array(pages.length);
    const [crcs, bases] = [new Uint32Array(pages.length), new Uint32Array(pages.length)];
    const start = performance.now();
    if (maxDeltas === 0) {
      addon().crc32cPages(bytes, crcs);
    } else {
      const job = Uint32Array.of(this.#table, 0, this.#jobs++, this.#epoch, mode, maxDeltas, maxWords);
      addon().shadowEncode(this.#shadows, job, pages, zeros, bytes, this.#deltas, kinds, crcs, bases);
    }
    const counts = [0, 0, 0];
    for (const kind of kinds) counts[kind]!++;
    const [full, deltas] = [counts[PageKind.full]!, counts[PageKind.delta]!];
    const extents: [number, number][] = [];
    let at = 0;
    const pack = (from: Uint8Array, count: number, context: CCtx, layout: ExtentLayout): void => {
      const target = this.#segment.subarray(at + RECORD_HEADER);
      const length = encodeExtent(target, from, count, context, this.#scratch, layout);
      addon().crc32c(target.subarray(0, length));
      extents.push([at + RECORD_HEADER, length]);
      at += RECORD_HEADER + length;
    };
    if (full > 0) pack(bytes, full, frameContext(FULL_LEVEL), FULL_PAGES);
    if (deltas > 0) pack(this.#deltas, deltas, frameContext(level), { ...DELTAS, framePages });
    this.#chain.encodeMs += performance.now() - start;
    this.#keep(extents, pages, kinds, crcs, full > 0);
  }

  #keep(extents: [number, number][], pages: Uint32Array, kinds: Uint8Array, crcs: Uint32Array, hasFull: boolean): void {
    const chain = this.#chain;
    const record = chain.payloads.length;
    for (const [start, length] of extents) {
      chain.payloads.push(this.#segment.slice(start, start + length));
      chain.storedBytes += RECORD_HEADER + length + KEY_BYTES;
    }
    const slots = [0, 0];
    for (const [k, page] of pages.entries()) {
      const kind = kinds[k]!;
      if (kind === PageKind.unchanged) continue;
      const isDelta = kind === PageKind.delta;
      const versions = chain.versions.get(page) ?? [];
      versions.push({
        kind: isDelta ? Version.delta : Version.full,
        record: record + (isDelta && hasFull ? 1 : 0),
        slot: slots[kind]!++,
        epoch: this.#epoch,
        crc: crcs[k]!,
      });
      chain.versions.set(page, versions);
      chain.pages++;
      if (isDelta) chain.deltaPages++;
    }
  }
}

/** The versions that make a page as of an epoch: the newest first, a full one last. */
export function versionsAt(chain: Chain, page: number, epoch: number): Stored[] {
  const all = chain.versions.get(page)!;
  let last = all.length - 1;
  while (last >= 0 && all[last]!.epoch > epoch) last--;
  let first = last;
  while (first > 0 && all[first]!.kind === Version.delta) first--;
  return first < 0 || all[first]!.record < 0 ? [] : all.slice(first, last + 1).reverse();
}

/** Decodes chains with the steps of a restore, on this thread, and without the storage below and the regions above it. */
export class OfflineDecoder {
  readonly #chain: Chain;
  readonly #scratch = new Uint8Array(SEGMENT_PAGES * PAGE_SIZE);
  readonly #frames = new Uint8Array(EXTENT_ROOM);
  readonly #one = new Uint8Array(SEGMENT_STRIDE);

  constructor(chain: Chain) {
    this.#chain = chain;
  }

  /** Milliseconds for all pages as of an epoch, each compared with its CRC32C. */
  all(epoch: number, memory: Uint8Array): number {
    const assembled: Stored[][] = [];
    const plain = new Parts();
    const crcs: number[] = [];
    const put = (parts: Parts, { kind, record, slot }: Stored, place: number) => parts.add(kind, record, slot, place);
    for (const page of this.#chain.versions.keys()) {
      const versions = versionsAt(this.#chain, page, epoch);
      if (versions.length > 1) assembled.push(versions);
      else if (versions.length === 1) put(plain, versions[0]!, crcs.push(versions[0]!.crc) - 1);
    }
    const [full, deltas] = [new Parts(), new Parts()];
    for (const [place, versions] of assembled.entries())
      for (const version of versions) put(version.kind === Version.full ? full : deltas, version, place);
    const segments = Int32Array.from({ length: Math.ceil(assembled.length / SEGMENT_PAGES) }, (_, k) => k);
    const [fullParts, deltaParts] = [full.list(), deltas.list()];
    const plainParts = new Map(plain.list().map((part) => [part.record, part]));
    const start = performance.now();
    const gather = (reader: ExtentReader, { slots, places }: Part): void => {
      const expected = Uint32Array.from(places, (place) => crcs[place]!);
      reader.gather(slots, expected, this.#scratch);
    };
    for (const part of [...fullParts, ...deltaParts]) {
      // What else is wanted of an extent goes along.
      const reader = this.#read(part.record);
      const also = plainParts.get(part.record);
      plainParts.delete(part.record);
      if (also !== undefined) gather(reader, also);
      const bytes = collectPart(reader, part, this.#scratch);
      addon().assemblePages(bytes, part.kind === Version.delta, part.places, memory, segments);
    }
    for (const part of plainParts.values()) gather(this.#read(part.record), part);
    for (const segment of segments) {
      const expected = assembled.slice(segment * SEGMENT_PAGES, (segment + 1) * SEGMENT_PAGES).map(([newest]) => newest!.crc);
      check(memory.subarray(segment * SEGMENT_STRIDE + SEGMENT_HEADROOM), expected);
    }
    return performance.now() - start;
  }

  /** Milliseconds for one page. */
  one(page: number, epoch: number): number {
    const versions = versionsAt(this.#chain, page, epoch);
    this.#one.fill(0);
    const start = performance.now();
    for (const { kind, record, slot } of versions) {
      collectPart(this.#read(record), { record, kind, slots: Uint8Array.of(slot) }, this.#scratch);
      addon().assemblePages(this.#scratch.subarray(0, PAGE_SIZE), true, Uint32Array.of(0), this.#one, Int32Array.of(0));
    }
    check(this.#one.subarray(SEGMENT_HEADROOM), [versions[0]!.crc]);
    return performance.now() - start;
  }

  /** As a record is read: it proves first that it is whole. */
  #read(record: number): ExtentReader {
    const payload = this.#chain.payloads[record]!;
    addon().crc32c(payload);
    return new ExtentReader(payload, record, this.#frames);
  }
}

function check(bytes: Uint8Array, expected: readonly number[]): void {
  const found = new Uint32Array(expected.length);
  addon().crc32cPages(bytes.subarray(0, expected.length * PAGE_SIZE), found);
  if (expected.some((crc, k) => crc !== found[k])) throw new Error('decoded other bytes');
}
