import type { CCtx } from 'zstd-napi/binding.js';
import { addon, PAGE_SIZE, SEGMENT_PAGES } from '../kernel/addon.js';
import { ByteReader } from './bytes.js';
import { damaged } from './damage.js';
import { ExtentKind } from './extent-kind.js';
import { decompressInto, zstd } from './zstd.js';

/** Pages in one zstd frame: what has to be decompressed to read one page. */
export const FRAME_PAGES = 16;
/** The same, of deltas: they are nearly empty, and compress better together. */
export const DELTA_FRAME_PAGES = 32;
const STORED_RAW = 0x8000_0000;
const DIRECTORY_HEADER = 8;

/** What deltas are compressed with at most: they are nearly empty. */
export const DELTA_LEVEL = 1;

export interface ExtentLayout {
  kind: ExtentKind;
  framePages: number;
}
export const FULL_PAGES: ExtentLayout = { kind: ExtentKind.full, framePages: FRAME_PAGES };
export const DELTAS: ExtentLayout = { kind: ExtentKind.delta, framePages: DELTA_FRAME_PAGES };

/**
 * Turns `count` pages into the payload of an extent: a directory, then the zstd frames, each of so many pages as the layout says.
 * The payload is written to `target`, which may begin a headroom before `pages` in the same memory: a frame never takes more room than
 * its pages, so what is written stays behind what is still to be read.
 * @returns bytes written
 */
export function encodeExtent(
  target: Uint8Array,
  pages: Uint8Array,
  count: number,
  context: CCtx,
  scratch: Uint8Array,
  { kind, framePages }: ExtentLayout = FULL_PAGES,
): number {
  const frames = Math.ceil(count / framePages);
  const lengths = new Uint32Array(frames);
  const bound = zstd().compressBound(framePages * PAGE_SIZE);
  let at = DIRECTORY_HEADER + 4 * frames;
  for (let k = 0; k < frames; k++) {
    const raw = pages.subarray(k * framePages * PAGE_SIZE, Math.min((k + 1) * framePages, count) * PAGE_SIZE);
    // What is made of a frame may for a while take more than its pages: into its place only where it cannot reach what is still to be read.
    const room = pages.buffer === target.buffer ? raw.byteOffset - (target.byteOffset + at) : target.length - at;
    const isClear = room >= bound;
    const length = context.compress2(isClear ? target.subarray(at, at + bound) : scratch, raw);
    if (length < raw.length) {
      if (!isClear) target.set(scratch.subarray(0, length), at);
      lengths[k] = length;
      at += length;
    } else {
      target.set(raw, at);
      lengths[k] = raw.length | STORED_RAW;
      at += raw.length;
    }
  }
  const view = new DataView(target.buffer, target.byteOffset, at);
  view.setUint8(0, kind);
  view.setUint8(1, framePages);
  view.setUint16(2, count, true);
  view.setUint32(4, frames, true);
  for (let k = 0; k < frames; k++) view.setUint32(DIRECTORY_HEADER + 4 * k, lengths[k]!, true);
  return at;
}

/** Bytes that `encodeExtent` needs for a frame that does not compress. */
export function scratchSize(): number {
  return zstd().compressBound(Math.max(FRAME_PAGES, DELTA_FRAME_PAGES) * PAGE_SIZE);
}

/** Bytes in which `ExtentReader` keeps all frames of any extent. */
export const EXTENT_ROOM = SEGMENT_PAGES * PAGE_SIZE;

/** An extent that was read: frames are decompressed when a page of theirs is asked for. */
export class ExtentReader {
  readonly kind: ExtentKind;
  readonly count: number;
  readonly #what: string;
  readonly #framePages: number;
  readonly #frames: Uint8Array[] = [];
  readonly #raw: boolean[] = [];
  /** Made when the first frame is decompressed, where it was not given. */
  #buffer: Uint8Array | undefined;
  /** The buffer has room for all frames, each in its place; else for one. */
  readonly #keeps: boolean;
  readonly #loaded = new Set<number>();

