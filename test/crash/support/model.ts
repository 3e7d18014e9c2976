/**
 * What the memory of the crash tests holds, so that every byte of every checkpoint can be foretold: step n writes a set of pages that
 * follows from the seed, and page p written in step n has the content f(p, n). A process that goes on after a crash continues with numbers
 * that were never used, so bytes of a lost past would show.
 */
export const PAGE = 4096;
/** Numbers of steps that a life (a process that writes) may use. */
export const STEPS_OF_A_LIFE = 100_000;

export interface Plan {
  seed: number;
  /** Pages of the region. */
  pages: number;
  /** How often a step is of that size, in percent; the others are small. `large` is two to three quarters of the region. */
  medium: number;
  large: number;
}

/** First and last step of each life, oldest first: with the plan it says everything that was written. Metadata of every checkpoint. */
export type History = [first: number, last: number][];

/** Small and repeatable: 0 <= result < below. */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

export const mix = (...values: number[]): number => {
  let hash = 0x811c9dc5;
  for (const value of values) {
    hash = Math.imul(hash ^ value, 0x85ebca6b);
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
    hash ^= hash >>> 16;
  }
  return hash >>> 0;
};

/** Bytes that do not compress; pages are cut out of it. */
const NOISE = 16 << 20;
let noise: Uint8Array | undefined;

function makeNoise(): Uint8Array {
  const words = new Uint32Array((NOISE + PAGE) / 4);
  let x = 0x9e3779b9;
  for (let k = 0; k < words.length; k++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[k] = x;
  }
  return new Uint8Array(words.buffer);
}

/** Writes f(page, step) to `target` at `at`. Some pages are zero, some compress well, most do not. */
export function writePage(plan: Plan, page: number, step: number, target: Uint8Array, at: number): void {
  const hash = mix(plan.seed, page, step);
  if (step === 0 || hash % 31 === 0) {
    target.fill(0, at, at + PAGE);
    return;
  }
  if (hash % 7 === 0) {
    target.fill(hash & 0xff, at, at + PAGE);
  } else {
    noise ??= makeNoise();
    const from = (hash % NOISE) & ~7;
    target.set(noise.subarray(from, from + PAGE), at);
  }
  const view = new DataView(target.buffer, target.byteOffset + at, 16);
  view.setUint32(0, plan.seed);
  view.setUint32(4, page);
  view.setUint32(8, step);
  view.setUint32(12, hash);
}

/** The pages that a step writes. */
export function pagesOf(plan: Plan, step: number): number[] {
  const next = random(mix(plan.seed, step));
  const size = next(100);
  if (size < plan.large) {
    const count = Math.floor(plan.pages * 0.5) + next(Math.floor(plan.pages * 0.25));
    const first = next(plan.pages - count + 1);
    return Array.from({ length: count }, (_, k) => first + k);
  }
  // More than the 4 MiB that are written ahead of the manifest.
  const count = size < plan.large + plan.medium ? 1100 + next(1500) : 1 + next(120);
  return [...new Set(Array.from({ length: Math.min(count, plan.pages) }, () => next(plan.pages)))];
}

/** The memory after a history, as the step that wrote each page last (0: never). */
export class State {
  readonly plan: Plan;
  readonly lastStep: Uint32Array;
  #history: History = [];

  constructor(plan: Plan) {
    this.plan = plan;
    this.lastStep = new Uint32Array(plan.pages);
  }

  get history(): History {
    return this.#history.map(([first, last]) => [first, last]);
  }

  /** Notes a step; returns its pages. */
  apply(step: number): number[] {
    const pages = pagesOf(this.plan, step);
    for (const page of pages) this.lastStep[page] = step;
    const last = this.#history.at(-1);
    if (last?.[1] === step - 1) last[1] = step;
    else this.#history.push([step, step]);
    return pages;
  }

  /** Makes it the state after `history`, by going on where it stands if that is on the way. */
  become(history: History): void {
    const done = new Set(stepsOf(this.#history));
    const wanted = [...stepsOf(history)];
    let common = 0;
    while (common < wanted.length && done.has(wanted[common]!)) common++;
    if (common < done.size) {
      this.lastStep.fill(0);
      this.#history = [];
      common = 0;
    }
    for (const step of wanted.slice(common)) this.apply(step);
  }

  /** The first page of `memory` (from page `from` on) that is not what it should be; -1 if there is none. */
  firstDifference(memory: Uint8Array, from = 0): number {
    const expected = Buffer.alloc(PAGE);
    const actual = Buffer.from(memory.buffer, memory.byteOffset, memory.byteLength);
    for (let at = 0; at < memory.length; at += PAGE) {
      const page = from + at / PAGE;
      writePage(this.plan, page, this.lastStep[page]!, expected, 0);
      if (actual.compare(expected, 0, PAGE, at, at + PAGE) !== 0) return page;
    }
    return -1;
  }
}

function* stepsOf(history: History): Generator<number> {
  for (const [first, last] of history) for (let step = first; step <= last; step++) yield step;
}

/** The attachment of a branch that has a number: what it holds is the same for some steps, so that it is stored by reference. */
export function attachmentOf(plan: Plan, number: number): Uint8Array {
  const next = random(mix(plan.seed, number, 99));
  const bytes = new Uint8Array(next(4) === 0 ? next(600_000) : next(9000));
  for (let at = 0; at < bytes.length; at += PAGE) {
    const page = new Uint8Array(PAGE);
    writePage(plan, at / PAGE, number, page, 0);
    bytes.set(page.subarray(0, bytes.length - at), at);
  }
  return bytes;
}
