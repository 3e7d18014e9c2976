import assert from 'node:assert/strict';
import { PageKind } from '../../lib/engine/protocol.js';
import { addon, PAGE_SIZE } from '../../lib/kernel/addon.js';

/** What a job is, but for what most tests leave as it is. */
export interface JobOptions {
  generation?: number;
  turn?: number;
  sequence?: number;
  mode?: number;
  maxDepth?: number;
  maxWords?: number;
}

export function jobOf(table: number, options: JobOptions = {}): Uint32Array {
  const { generation = 0, turn = 0, sequence = 1, mode = 0, maxDepth = 32, maxWords = 256 } = options;
  return Uint32Array.of(table, generation, turn, sequence, mode, maxDepth, maxWords);
}

/** What became of a page. */
export interface EncodedPage {
  kind: 'full' | 'delta' | 'unchanged';
  crc: number;
  base: number;
  /** What is stored for it: the page, or the delta. */
  stored: Buffer | undefined;
}

/** By their numbers. */
const NAMES = Object.keys(PageKind) as (keyof typeof PageKind)[];

/** Encodes pages, given with what they hold; checks that what is stored is packed, and each page's CRC32C. */
export function encode(
  shadows: number,
  job: Uint32Array,
  pages: readonly (readonly [page: number, content: Uint8Array])[],
  zeros: readonly number[] = [],
): EncodedPage[] {
  const bytes = new Uint8Array(pages.length * PAGE_SIZE);
  for (const [k, [, content]] of pages.entries()) bytes.set(content, k * PAGE_SIZE);
  const deltas = new Uint8Array(bytes.length);
  const kinds = new Uint8Array(pages.length).fill(77);
  const [crcs, bases] = [new Uint32Array(pages.length).fill(77), new Uint32Array(pages.length).fill(77)];
  const numbers = Uint32Array.from(pages, ([page]) => page);
  addon().shadowEncode(shadows, job, numbers, Uint32Array.from(zeros), bytes, deltas, kinds, crcs, bases);
  const next = { full: 0, delta: 0 };
  return pages.map(([page, content], k) => {
    assert.equal(crcs[k], addon().crc32c(content), `the CRC32C of page ${page}`);
    const kind = NAMES[kinds[k]!];
    assert.ok(kind !== undefined, `kind ${kinds[k]}`);
    if (kind === 'unchanged') return { kind, crc: crcs[k]!, base: bases[k]!, stored: undefined };
    const at = next[kind]++ * PAGE_SIZE;
    const stored = Buffer.from((kind === 'full' ? bytes : deltas).subarray(at, at + PAGE_SIZE));
    if (kind === 'full') assert.ok(stored.equals(content), `page ${page} is stored full, as something else`);
    return { kind, crc: crcs[k]!, base: bases[k]!, stored };
  });
}

/** The kinds only. */
export function kindsOf(encoded: readonly EncodedPage[]): string[] {
  return encoded.map(({ kind }) => kind);
}

/** A page that has `value` in its first word, and noise that depends on `seed` behind it. */
export function pageOf(seed: number, value = 0): Buffer {
  const page = Buffer.alloc(PAGE_SIZE);
  let state = (seed + 1) * 0x9e3779b1;
  for (let at = 0; at < PAGE_SIZE; at += 4) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    page.writeUInt32LE(state, at);
  }
  page.writeUInt32LE(value, 0);
  return page;
}

export function xor(a: Uint8Array, b: Uint8Array): Buffer {
  return Buffer.from(a.map((byte, k) => byte ^ b[k]!));
}

/** Makes shadows for a test, and closes them. */
export async function withShadows(pages: number, body: (shadows: number, table: number) => void | Promise<void>): Promise<void> {
  const shadows = addon().shadowsCreate(pages * PAGE_SIZE);
  try {
    await body(shadows, addon().shadowOpen(shadows));
  } finally {
    addon().shadowsClose(shadows);
  }
}
