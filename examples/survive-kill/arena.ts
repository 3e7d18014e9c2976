const headerOrder = 12;
const smallestOrder = 5;
const orders = 31;
const free = 0;

// Words of a block: order and kind (0 is free); in a free one, the free ones before and after it in the list of its order.
const before = 1;
const after = 2;

/**
 * A buddy allocator in a power of two of memory: blocks are powers of two, too, and lie at multiples of their size; what is given back joins
 * its other half when that is free. The first 4 KiB belong to the user; the heads of the free lists are in there, from word `heads` on.
 */
export class Arena {
  readonly #words: Uint32Array;
  readonly #heads: number;

  constructor(words: Uint32Array, heads: number) {
    this.#words = words;
    this.#heads = heads;
  }

  /** Everything but the header is free. */
  format(headerKind: number): void {
    this.#words[0] = headerOrder | (headerKind << 8);
    for (let order = headerOrder; 1 << order < this.#words.byteLength; order++) this.#push(1 << order, order);
  }

  /** @throws {RangeError} when no free block is large enough */
  take(bytes: number, kind: number): number {
    const wanted = orderOf(bytes);
    let order = wanted;
    while (order < orders && this.#words[this.#heads + order] === 0) order++;
    if (order >= orders) throw new RangeError(`the memory is full: no block of ${1 << wanted} bytes is free`);
    const block = this.#words[this.#heads + order]!;
    this.#unlink(block, order);
    while (order > wanted) {
      order--;
      this.#push(block + (1 << order), order);
    }
    this.#words[block / 4] = wanted | (kind << 8);
    return block;
  }

  giveBack(block: number): void {
    let order = this.#words[block / 4]! & 0xff;
    let start = block;
    // (The header is never free: this ends before the whole memory is one block.)
    for (; this.#words[(start ^ (1 << order)) / 4] === (order | (free << 8)); order++) {
      this.#unlink(start ^ (1 << order), order);
      start &= ~(1 << order);
    }
    this.#push(start, order);
  }

  /** Bytes of a block. */
  size(block: number): number {
    return 1 << (this.#words[block / 4]! & 0xff);
  }

  /** Whether a block that is taken would be the one for so many bytes. */
  fits(block: number, bytes: number): boolean {
    return this.size(block) === 1 << orderOf(bytes);
  }

  /** Whether so many bytes have room in it. */
  holds(block: number, bytes: number): boolean {
    return bytes <= this.size(block);
  }

  /** Every block that is taken, with its kind, and what is wrong: blocks must cover the memory, and the lists the free ones. */
  check(): { blocks: Map<number, number>; problems: string[] } {
    const words = this.#words;
    const blocks = new Map<number, number>();
    const unlisted = new Map<number, number>();
    for (let block = 0; block < words.byteLength; ) {
      const order = words[block / 4]! & 0xff;
      const kind = words[block / 4]! >>> 8;
      const size = 2 ** order;
      if (order < smallestOrder || order >= orders || block % size !== 0 || block + size > words.byteLength || kind > 3)
        return { blocks, problems: [`at ${block} there is no block, but ${words[block / 4]}`] };
      if (kind === free) unlisted.set(block, order);
      else blocks.set(block, kind);
      block += size;
    }
    const problems: string[] = [];
    for (const [block, order] of unlisted)
      if (unlisted.get(block ^ (1 << order)) === order)
        problems.push(`the free blocks at ${block} and its other half did not join`);
    for (let order = 0; order < orders; order++) {
      let previous = 0;
      for (let block = words[this.#heads + order]!; block !== 0; block = words[block / 4 + after]!) {
        if (unlisted.get(block) !== order || words[block / 4 + before] !== previous) {
          problems.push(`the list of free blocks of ${2 ** order} bytes is wrong at ${block}`);
          break;
        }
        unlisted.delete(block);
        previous = block;
      }
    }
    for (const block of unlisted.keys()) problems.push(`the free block at ${block} is in no list`);
    return { blocks, problems };
  }

  #push(block: number, order: number): void {
    const head = this.#words[this.#heads + order]!;
    this.#words[block / 4] = order | (free << 8);
    this.#words[block / 4 + before] = 0;
    this.#words[block / 4 + after] = head;
    if (head !== 0) this.#words[head / 4 + before] = block;
    this.#words[this.#heads + order] = block;
  }

  #unlink(block: number, order: number): void {
    const previous = this.#words[block / 4 + before]!;
    const next = this.#words[block / 4 + after]!;
    if (previous === 0) this.#words[this.#heads + order] = next;
    else this.#words[previous / 4 + after] = next;
    if (next !== 0) this.#words[next / 4 + before] = previous;
  }
}

function orderOf(bytes: number): number {
  return Math.max(smallestOrder, 32 - Math.clz32(bytes - 1));
}
