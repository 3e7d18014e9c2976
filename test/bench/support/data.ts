const TEXT = Buffer.from('the quick brown fox jumps');

/** Records of 64 bytes: counter, time, numbers, text, 6 random bytes. */
export class Records {
  #counter = 0;
  #seed = 42;

  random(): number {
    this.#seed = (Math.imul(this.#seed, 1664525) + 1013904223) >>> 0;
    return this.#seed;
  }

  /** From 0 to `end - 1`. Of the high bits: the low ones of this generator repeat soon. */
  below(end: number): number {
    return Math.floor((this.random() / 2 ** 32) * end);
  }

  write(view: DataView, bytes: Uint8Array, at: number): void {
    const n = ++this.#counter;
    view.setUint32(at, n, true);
    view.setUint32(at + 4, 0, true);
    view.setFloat64(at + 8, 1_790_000_000_000 + n, true);
    view.setUint32(at + 16, n % 1000, true);
    view.setUint32(at + 20, (n * 7) % 5000, true);
    bytes.set(TEXT, at + 24);
    const r = this.random();
    view.setUint32(at + 52, r, true);
    view.setUint16(at + 56, r >>> 7, true);
  }

  fill(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < bytes.length; at += 64) this.write(view, bytes, at);
  }

  /** Rewrites one record in each of `count` different pages at random. */
  touch(bytes: Uint8Array, count: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const touched = new Uint8Array(bytes.length / 4096);
    for (let k = 0; k < count; ) {
      const page = this.below(touched.length);
      if (touched[page] === 1) continue;
      touched[page] = 1;
      this.write(view, bytes, page * 4096 + this.below(64) * 64);
      k++;
    }
  }
}

/** Records in all of a memory, faster than `fill`: a block of them again and again, each page with a number of its own. */
export function fillQuickly(bytes: Uint8Array): void {
  const block = Math.min(bytes.length, 64 << 20);
  new Records().fill(bytes.subarray(0, block));
  for (let at = block; at < bytes.length; at += block) bytes.copyWithin(at, 0, Math.min(block, bytes.length - at));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = block; at < bytes.length; at += 4096) view.setUint32(at + 4, at / 4096, true);
}
