import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import loadWabt from 'wabt';
import type { WasmMemory } from '../../lib/index.js';

/** What `program.wat` exports. */
interface Exports {
  memory: WasmMemory;
  init(seed: number): void;
  stir(salt: number): void;
  step(count: number): number;
  steps(): number;
  size(): number;
}

/** Neither our `lib` nor @types/node 20 declares it. */
const { Module, Instance } = (
  globalThis as unknown as {
    WebAssembly: { Module: new (bytes: Uint8Array) => object; Instance: new (module: object) => { exports: unknown } };
  }
).WebAssembly;

// The compiler takes along what it compiles: this file runs in dist/examples/sandboxes.
const source = join(import.meta.dirname, '../../../examples/sandboxes/program.wat');

/** A module that was compiled once, and of which there may be any number of instances. */
export interface Program {
  /** SHA-256 of the module. A memory means something to this program only: addresses and layout are compiled in. */
  hash: string;
  instantiate(): Exports;
}

export async function loadProgram(): Promise<Program> {
  const wabt = await loadWabt();
  const parsed = wabt.parseWat('program.wat', await readFile(source, 'utf8'));
  const { buffer } = parsed.toBinary({});
  parsed.destroy();
  const module = new Module(buffer);
  return {
    hash: createHash('sha256').update(buffer).digest('hex'),
    instantiate: () => new Instance(module).exports as Exports,
  };
}
