import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { WasmMemory } from '../../lib/index.js';

/** Addresses in the memory, which are numbers. */
type Pointer = number;

/** What of the exports of `quickjs.wasm` is used. A value of JavaScript is a pointer to a box in its memory, which must be given back. */
interface Exports {
  memory: WasmMemory;
  __stack_pointer: { value: Pointer };
  _initialize(): void;
  wasm_malloc(bytes: number): Pointer;
  wasm_free(at: Pointer): void;
  qjs_init(): number;
  qjs_get_runtime_ptr(): Pointer;
  qjs_get_context_ptr(): Pointer;
  qjs_set_promise_rejection_handler(on: number): void;
  qjs_eval(code: Pointer, bytes: number, file: Pointer, flags: number): Pointer;
  qjs_get_global(): Pointer;
  qjs_get_prop_string(object: Pointer, name: Pointer): Pointer;
  qjs_call(callee: Pointer, receiver: Pointer, count: number, values: Pointer): Pointer;
  qjs_is_exception(value: Pointer): number;
  qjs_get_exception(): Pointer;
  qjs_get_string_len(value: Pointer, length: Pointer): Pointer;
  qjs_free_cstring(at: Pointer): void;
  qjs_free_value(value: Pointer): void;
  qjs_is_job_pending(): number;
  qjs_execute_pending_job(): number;
}

/** Neither our `lib` nor @types/node 20 declares it. */
const { Module, Instance } = (
  globalThis as unknown as {
    WebAssembly: {
      Module: new (bytes: Uint8Array) => object;
      Instance: new (module: object, imports: Record<string, Record<string, unknown>>) => { exports: unknown };
    };
  }
).WebAssembly;

/** Where in its memory the interpreter has what it begins with: what a checkpoint has to say besides the memory. */
export type Roots = { stack: Pointer; runtime: Pointer; context: Pointer };

/** A module that was compiled once, and of which there may be any number of instances. */
export interface Compiled {
  module: object;
  /** SHA-256 of the module. A memory means something to this build only: addresses and layout are compiled in. */
  hash: string;
}

export async function compile(): Promise<Compiled> {
  const bytes = await readFile(fileURLToPath(import.meta.resolve('quickjs-wasi/quickjs.wasm')));
  return { module: new Module(bytes), hash: createHash('sha256').update(bytes).digest('hex') };
}

/**
 * QuickJS in WebAssembly, with nothing of it on this side. Its npm package has a JavaScript API, which is not used: that holds handles, pointers into
 * the memory, and after a restore they would be those of another time. Here every call finds what it needs by name, and gives back every box
 * before it returns. What is left outside the memory is one global, the stack pointer, which is at its start between two calls.
 */
export class Interpreter {
  readonly #exports: Exports;
  /** Where the stack pointer of a new instance is. */
  readonly #rest: Pointer;
  /** Calls into WebAssembly that have not returned. One that trapped never will: its memory is in the middle of something for good. */
  #depth = 0;
  #rejection: string | undefined;
  /** What the program takes for the time, in ms. The host gives it, and it is no state: the same steps see the same times, whenever they are made. */
  now = 0;

  /** An instance in which nothing has run: the module has no start function. Then either `boot` it, or restore its memory and `resume`. */
  constructor({ module }: Compiled) {
    this.#exports = new Instance(module, this.#imports()).exports as Exports;
    this.#rest = this.#exports.__stack_pointer.value;
  }

  /** Another one that goes on where that memory was: one to ask, because asking changes memory. */
  static copyOf(memory: Uint8Array, roots: Roots, compiled: Compiled): Interpreter {
    const copy = new Interpreter(compiled);
    copy.memory.grow((memory.length - copy.memory.buffer.byteLength) / 65_536);
    new Uint8Array(copy.memory.buffer).set(memory);
    copy.resume(roots);
    return copy;
  }

  get memory(): WasmMemory {
    return this.#exports.memory;
  }

