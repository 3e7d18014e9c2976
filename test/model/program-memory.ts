import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { content, type Name, type Part, type Pick } from './lazy-memory.js';
import { helpers, sumOf } from './lazy-threads.js';
import { PAGE } from './model.js';

/** What was done, for failures: also those in which nothing is reported any more. */
export interface Trace {
  begin(what: string): void;
  add(what: string): void;
}

/** The regions of a program, and what it does to them: it reads them, writes to them, drops pages, lets them grow, and hands them to system calls and other threads. */
export class ProgramMemory {
  parts = new Map<Name, Part>();
  readonly #pick: Pick;
  readonly #trace: Trace;
  readonly #path: string;
  readonly #counts: { drops: number; grown: number };
  readonly #file: number;

  constructor(path: string, pick: Pick, trace: Trace, counts: { drops: number; grown: number }) {
    this.#path = `${path}-file`;
    this.#pick = pick;
    this.#trace = trace;
    this.#counts = counts;
    this.#file = openSync(this.#path, 'w+');
  }

  release(): void {
    for (const { region } of this.parts.values()) region.close();
    closeSync(this.#file);
    rmSync(this.#path);
  }

  #part(): Part {
    const names = [...this.parts.keys()];
    return this.parts.get(names[this.#pick(names.length)]!)!;
  }

  /** Some pages of a region, not more than it has. */
  range(most: number, part = this.#part()): { part: Part; first: number; count: number } {
    const first = this.#pick(part.pages.length);
    return { part, first, count: 1 + this.#pick(Math.min(most, part.pages.length - first)) };
  }

  read(): void {
    const { part, first, count } = this.range(this.#pick(4) === 0 ? 200 : 3);
    this.#trace.add(`read ${part.name} ${first}+${count}`);
    part.check('read', first, count);
  }

  write(): void {
    const pick = this.#pick;
    const part = this.#part();
    const kind = pick(6);
    this.#trace.add(`write ${part.name} ${kind}`);
    if (kind < 2) {
      // Some pages are changed again and again.
      for (let times = 1 + pick(10); times > 0; times--)
        part.edit(pick(pick(3) === 0 ? part.pages.length : Math.min(part.pages.length, 40)), pick);
    } else if (kind === 2) {
      const length = 1 + pick(3 * PAGE);
      part.write(pick(part.byteLength - length), content(length, pick));
    } else if (kind === 3) {
      const { first } = this.range(1, part);
      part.write(first * PAGE, part.pages[first]!);
    } else {
      const { first, count } = this.range(kind === 4 ? 4 : 60, part);
      part.write(first * PAGE, content(count * PAGE, pick));
    }
  }

  drop(): void {
    const { part, first, count } = this.range(60);
    this.#counts.drops++;
    if (part.name === 'heap' && this.#pick(2) === 0) {
      this.#trace.add('drop the end of heap');
      part.drop(this.#pick);
    } else {
      // What it has grown by is tracked from the next scan on.
      const known = Math.min(count, part.region.byteLength / PAGE - first);
      this.#trace.add(`drop ${part.name} ${first}+${known}`);
      if (known > 0) part.discard(first, known);
    }
    if (this.#pick(3) === 0) part.check('dropped');
  }

  grow(): void {
    const part = this.parts.get(this.#pick(2) === 0 ? 'heap' : 'wasm')!;
    const before = part.pages.length;
    part.grow(this.#pick);
    this.#trace.add(`grow ${part.name} from ${before} to ${part.pages.length}`);
    this.#counts.grown += part.pages.length - before;
    if (part.pages.length > before && this.#pick(2) === 0) part.edit(before, this.#pick);
  }

  /** Memory is written to a file: by several threads of the pool, or at once. */
  async fileWrite(): Promise<void> {
    const ranges = Array.from({ length: this.#pick(2) === 0 ? 1 : 6 }, () => this.range(12));
    this.#trace.add(`to file ${ranges.map(({ part, first, count }) => `${part.name} ${first}+${count}`).join()}`);
    ftruncateSync(this.#file);
    const place = (k: number): number => k * 12 * PAGE;
    if (ranges.length === 1) {
      const { part, first, count } = ranges[0]!;
      writeSync(this.#file, part.bytes(first * PAGE, count * PAGE), 0, count * PAGE, 0);
    } else {
      const handle = await open(this.#path, 'r+');
      const all = ranges.map(({ part, first, count }, k) =>
        handle.write(part.bytes(first * PAGE, count * PAGE), 0, count * PAGE, place(k)),
      );
      this.read();
      await Promise.all(all);
      await handle.close();
    }
    for (const [k, { part, first, count }] of ranges.entries()) {
      const found = Buffer.alloc(count * PAGE);
      readSync(this.#file, found, 0, found.length, place(k));
      assert.ok(
        found.equals(Buffer.concat(part.pages.slice(first, first + count))),
        `written from ${part.name} ${first}+${count}`,
      );
    }
  }

  /** Memory is read from a file. */
  async fileRead(): Promise<void> {
    const { part, first, count } = this.range(12);
    const length = 1 + this.#pick(count * PAGE);
    this.#trace.add(`from file ${part.name} ${first}, ${length} bytes`);
    const bytes = content(length, this.#pick);
    writeSync(this.#file, bytes, 0, length, 0);
    if (this.#pick(2) === 0) {
      readSync(this.#file, part.bytes(first * PAGE, length), 0, length, 0);
    } else {
      const handle = await open(this.#path, 'r');
      const { bytesRead } = await handle.read(part.bytes(first * PAGE, length), 0, length, 0);
      assert.equal(bytesRead, length);
      await handle.close();
    }
    part.note(first * PAGE, bytes);
  }

  /** Other threads read shared memory, and write to it. */
  async helped(): Promise<void> {
    const part = this.parts.get('shared')!;
    const half = part.pages.length / 2;
    this.#trace.add('helpers');
    const asked = helpers.map((helper, k) => {
      const first = k * half + this.#pick(half);
      const count = 1 + this.#pick((k + 1) * half - first);
      const value = this.#pick(2) === 0 ? this.#pick(2 ** 31) : undefined;
      const sum = new Promise<number>((resolve, reject) => helper.once('message', resolve).once('error', reject));
      helper.ref();
      helper.postMessage({ buffer: part.region.buffer, first, count, value });
      return { first, count, value, sum };
    });
    for (const { first, count, value, sum } of asked) {
      const found = await sum;
      assert.equal(found, sumOf(part.pages.slice(first, first + count)), `sum of shared ${first}+${count}`);
      if (value === undefined) continue;
      const word = Buffer.alloc(4);
      word.writeInt32LE(value);
      for (let page = first; page < first + count; page++) part.note(page * PAGE + (value % 1000) * 4, word);
    }
    for (const helper of helpers) {
      helper.removeAllListeners('error');
      helper.unref();
    }
  }
}
