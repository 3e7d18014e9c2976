/** What a version takes in memory. */
export const VERSION_BYTES = 12;

/**
 * Versions field by field, no objects: a word for whoever keeps them, low and high part of the number of the record, slot, state. They lie in one buffer, which
 * native code reads: the words first, so that all are aligned.
 */
export class VersionColumns {
  /** All of it. */
  readonly bytes: Uint8Array;
  readonly extra: Uint32Array;
  readonly recordLow: Uint32Array;
  readonly recordHigh: Uint16Array;
  readonly slot: Uint8Array;
  readonly state: Uint8Array;

  constructor(count: number) {
    const buffer = new ArrayBuffer(count * VERSION_BYTES);
    this.bytes = new Uint8Array(buffer);
    this.extra = new Uint32Array(buffer, 0, count);
    this.recordLow = new Uint32Array(buffer, count * 4, count);
    this.recordHigh = new Uint16Array(buffer, count * 8, count);
    this.slot = new Uint8Array(buffer, count * 10, count);
    this.state = new Uint8Array(buffer, count * 11, count);
  }

  get count(): number {
    return this.slot.length;
  }

  /** The same with room for more. */
  enlarged(count: number): VersionColumns {
    const larger = new VersionColumns(count);
    larger.extra.set(this.extra);
    larger.recordLow.set(this.recordLow);
    larger.recordHigh.set(this.recordHigh);
    larger.slot.set(this.slot);
    larger.state.set(this.state);
    return larger;
  }

  record(at: number): number {
    return this.recordHigh[at]! * 0x1_0000_0000 + this.recordLow[at]!;
  }

  set(at: number, record: number, slot: number, extra: number, state: number): void {
    this.extra[at] = extra;
    this.recordLow[at] = record >>> 0;
    this.recordHigh[at] = Math.floor(record / 0x1_0000_0000);
    this.slot[at] = slot;
    this.state[at] = state;
  }
}

/** A length of an array that must reach to `end`, of `most` that are expected: growing page by page it is seldom made anew. */
export function capacityFor(end: number, most: number): number {
  return Math.max(end, Math.min(2 ** Math.ceil(Math.log2(end)), most));
}