  /** A new runtime and context, and a program in it. */
  boot(source: string, file: string): void {
    this.#enter((exports) => {
      exports._initialize();
      if (exports.qjs_init() !== 0) throw new Error('QuickJS could not be initialised');
      exports.qjs_set_promise_rejection_handler(1);
    });
    const code = this.#write(source);
    const name = this.#write(file);
    const result = this.#enter(({ qjs_eval }) => qjs_eval(code, Buffer.byteLength(source), name, 0));
    this.#free(code, name);
    this.#take(result);
    this.#runJobs();
  }

  /**
   * The memory has been restored: nothing is initialised, for that has happened and is in the memory. The stack pointer is not, and what C calls
   * static variables must be what they were. @throws when they are not
   */
  resume(roots: Roots): void {
    this.#exports.__stack_pointer.value = roots.stack;
    const now = this.roots();
    if (JSON.stringify(now) !== JSON.stringify(roots))
      throw new Error(`the interpreter has ${JSON.stringify(now)}, and ${JSON.stringify(roots)} was noted`);
  }

  /**
   * What a checkpoint is to note. @throws in the middle of a call, a function that the interpreter imports included, and after a trap: then part of
   * its state is on the stack of WebAssembly, where nobody can read it.
   */
  roots(): Roots {
    if (this.#depth > 0) throw new Error('a call into the interpreter has not returned');
    const { __stack_pointer: stack, qjs_get_runtime_ptr: runtime, qjs_get_context_ptr: context } = this.#exports;
    if (stack.value !== this.#rest)
      throw new Error(`the stack pointer is at ${stack.value}, and at ${this.#rest} when nothing runs`);
    return { stack: stack.value, runtime: runtime(), context: context() };
  }

  /** Calls a global function of the program, then whatever waits for its turn in there, and gives what the function returned as text. */
  call(name: string): string {
    const key = this.#write(name);
    const result = this.#enter((exports) => {
      const global = exports.qjs_get_global();
      const callee = exports.qjs_get_prop_string(global, key);
      const returned = exports.qjs_call(callee, global, 0, 0);
      exports.qjs_free_value(callee);
      exports.qjs_free_value(global);
      return returned;
    });
    this.#free(key);
    const text = this.#take(result);
    this.#runJobs();
    return text;
  }

  /** Promises that were resolved: async functions go on until the next `await`. */
  #runJobs(): void {
    while (this.#enter(({ qjs_is_job_pending }) => qjs_is_job_pending()) !== 0)
      if (this.#enter(({ qjs_execute_pending_job }) => qjs_execute_pending_job()) < 0) throw new Error(this.#exception());
    const rejection = this.#rejection;
    this.#rejection = undefined;
    if (rejection !== undefined) throw new Error(`the program lets a promise be rejected: ${rejection}`);
  }

  #enter<T>(work: (exports: Exports) => T): T {
    this.#depth++;
    const result = work(this.#exports);
    this.#depth--;
    return result;
  }

  /** The text of a value, which is given back. @throws when it stands for an exception */
  #take(value: Pointer): string {
    const failed = this.#enter(({ qjs_is_exception }) => qjs_is_exception(value)) !== 0;
    const text = failed ? this.#exception() : this.#text(value);
    this.#enter(({ qjs_free_value }) => qjs_free_value(value));
    if (failed) throw new Error(text);
    return text;
  }

  #exception(): string {
    const exception = this.#enter(({ qjs_get_exception }) => qjs_get_exception());
    const text = this.#text(exception);
    this.#enter(({ qjs_free_value }) => qjs_free_value(exception));
    return text;
  }

  #text(value: Pointer): string {
    return this.#enter((exports) => {
      const length = exports.wasm_malloc(4);
      const at = exports.qjs_get_string_len(value, length);
      const { buffer } = exports.memory;
      const text = Buffer.from(buffer, at, new DataView(buffer).getUint32(length, true)).toString();
      exports.qjs_free_cstring(at);
      exports.wasm_free(length);
      return text;
    });
  }

  /** Text as C has it, to be given back. */
  #write(text: string): Pointer {
    const bytes = Buffer.from(`${text}\0`);
    const at = this.#enter(({ wasm_malloc }) => wasm_malloc(bytes.length));
    if (at === 0) throw new Error('the interpreter is out of memory');
    // (The buffer of now: taking memory may have made it grow, which detaches the one before.)
    Buffer.from(this.memory.buffer).set(bytes, at);
    return at;
  }

  #free(...pointers: Pointer[]): void {
    this.#enter(({ wasm_free }) => {
      for (const at of pointers) wasm_free(at);
    });
  }

  /** Everything that the module imports. None of it keeps anything, but for a rejection until the call is over. */
  #imports(): Record<string, Record<string, unknown>> {
    const notHere = () => 52; // ENOSYS of WASI
    return {
      env: {
        host_call: () => 0,
        host_interrupt: () => 0,
        host_module_normalize: () => 0,
        host_module_load: () => 0,
        // UTC, wherever it runs: the next process may be in another time zone.
        host_get_timezone_offset: () => 0,
        host_promise_rejection: (promise: Pointer, reason: Pointer, isHandled: number) => {
          // (One that is caught later in the same turn counts as well.)
          if (isHandled === 0) this.#rejection ??= this.#text(reason);
          this.#exports.qjs_free_value(promise);
          this.#exports.qjs_free_value(reason);
        },
      },
      wasi_snapshot_preview1: {
        // QuickJS seeds Math.random with the time at which the context is made: from then on its state is in the memory.
        clock_time_get: (_clock: number, _precision: bigint, at: Pointer) => {
          new DataView(this.memory.buffer).setBigUint64(at, BigInt(this.now) * 1_000_000n, true);
          return 0;
        },
        random_get: notHere,
        fd_close: notHere,
        fd_fdstat_get: notHere,
        fd_seek: notHere,
        fd_write: notHere,
      },
    };
  }
}
