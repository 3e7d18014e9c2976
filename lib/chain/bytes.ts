import { damaged } from './damage.js';

const utf8 = new TextEncoder();
const utf8Strict = new TextDecoder('utf-8', { fatal: true });

/** As they are in memory: x86-64 and arm64 are little-endian, as the format is. */
function bytesOf(values: Uint32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** Appends little-endian fields to a buffer that grows. */
export class ByteWriter {
  #bytes: Uint8Array;
  #view: DataView;
  #length = 0;

  constructor(capacity = 1024) {
    this.#bytes = new Uint8Array(capacity);
    this.#view = new DataView(this.#bytes.buffer);
  }

  get length(): number {
    return this.#length;
  }

  /** What was written so far; valid until the next write. */
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #reserve(size: number): number {
    const at = this.#length;
    if (at + size > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#bytes.length * 2, at + size));
      grown.set(this.#bytes.subarray(0, at));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#length = at + size;
    return at;
  }

  u8(value: number): void {
    const at = this.#reserve(1);
    this.#bytes[at] = value;
  }

  u32(value: number): void {
    const at = this.#reserve(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: bigint): void {
    const at = this.#reserve(8);
    this.#view.setBigUint64(at, value, true);
  }

  /** LEB128 of a non-negative safe integer. */
  varint(value: number): void {
    if (value < 0 || !Number.isSafeInteger(value)) throw new RangeError(`${value} cannot be a varint`);
    let rest = value;
    while (rest >= 0x80) {
      this.u8((rest % 0x80) | 0x80);
      // Not `rest >>> 7`: numbers of records do not fit into 32 bits.
      rest = Math.floor(rest / 0x80);
    }
    this.u8(rest);
  }

  /** LEB128 of a zigzag-coded safe integer. */
  signed(value: number): void {
    this.varint(value < 0 ? -2 * value - 1 : 2 * value);
  }

  raw(bytes: Uint8Array): void {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
  }

  /** 32-bit numbers without a length of their own. */
  u32s(values: Uint32Array): void {
    this.raw(bytesOf(values));
  }

  text(value: string): void {
    const bytes = utf8.encode(value);
    this.varint(bytes.length);
    this.raw(bytes);
  }
}

/** Reads what ByteWriter wrote; anything outside the buffer or out of range is damage, never a crash or a huge allocation. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #what: string;
  #at = 0;

  /** @param what names the record in errors */
  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  #take(size: number): number {
    const at = this.#at;
    if (size > this.#bytes.length - at) throw damaged(`${this.#what} ends in the middle of a field`);
    this.#at = at + size;
    return at;
  }

  u8(): number {
    return this.#bytes[this.#take(1)]!;
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  varint(): number {
    let value = 0;
    let unit = 1;
    for (let k = 0; k < 8; k++) {
      const byte = this.u8();
      value += (byte & 0x7f) * unit;
      if (byte < 0x80) {
        if (!Number.isSafeInteger(value)) break;
        return value;
      }
      unit *= 0x80;
    }
    throw damaged(`${this.#what} holds a number that is too large`);
  }

  signed(): number {
    const value = this.varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  /** Fields that native code decodes: it says where they end, or why they cannot be. */
  native<T extends { next: number }>(decode: (bytes: Uint8Array, at: number) => T | string): T {
    const decoded = decode(this.#bytes, this.#at);
    if (typeof decoded === 'string') throw damaged(`${this.#what} ${decoded}`);
    this.#at = decoded.next;
    return decoded;
  }

  raw(size: number): Uint8Array {
    const at = this.#take(size);
    return this.#bytes.subarray(at, at + size);
  }

  u32s(count: number): Uint32Array {
    const at = this.#take(count * 4);
    const values = new Uint32Array(count);
    bytesOf(values).set(this.#bytes.subarray(at, at + count * 4));
    return values;
  }

  text(): string {
    const bytes = this.raw(this.varint());
    try {
      return utf8Strict.decode(bytes);
    } catch (cause) {
      throw damaged(`${this.#what} holds text that is not UTF-8`, cause);
    }
  }

  end(): void {
    if (this.remaining !== 0) throw damaged(`${this.#what} has ${this.remaining} bytes after its end`);
  }
}
