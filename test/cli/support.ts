import assert from 'node:assert/strict';
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Checkpointer, Engine, Region } from '../../lib/index.js';

export const MAIN = fileURLToPath(new URL('../../lib/cli/main.js', import.meta.url));
export const PAGE = 4096;

export interface Result {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: Buffer;
  stderr: string;
}

export function start(command: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
  return spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
}

export function result(child: ChildProcess): Promise<Result> {
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout?.on('data', (bytes: Buffer) => out.push(bytes));
  child.stderr?.on('data', (bytes: Buffer) => err.push(bytes));
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) =>
      resolve({ code, signal, stdout: Buffer.concat(out), stderr: Buffer.concat(err).toString() }),
    );
  });
}

/** Runs the tool as it is installed. */
export function tidemark(...args: string[]): Promise<Result> {
  return result(start(process.execPath, [MAIN, ...args]));
}

/** Runs it and expects this exit code; the text on stdout. */
export async function expectExit(code: number, ...args: string[]): Promise<Result & { text: string }> {
  const done = await tidemark(...args);
  assert.equal(done.code, code, `exit code of ${args.join(' ')}:\n${done.stdout}\n${done.stderr}`);
  return { ...done, text: done.stdout.toString() };
}

/** The one JSON object that an error leaves on stderr. */
export function failure({ stderr, stdout }: Result): { code: string; message: string; hint?: string; exitCode: number } {
  assert.equal(stdout.length, 0, 'stdout is data only');
  assert.equal(stderr.trimEnd().split('\n').length, 1, stderr);
  return JSON.parse(stderr);
}

export function temporaryFolder(): string {
  return mkdtempSync(join(tmpdir(), 'tidemark-cli-'));
}

export function remove(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

/** What a store made by `makeStore` holds. */
export interface Made {
  /** Of region `heap` at checkpoints 1, 2, 3. */
  heap: Buffer[];
  /** Of region `stack`, all 2 pages; length 5000. */
  stack: Buffer;
  uids: string[];
}

export const HEAP_PAGES = 40;
export const HEAP_LENGTH = HEAP_PAGES * PAGE - 100;
export const STACK_LENGTH = 5000;
export const METADATA = { step: 3, 'a "name"': ['\u001b[31m', '\u009b'] };

/**
 * Three checkpoints on main (the second labelled `half`), one on `side`: regions heap (20 pages that do not compress, the other half zero) and stack.
 */
export async function makeStore(path: string): Promise<Made> {
  const engine = new Engine({ workers: 1 });
  const made: Made = { heap: [], stack: Buffer.alloc(0), uids: [] };
  const heap = Region.allocate(HEAP_PAGES * PAGE);
  const stack = Region.allocate(2 * PAGE);
  const bytes = new Uint8Array(heap.buffer);
  noise(bytes.subarray(0, 20 * PAGE), 1);
  new Uint8Array(stack.buffer).fill(7);
  try {
    const lengths = { heap: HEAP_LENGTH, stack: STACK_LENGTH };
    const main = await Checkpointer.open(path, { regions: { heap, stack }, engine, fingerprint: 'program 1' });
    const keep = async (options: Parameters<typeof main.checkpoint>[0]) => {
      const { uid } = await main.checkpoint({ lengths, ...options });
      made.uids.push(uid);
      made.heap.push(Buffer.from(bytes.slice(0, HEAP_LENGTH)));
    };
    await keep({});
    noise(bytes.subarray(4 * PAGE, 5 * PAGE), 2);
    await keep({ label: 'half' });
    noise(bytes.subarray(10 * PAGE, 12 * PAGE), 3);
    await keep({ metadata: METADATA });
    made.stack = Buffer.from(new Uint8Array(stack.buffer).slice(0, STACK_LENGTH));
    await main.close();
    const side = await Checkpointer.open(path, { regions: { stack }, branch: 'side', startOver: true, engine });
    made.uids.push((await side.checkpoint()).uid);
    await side.close();
  } finally {
    heap.close();
    stack.close();
    await engine.close();
  }
  return made;
}

/** Bytes that do not compress, the same for the same seed. */
export function noise(target: Uint8Array, seed: number): void {
  let state = Math.imul(seed, 0x9e3779b1) >>> 0 || 1;
  const words = new Uint32Array(target.buffer, target.byteOffset, target.byteLength >> 2);
  for (let k = 0; k < words.length; k++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[k] = state;
  }
}

/** A store with one region of noise. */
export async function makeBigStore(path: string, byteLength: number): Promise<void> {
  const engine = new Engine({ workers: 1 });
  const heap = Region.allocate(byteLength);
  noise(new Uint8Array(heap.buffer), 9);
  try {
    const main = await Checkpointer.open(path, { regions: { heap }, engine, compressionLevel: -5 });
    await main.checkpoint({ durability: 'relaxed' });
    await main.close();
  } finally {
    heap.close();
    await engine.close();
  }
}
