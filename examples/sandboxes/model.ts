/**
 * How a state came about: from the seed, so many steps in each part, and another salt at the start of each. A sandbox that went back to a
 * checkpoint, and one that was forked, begin a part.
 */
export type History = [salt: number, steps: number][];

interface Account {
  balance: number;
  last: number;
  steps: number;
}

const headerBytes = 4096;
const places = 512;
const logStart = 16_384;
const wasmPage = 65_536;
const mostBytes = 8 * wasmPage;
const mostEvents = (mostBytes - logStart) / 32;

/** The same ledger in plain JavaScript, a Map and a list, which knows nothing of the program; `bytes()` says what the program's memory must hold. */
export class Model {
  #generator: number;
  #chain = 0;
  #steps = 0;
  readonly #accounts = new Map<number, Account>();
  /** The events that the log still has, by place. */
  readonly #events: number[][] = [];

  constructor(seed: number, history: History) {
    this.#generator = seed | 1;
    for (const [salt, steps] of history) {
      this.#stir(salt);
      for (let left = steps; left > 0; left--) this.#step();
    }
  }

  get steps(): number {
    return this.#steps;
  }

  /** The program's memory: exactly these bytes. Memory behind them, which an earlier time has left, is zero. */
  bytes(): Uint8Array {
    const fewestBytes = Math.min(mostBytes, logStart + this.#steps * 32);
    const bytes = new Uint8Array(Math.max(1, Math.ceil(fewestBytes / wasmPage)) * wasmPage);
    const words = new Uint32Array(bytes.buffer);
    words.set([0x67646c74, this.#generator, this.#steps, bytes.length - logStart, this.#accounts.size, this.#chain]);
    // Nothing is ever deleted, so that the order in which the accounts came decides where each one is.
    for (const [key, { balance, last, steps }] of this.#accounts) {
      let place = Math.imul(key, 0x9e3779b1) >>> 23;
      while (words[(headerBytes + place * 16) / 4] !== 0) place = (place + 1) % places;
      words.set([key, balance, last, steps], (headerBytes + place * 16) / 4);
    }
    for (const [place, event] of this.#events.entries()) words.set(event, (logStart + place * 32) / 4);
    return bytes;
  }

  #stir(salt: number): void {
    this.#generator = (this.#generator ^ Math.imul(salt + 1, 0x9e3779b1)) | 0 || 1;
  }

  #step(): void {
    this.#generator ^= this.#generator << 13;
    this.#generator ^= this.#generator >>> 17;
    this.#generator ^= this.#generator << 5;
    const drawn = this.#generator >>> 0;
    const key = 1 + ((drawn >>> 8) % 384);
    const amount = drawn % 65_536;
    let account = this.#accounts.get(key);
    if (account === undefined) {
      account = { balance: 0, last: 0, steps: 0 };
      this.#accounts.set(key, account);
    }
    const { balance: before, last, steps } = account;
    const adds = Math.floor(drawn / 65_536) % 2 === 1;
    const balance = (adds ? before + amount : rotated(before, 7) ^ amount) >>> 0;
    this.#chain = Math.imul(rotated(this.#chain, 5) ^ balance, 16_777_619) >>> 0;
    const number = ++this.#steps;
    this.#events[(number - 1) % mostEvents] = [number, key, amount, balance, last, steps, this.#chain, drawn];
    account.balance = balance;
    account.last = number;
    account.steps++;
  }
}

function rotated(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by));
}

/** Where memory is not what the model says, in words; undefined where it is. */
export function difference(memory: Uint8Array, expected: Uint8Array): string | undefined {
  if (memory.length < expected.length) return `${memory.length} bytes instead of ${expected.length}`;
  if (Buffer.compare(memory.subarray(0, expected.length), expected) !== 0) {
    const at = expected.findIndex((byte, k) => byte !== memory[k]);
    return `byte ${at} is ${memory[at]} instead of ${expected[at]}`;
  }
  const behind = memory.subarray(expected.length).findIndex((byte) => byte !== 0);
  return behind < 0 ? undefined : `byte ${expected.length + behind} is not 0, behind the end of the program's memory`;
}
