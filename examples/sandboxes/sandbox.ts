import { type Checkpoint, Checkpointer, type CheckpointStore, Region } from '../../lib/index.js';
import type { History } from './model.js';
import type { Program } from './program.js';
import { digest, fingerprint, type Metadata, startOf } from './protocol.js';

/** What all sandboxes share. */
export interface Host {
  store: CheckpointStore;
  program: Program;
  seed: number;
}

/** An instance of the program, its memory as a region, and a checkpointer on a branch of its own. */
export class Sandbox {
  readonly name: string;
  readonly #instance: ReturnType<Program['instantiate']>;
  readonly #region: Region;
  readonly #checkpointer: Checkpointer<'memory'>;
  #history: History = [];
  #isNew = false;
  /** Its memory is not to be touched now. */
  busy = false;

  private constructor(
    name: string,
    instance: ReturnType<Program['instantiate']>,
    region: Region,
    checkpointer: Checkpointer<'memory'>,
  ) {
    this.name = name;
    this.#instance = instance;
    this.#region = region;
    this.#checkpointer = checkpointer;
  }

  /** As the newest checkpoint of its branch has it; a new one, which begins with `salt`, when there is none. */
  static async open({ store, program, seed }: Host, name: string, salt: number): Promise<Sandbox> {
    // First the instance, then the region of its memory, then the restore: what instantiation has written into the memory is replaced.
    const instance = program.instantiate();
    const region = Region.of(instance.memory);
    const checkpointer = await Checkpointer.open(store, {
      branch: name,
      regions: { memory: region },
      fingerprint: fingerprint(program.hash, seed),
    });
    const sandbox = new Sandbox(name, instance, region, checkpointer);
    if (checkpointer.head !== undefined) await sandbox.rollBack();
    else {
      sandbox.#isNew = true;
      instance.init(seed);
      sandbox.part(salt);
    }
    return sandbox;
  }

  /** It has no checkpoint. */
  get isNew(): boolean {
    return this.#isNew;
  }

  get history(): History {
    return this.#history.map(([salt, steps]) => [salt, steps]);
  }

  /** Of its memory as it is. */
  get digest(): string {
    return digest(new Uint8Array(this.#region.buffer));
  }

  get byteLength(): number {
    return this.#region.byteLength;
  }

  step(count: number): void {
    this.#instance.step(count);
    this.#history.at(-1)![1] += count;
  }

  /** Goes on otherwise than it would have. */
  part(salt: number): void {
    this.#instance.stir(salt);
    this.#history.push([salt, 0]);
  }

  /**
   * Must be called between two calls of the program and is, because JavaScript does not run in the middle of one: the program imports no function.
   * If it did, an import that called this would store a memory whose other half is on the stack of WebAssembly.
   */
  checkpoint(): Promise<Checkpoint> {
    const metadata: Metadata = { step: this.#instance.steps(), history: this.#history };
    const label = this.#isNew ? { label: startOf(this.name) } : {};
    this.#isNew = false;
    return this.#checkpointer.checkpoint({ metadata, ...label });
  }

  /** Makes the memory what it was at a checkpoint (the newest of its branch), in place if it has history. The next checkpoint has that one as its parent. */
  async rollBack(target?: string): Promise<void> {
    const { checkpoint } = await this.#checkpointer.restore(target);
    const { step, history } = checkpoint.metadata as Metadata;
    if (this.#instance.steps() !== step)
      throw new Error(`${this.name} has made ${this.#instance.steps()} steps, and checkpoint ${checkpoint.id} says ${step}`);
    this.#history = history;
  }

  /** Everything that was begun is committed. */
  async settled(): Promise<void> {
    await this.#checkpointer.flush();
  }

  async close(): Promise<void> {
    await this.#checkpointer.close();
    this.#region.close();
  }
}
