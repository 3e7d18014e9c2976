import { random, text } from '../random.js';
import type { HashIndex } from './hash-index.js';

/** The index, and the plain Map that says what must be in it. */
export interface KeyValues {
  get(key: Uint8Array): Uint8Array | undefined;
  put(key: Uint8Array, value: Uint8Array): void;
  delete(key: Uint8Array): boolean;
}

const mostKeys = 8000;

/** Operation number n. It depends on n, the seed, and for some on what is there: one that was lost or done twice is never made good again. */
export function apply(to: KeyValues, n: number, seed: number): void {
  const next = random(n, seed);
  // The keys become more, so that the table grows again and again; every now and then most of them go.
  const number = next(Math.min(mostKeys, 100 + (n >> 2)));
  const key = Buffer.from(`${text(random(number), 1 + (number % 4))}/${number}`);
  const clearing = (n >> 11) % 4 === 3;
  const dice = next(100);
  if (dice < (clearing ? 70 : 15)) {
    to.delete(key);
    return;
  }
  const before = dice < 50 ? to.get(key) : undefined;
  if (before === undefined) to.put(key, Buffer.from(text(next, next(30) === 0 ? 800 : next(120))));
  else
    to.put(
      key,
      Buffer.concat([Buffer.from(`${n}: `), before.subarray(before.length >> 1), before.subarray(0, before.length >> 1)]),
    );
}

/** What must be in the index after operation n. */
export class Model implements KeyValues {
  readonly #map = new Map<string, Uint8Array>();
  readonly #seed: number;
  #done = 0;

  constructor(seed: number) {
    this.#seed = seed;
  }

  /** Operations 1 to n, one after the other. */
  goTo(n: number): void {
    if (n < this.#done) {
      this.#map.clear();
      this.#done = 0;
    }
    while (this.#done < n) apply(this, ++this.#done, this.#seed);
  }

  get(key: Uint8Array): Uint8Array | undefined {
    return this.#map.get(textOf(key));
  }

  put(key: Uint8Array, value: Uint8Array): void {
    this.#map.set(textOf(key), value);
  }

  delete(key: Uint8Array): boolean {
    return this.#map.delete(textOf(key));
  }

  /** What is wrong with an index that must hold the same, entry by entry and byte by byte, and be whole. */
  differences(index: HashIndex): string[] {
    const found = index.check();
    if (index.operations !== this.#done) found.push(`the last operation is ${index.operations}, not ${this.#done}`);
    if (index.size !== this.#map.size) found.push(`there are ${index.size} entries, not ${this.#map.size}`);
    for (const [key, value] of index.entries()) {
      const wanted = this.get(key);
      if (wanted === undefined) found.push(`${textOf(key)} is there and must not be`);
      else if (Buffer.compare(wanted, value) !== 0) found.push(`${textOf(key)} has another value`);
    }
    for (const [key, value] of this.#map) {
      const there = index.get(Buffer.from(key, 'latin1'));
      if (there === undefined || Buffer.compare(there, value) !== 0) found.push(`${key} is not found`);
    }
    return found;
  }
}

function textOf(key: Uint8Array): string {
  return Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');
}
