import { Arena } from './arena.js';

const magic = 0x31_78_64_69; // "idx1"
const minimumBytes = 1 << 16;
const maximumBytes = 1 << 30;

/** Where the words of the header are; the arena's come after them. */
const at = {
  magic: 1,
  byteLength: 2,
  operations: 3,
  entries: 4,
  tombstones: 5,
  table: 6,
  digest: 7,
  content: 8,
  tables: 9,
  arena: 16,
};
const kinds = { entry: 1, table: 2, header: 3 };

// An entry: the arena's word, checksum, length of the key, length of the value; key and value follow.
const entryHeader = 16;
// A table: the arena's word, one that is not used, and then slots of two words, a hash and an offset.
const tableHeader = 8;
const slotBytes = 8;
const firstTable = 512;
/** Offsets of entries are multiples of 32, so these two are none. */
const empty = 0;
const tombstone = 1;

/**
 * Keys and values of any length in one piece of memory: a hash table with open addressing, and entries with a checksum each, in an arena
 * that takes back what is deleted. Everything is in the memory, positions are offsets: whoever gets the same bytes can go on with them.
 */
export class HashIndex {
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #arena: Arena;

  private constructor(bytes: Uint8Array) {
    const size = bytes.byteLength;
    if (size < minimumBytes || size > maximumBytes || (size & (size - 1)) !== 0)
      throw new RangeError('the memory of an index is a power of two, from 64 KiB to 1 GiB');
    this.#bytes = bytes;
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, size / 4);
    this.#arena = new Arena(this.#words, at.arena);
  }

  /** Makes an empty index of memory, whatever is in it. */
  static create(bytes: Uint8Array): HashIndex {
    const index = new HashIndex(bytes);
    bytes.fill(0, 0, 4096);
    index.#arena.format(kinds.header);
    index.#words[at.magic] = magic;
    index.#words[at.byteLength] = bytes.byteLength;
    index.#words[at.table] = index.#newTable(firstTable);
    return index;
  }

  /** Goes on with an index that is in the memory. */
  static open(bytes: Uint8Array): HashIndex {
    const index = new HashIndex(bytes);
    if (index.#words[at.magic] !== magic || index.#words[at.byteLength] !== bytes.byteLength)
      throw new Error('there is no index in this memory');
    return index;
  }

  get size(): number {
    return this.#words[at.entries]!;
  }

  /** Bytes of all keys and values. */
  get contentBytes(): number {
    return this.#words[at.content]!;
  }

  /** How many tables there have been: it moves to a new one when it is full. */
  get tables(): number {
    return this.#words[at.tables]!;
  }

  /** A number that the user of the index keeps in it: of the last operation. */
  get operations(): number {
    return this.#words[at.operations]!;
  }

  set operations(value: number) {
    this.#words[at.operations] = value;
  }

  /** A copy of the value. */
  get(key: Uint8Array): Uint8Array | undefined {
    const slot = this.#find(key, hash(key));
    return slot === -1 ? undefined : this.#value(this.#words[slot + 1]!).slice();
  }

  /** @throws {RangeError} when the memory is full; then nothing has changed */
  put(key: Uint8Array, value: Uint8Array): void {
    const hashed = hash(key);
    const bytes = entryHeader + key.length + value.length;
    const slot = this.#find(key, hashed);
    if (slot === -1) {
      this.#makeRoom();
      const entry = this.#arena.take(bytes, kinds.entry);
      if (this.#place(this.#words[at.table]!, hashed, entry) === tombstone) this.#words[at.tombstones]!--;
      this.#words[at.entries]!++;
      this.#write(entry, key, value);
      return;
    }
    const old = this.#words[slot + 1]!;
    this.#forget(old);
    if (this.#arena.fits(old, bytes)) {
      this.#write(old, key, value);
      return;
    }
    try {
      const entry = this.#arena.take(bytes, kinds.entry);
      this.#words[slot + 1] = entry;
      this.#write(entry, key, value);
    } catch (error) {
      this.#remember(old);
      throw error;
    }
    this.#arena.giveBack(old);
  }

  /** Whether it was there. */
  delete(key: Uint8Array): boolean {
    const slot = this.#find(key, hash(key));
    if (slot === -1) return false;
    const entry = this.#words[slot + 1]!;
    this.#forget(entry);
    this.#arena.giveBack(entry);
    this.#words[slot + 1] = tombstone;
    this.#words[at.tombstones]!++;
    this.#words[at.entries]!--;
    return true;
  }

  /** Views of the memory, in no order. */
  *entries(): Generator<[key: Uint8Array, value: Uint8Array]> {
    for (const slot of this.#slots(this.#words[at.table]!)) {
      const entry = this.#words[slot + 1]!;
      if (entry !== empty && entry !== tombstone) yield [this.#key(entry), this.#value(entry)];
    }
  }

  /** Looks at every byte that means something. Empty when all is as it must be. */
  check(): string[] {
    const words = this.#words;
    const { blocks, problems } = this.#arena.check();
    const table = words[at.table]!;
    const count = (kind: number) => [...blocks.values()].filter((found) => found === kind).length;
    if (count(kinds.table) !== 1 || blocks.get(table) !== kinds.table) return [...problems, 'the table is not one block'];
    if (count(kinds.entry) !== words[at.entries])
      problems.push(`${count(kinds.entry)} entries are in the arena, not ${this.size}`);

    const seen = new Set<number>();
    let tombstones = 0;
    let digest = 0;
    let content = 0;
    for (const slot of this.#slots(table)) {
      const entry = words[slot + 1]!;
      if (entry === tombstone) tombstones++;
      if (entry === empty || entry === tombstone) continue;
      const wrong = seen.has(entry) ? 'is in the table twice' : blocks.get(entry) === kinds.entry ? '' : 'is no entry';
      if (wrong !== '') {
        problems.push(`${entry} ${wrong}`);
        continue;
      }
      seen.add(entry);
      const length = words[entry / 4 + 2]! + words[entry / 4 + 3]!;
      if (!this.#arena.holds(entry, entryHeader + length)) {
        problems.push(`entry ${entry} says that it has ${length} bytes`);
        continue;
      }
      if (this.#checksum(entry) !== words[entry / 4 + 1]) problems.push(`the checksum of entry ${entry} is wrong`);
      const key = this.#key(entry);
      if (words[slot] !== hash(key) || this.#find(key, hash(key)) !== slot)
        problems.push(`entry ${entry} is not where it is looked for`);
      digest = (digest + words[entry / 4 + 1]!) >>> 0;
      content += length;
    }
    const sums: [name: string, is: number, says: number][] = [
      ['entries', seen.size, words[at.entries]!],
      ['tombstones', tombstones, words[at.tombstones]!],
      ['the sum of the checksums', digest, words[at.digest]!],
      ['bytes of content', content, words[at.content]!],
    ];
    for (const [name, is, says] of sums) if (is !== says) problems.push(`${name}: ${is}, and the header says ${says}`);
    return problems;
  }

  /** The slot that holds the key, as the index of its first word, or -1. */
  #find(key: Uint8Array, hashed: number): number {
    const table = this.#words[at.table]!;
    for (const slot of this.#slots(table, hashed)) {
      const entry = this.#words[slot + 1]!;
      if (entry === empty) return -1;
      if (entry !== tombstone && this.#words[slot] === hashed && equal(this.#key(entry), key)) return slot;
    }
    return -1;
  }

  /** Puts what is not in the table into the first slot that is free for it; what was there. */
  #place(table: number, hashed: number, entry: number): number {
    for (const slot of this.#slots(table, hashed)) {
      const before = this.#words[slot + 1]!;
      if (before !== empty && before !== tombstone) continue;
      this.#words[slot] = hashed;
      this.#words[slot + 1] = entry;
      return before;
    }
    throw new Error('the table is full');
  }

  /** All slots of a table, beginning where a hash is looked for first. */
  *#slots(table: number, hashed = 0): Generator<number> {
    const count = this.#slotCount(table);
    const first = (table + tableHeader) / 4;
    let slot = hashed % count;
    for (let left = count; left > 0; left--) {
      yield first + slot * 2;
      if (++slot === count) slot = 0;
    }
  }

  #slotCount(table: number): number {
    return (this.#arena.size(table) - tableHeader) / slotBytes;
  }

  /** Before an entry comes: a table that is three quarters full makes way for one of twice the size, or of the same without tombstones. */
  #makeRoom(): void {
    const old = this.#words[at.table]!;
    const slots = this.#slotCount(old);
    if ((this.size + this.#words[at.tombstones]! + 1) * 4 <= slots * 3) return;
    const table = this.#newTable(this.#arena.size(old) * (this.size * 2 > slots ? 2 : 1));
    for (const slot of this.#slots(old)) {
      const entry = this.#words[slot + 1]!;
      if (entry !== empty && entry !== tombstone) this.#place(table, this.#words[slot]!, entry);
    }
    this.#words[at.table] = table;
    this.#words[at.tombstones] = 0;
    this.#arena.giveBack(old);
  }

  #newTable(bytes: number): number {
    const table = this.#arena.take(bytes, kinds.table);
    this.#bytes.fill(0, table + 4, table + bytes);
    this.#words[at.tables]!++;
    return table;
  }

  #write(entry: number, key: Uint8Array, value: Uint8Array): void {
    this.#words[entry / 4 + 2] = key.length;
    this.#words[entry / 4 + 3] = value.length;
    this.#bytes.set(key, entry + entryHeader);
    this.#bytes.set(value, entry + entryHeader + key.length);
    this.#words[entry / 4 + 1] = this.#checksum(entry);
    this.#remember(entry);
  }

  /** Into the sums of the header. */
  #remember(entry: number): void {
    this.#words[at.digest]! += this.#words[entry / 4 + 1]!;
    this.#words[at.content]! += this.#words[entry / 4 + 2]! + this.#words[entry / 4 + 3]!;
  }

  #forget(entry: number): void {
    this.#words[at.digest]! -= this.#words[entry / 4 + 1]!;
    this.#words[at.content]! -= this.#words[entry / 4 + 2]! + this.#words[entry / 4 + 3]!;
  }

  #key(entry: number): Uint8Array {
    const start = entry + entryHeader;
    return this.#bytes.subarray(start, start + this.#words[entry / 4 + 2]!);
  }

  #value(entry: number): Uint8Array {
    const start = entry + entryHeader + this.#words[entry / 4 + 2]!;
    return this.#bytes.subarray(start, start + this.#words[entry / 4 + 3]!);
  }

  /** Of the lengths, the key and the value. */
  #checksum(entry: number): number {
    return digestOf(
      this.#bytes.subarray(entry + 8, entry + entryHeader + this.#words[entry / 4 + 2]! + this.#words[entry / 4 + 3]!),
    );
  }
}

/** FNV-1a: every byte changes it. */
function digestOf(bytes: Uint8Array): number {
  let digest = 0x811c9dc5;
  for (let i = 0; i < bytes.length; i++) digest = Math.imul(digest ^ bytes[i]!, 0x01000193);
  return digest >>> 0;
}

function hash(key: Uint8Array): number {
  const mixed = Math.imul(digestOf(key) ^ (digestOf(key) >>> 16), 0x85ebca6b);
  return (mixed ^ (mixed >>> 13)) >>> 0;
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
