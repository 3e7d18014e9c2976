import assert from 'node:assert/strict';
import { Region } from '../../lib/index.js';
import { addon } from '../../lib/kernel/addon.js';
import { Memory, resizable } from '../support/memories.js';
import { PAGE } from './model.js';

export type Pick = (below: number) => number;
/** A region as it must be, a buffer a page. Buffers are never changed, so a state is a list of references. */
export type Pages = readonly Buffer[];

const ZERO = Buffer.alloc(PAGE);
const HEAP_MOST = 640;
const WASM_PAGE = 16;
const WASM_MOST = 24;
/** Two of a fixed size, one that grows, and one that grows and drops what is behind its end. */
export const NAMES = ['heap', 'shared', 'plain', 'wasm'] as const;
export type Name = (typeof NAMES)[number];

/** A region, with what it must hold. */
export class Part {
  readonly name: Name;
  readonly region: Region;
  pages: Pages;
  /** Pages written, or dropped, since the base; undefined where all may be stored. */
  touched: Set<number> | undefined;
  readonly #resize: ((pageCount: number) => void) | undefined;
  readonly #most: number;
  readonly #dropBehind: ((byteLength: number) => void) | undefined;

  constructor(name: Name, pick: Pick) {
    this.name = name;
    let pageCount: number;
    if (name === 'heap') {
      pageCount = 40 + pick(400);
      this.#most = HEAP_MOST;
      const buffer = resizable(pageCount * PAGE, HEAP_MOST * PAGE);
      this.#resize = (count) => buffer.resize(count * PAGE);
      this.#dropBehind = (byteLength) => {
        const whole = buffer.byteLength;
        buffer.resize(byteLength);
        buffer.resize(whole);
      };
      this.region = Region.of(buffer);
    } else if (name === 'wasm') {
      const initial = 1 + pick(8);
      pageCount = initial * WASM_PAGE;
      this.#most = WASM_MOST * WASM_PAGE;
      const memory = new Memory({ initial, maximum: WASM_MOST });
      this.#resize = (count) => memory.grow(count / WASM_PAGE - memory.buffer.byteLength / PAGE / WASM_PAGE);
      this.region = Region.of(memory as never);
    } else {
      pageCount = name === 'shared' ? 96 : 300;
      this.#most = pageCount;
      this.region = Region.allocate(pageCount * PAGE, { shared: name === 'shared' });
    }
    this.pages = new Array<Buffer>(pageCount).fill(ZERO);
  }

  get byteLength(): number {
    return this.pages.length * PAGE;
  }

  bytes(at = 0, length = this.byteLength): Uint8Array {
    return new Uint8Array(this.region.buffer, at, length);
  }

  write(at: number, bytes: Uint8Array): void {
    this.bytes(at, bytes.length).set(bytes);
    this.note(at, bytes);
  }

  /** Somebody else has written this. */
  note(at: number, bytes: Uint8Array): void {
    const pages = [...this.pages];
    for (let done = 0; done < bytes.length; ) {
      const page = Math.floor((at + done) / PAGE);
      const count = Math.min(bytes.length - done, (page + 1) * PAGE - at - done);
      const changed = Buffer.from(pages[page]!);
      changed.set(bytes.subarray(done, done + count), (at + done) % PAGE);
      pages[page] = changed;
      this.touched?.add(page);
      done += count;
    }
    this.pages = pages;
  }

  /** Changes a few bytes of a page. */
  edit(page: number, pick: Pick): void {
    const bytes = Buffer.from(this.pages[page]!);
    for (let times = 1 + pick(4); times > 0; times--) bytes[pick(PAGE)]! ^= 1 + pick(255);
    this.write(page * PAGE, bytes);
  }

  grow(pick: Pick): void {
    const unit = this.name === 'wasm' ? WASM_PAGE : 1;
    const more = (1 + pick(this.name === 'wasm' ? 3 : 60)) * unit;
    if (this.#resize === undefined || this.pages.length + more > this.#most) return;
    this.#resize(this.pages.length + more);
    this.#lengthen(this.pages.length + more);
  }

  /** The memory behind this byte is dropped, and is zero. */
  drop(pick: Pick): void {
    if (this.#dropBehind === undefined) return;
    const at = pick(3) === 0 ? pick(this.byteLength) : pick(this.pages.length) * PAGE;
    this.#dropBehind(at);
    const first = Math.floor(at / PAGE);
    const pages = [...this.pages];
    for (let page = first; page < pages.length; page++) {
      const kept = page === first ? at % PAGE : 0;
      pages[page] = kept === 0 ? ZERO : Buffer.concat([pages[page]!.subarray(0, kept)], PAGE);
      this.touched?.add(page);
    }
    this.pages = pages;
  }

  /** Pages are dropped as by madvise(2), also such as are missing still: V8 makes what it drops zero first. */
  discard(first: number, count: number): void {
    const runs = Uint32Array.of(first, count);
    addon().regionZero(this.region.nativeId, runs);
    // What it has armed is reported all the same.
    addon().regionGiveBack(this.region.nativeId, this.bytes(0, this.region.byteLength), runs);
    const pages = [...this.pages];
    for (let page = first; page < first + count; page++) {
      pages[page] = ZERO;
      this.touched?.add(page);
    }
    this.pages = pages;
  }

  /** It has been restored. */
  become(pages: Pages): void {
    const before = this.pages.length;
    this.pages = pages;
    this.#lengthen(before);
    this.touched = new Set();
  }

  /** A restore that has failed may have made it longer. */
  follow(): void {
    this.#lengthen(this.region.buffer.byteLength / PAGE);
  }

  check(what: string, first = 0, count = this.pages.length): void {
    assert.equal(this.region.buffer.byteLength, this.byteLength, `${what}: length of ${this.name}`);
    const wrong: number[] = [];
    for (let page = first; page < first + count; page++)
      if (!this.pages[page]!.equals(this.bytes(page * PAGE, PAGE))) wrong.push(page);
    assert.deepEqual(wrong, [], `${what}: pages of ${this.name}`);
  }

  #lengthen(pageCount: number): void {
    if (pageCount <= this.pages.length) return;
    this.pages = [...this.pages, ...new Array<Buffer>(pageCount - this.pages.length).fill(ZERO)];
  }
}

/** Bytes of one of several kinds: that do not compress, that do, or zeros. */
export function content(length: number, pick: Pick): Uint8Array {
  const kind = pick(5);
  const bytes = new Uint8Array(Math.ceil(length / 4) * 4);
  if (kind === 1) bytes.fill(1 + pick(255));
  if (kind > 1) {
    const words = new Uint32Array(bytes.buffer);
    let state = (1 + pick(2 ** 31)) | 1;
    for (let k = 0; k < words.length; k++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      words[k] = kind === 2 ? state & 0x07070707 : state;
    }
  }
  return bytes.subarray(0, length);
}