  /**
   * @param payload checked already by its record's checksum
   * @param room of `EXTENT_ROOM`, which is the reader's as long as it is used: no frame is then decompressed twice
   */
  constructor(payload: Uint8Array, number: number, room?: Uint8Array) {
    this.#what = `extent ${number}`;
    const read = new ByteReader(payload, this.#what);
    const kind = read.u8();
    this.#framePages = read.u8();
    this.count = read.u8() + read.u8() * 256;
    const frames = read.u32();
    if (kind > ExtentKind.delta || this.#framePages === 0 || frames !== Math.ceil(this.count / this.#framePages)) {
      throw damaged(`${this.#what} has a directory that cannot be`);
    }
    this.kind = kind as ExtentKind;
    const lengths = read.u32s(frames);
    for (const length of lengths) {
      this.#raw.push((length & STORED_RAW) !== 0);
      this.#frames.push(read.raw((length & ~STORED_RAW) >>> 0));
    }
    read.end();
    this.#keeps = room !== undefined && this.count * PAGE_SIZE <= room.length;
    this.#buffer = this.#keeps ? room : undefined;
  }

  /** The page in a slot; the bytes are valid until the next call. */
  page(slot: number): Uint8Array {
    if (slot >= this.count) throw damaged(`${this.#what} has ${this.count} slots, not ${slot + 1}`);
    const frame = Math.floor(slot / this.#framePages);
    const at = (slot % this.#framePages) * PAGE_SIZE;
    return this.#frame(frame).subarray(at, at + PAGE_SIZE);
  }

  #frame(frame: number): Uint8Array {
    const pages = Math.min(this.#framePages, this.count - frame * this.#framePages);
    const bytes = this.#frames[frame]!;
    const isRaw = this.#raw[frame]!;
    if (isRaw && bytes.length !== pages * PAGE_SIZE) throw damaged(`${this.#what}: frame ${frame} has ${bytes.length} bytes`);
    if (isRaw && !this.#keeps) return bytes;
    this.#buffer ??= new Uint8Array(Math.min(this.#framePages, this.count) * PAGE_SIZE);
    const at = this.#keeps ? frame * this.#framePages * PAGE_SIZE : 0;
    const target = this.#buffer.subarray(at, at + pages * PAGE_SIZE);
    if (!this.#loaded.has(frame)) {
      if (!this.#keeps) this.#loaded.clear();
      if (isRaw) target.set(bytes);
      else decompressInto(target, bytes, this.#what);
      this.#loaded.add(frame);
    }
    return target;
  }

  /**
   * What the slots hold, packed: copied into `target`, or where it lies in a row in the reader's room, there.
   * @returns valid as long as the room and `target`
   */
  collect(slots: Uint8Array, target: Uint8Array): Uint8Array {
    const first = slots[0] ?? 0;
    // All of an extent, or a part that was written in one go: nothing to be copied.
    if (this.#keeps && isRow(slots)) {
      for (let slot = first; slot < first + slots.length; slot += this.#framePages - (slot % this.#framePages)) this.page(slot);
      this.page(first + slots.length - 1);
      return this.#buffer!.subarray(first * PAGE_SIZE, (first + slots.length) * PAGE_SIZE);
    }
    for (let k = 0; k < slots.length; k++) target.set(this.page(slots[k]!), k * PAGE_SIZE);
    return target.subarray(0, slots.length * PAGE_SIZE);
  }

  /** `collect`, and each page is checked against its CRC32C. */
  gather(slots: Uint8Array, crcs: Uint32Array, target: Uint8Array): Uint8Array {
    const bytes = this.collect(slots, target);
    const found = new Uint32Array(slots.length);
    addon().crc32cPages(bytes, found);
    for (let k = 0; k < slots.length; k++) {
      if (found[k] !== crcs[k]) throw damaged(`${this.#what}: the page in slot ${slots[k]} is not what was stored`);
    }
    return bytes;
  }
}

function isRow(slots: Uint8Array): boolean {
  for (let k = 1; k < slots.length; k++) if (slots[k] !== slots[0]! + k) return false;
  return slots.length > 0;
}
