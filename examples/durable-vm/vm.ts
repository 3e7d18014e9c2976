import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Checkpoint, Checkpointer, type CheckpointerOptions, type CheckpointStore, Region } from '../../lib/index.js';
import { type Compiled, compile, Interpreter, type Roots } from './interpreter.js';

// The compiler does not take along what is not TypeScript: this file runs in dist/examples/durable-vm.
const file = join(import.meta.dirname, '../../../examples/durable-vm/program.js');

/** What the program says of itself after each step. */
export type Report = { step: number; ships: number; voyages: number; afloat: number; digest: string };

/** Metadata of every checkpoint. */
export type Metadata = { report: Report; roots: Roots };

/** Options that are passed on to the checkpointer. */
export type PassedOn = Omit<CheckpointerOptions<'memory'>, 'regions' | 'fingerprint'>;

/** The interpreter and the program that it runs. */
export interface Loaded extends Compiled {
  source: string;
}

export async function load(): Promise<Loaded> {
  return { ...(await compile()), source: await readFile(file, 'utf8') };
}

/**
 * Not only another interpreter is another program, but another source too: the functions of the old one are compiled and in the memory, and would go
 * on there.
 */
export function fingerprint({ hash, source }: Loaded): string {
  return `${hash}, program ${createHash('sha256').update(source).digest('hex')}`;
}

/** Starts the program in a new interpreter; it has made no step then. */
export function boot(interpreter: Interpreter, { source }: Loaded): void {
  interpreter.now = timeOf(0);
  interpreter.boot(source, 'program.js');
}

/** Makes step number n of the program. @throws when that is not the next one */
export function makeStep(interpreter: Interpreter, n: number): Report {
  interpreter.now = timeOf(n);
  interpreter.call('advance');
  const report = JSON.parse(interpreter.call('report')) as Report;
  if (report.step !== n) throw new Error(`the program has made step ${report.step}, and step ${n} was to be made`);
  return report;
}

/** An hour a step. It depends on the step alone, so that a step which is made again is the same to the byte. */
function timeOf(step: number): number {
  return Date.UTC(2026, 0, 1) + step * 3_600_000;
}

/** An interpreter whose whole memory is a region. */
export class DurableVm {
  readonly #interpreter: Interpreter;
  readonly #region: Region;
  readonly #checkpointer: Checkpointer<'memory'>;
  #resumedAt = 0;
  #report: Report | undefined;

  private constructor(interpreter: Interpreter, region: Region, checkpointer: Checkpointer<'memory'>) {
    this.#interpreter = interpreter;
    this.#region = region;
    this.#checkpointer = checkpointer;
  }

  /** As the newest checkpoint of the branch has it; a new one, when there is none. */
  static async open(store: string | CheckpointStore, options: PassedOn = {}): Promise<DurableVm> {
    const loaded = await load();
    // First the instance, then the region of its memory, then the restore: what instantiation has written into the memory is replaced.
    const interpreter = new Interpreter(loaded);
    const region = Region.of(interpreter.memory);
    try {
      const checkpointer = await Checkpointer.open(store, {
        ...options,
        regions: { memory: region },
        fingerprint: fingerprint(loaded),
      });
      const vm = new DurableVm(interpreter, region, checkpointer);
      try {
        if (checkpointer.head === undefined) boot(interpreter, loaded);
        else await vm.#resume(loaded);
        return vm;
      } catch (error) {
        await checkpointer.close();
        throw error;
      }
    } catch (error) {
      region.close();
      throw error;
    }
  }

  /** Steps that the program has made, in this process and before. */
  get steps(): number {
    return this.#report?.step ?? 0;
  }

  /** Steps that it had made in the checkpoint that was restored; 0 for a new one. */
  get resumedAt(): number {
    return this.#resumedAt;
  }

  step(): Report {
    this.#report = makeStep(this.#interpreter, this.steps + 1);
    return this.#report;
  }

  /** Of the memory as it is: the next step may be made at once. @throws before the first step */
  async checkpoint(): Promise<Checkpoint> {
    if (this.#report === undefined) throw new Error('the program has made no step');
    // In the same turn as the capture, and with no call into the interpreter between them.
    const metadata: Metadata = { report: this.#report, roots: this.#interpreter.roots() };
    return this.#checkpointer.checkpoint({ metadata });
  }

  async close(): Promise<void> {
    await this.#checkpointer.close();
    this.#region.close();
  }

  /** @throws when the program does not say of itself what was noted in the checkpoint */
  async #resume(loaded: Loaded): Promise<void> {
    const { checkpoint } = await this.#checkpointer.restore();
    const { report, roots } = checkpoint.metadata as Metadata;
    this.#interpreter.resume(roots);
    const now = Interpreter.copyOf(new Uint8Array(this.#region.buffer), roots, loaded).call('report');
    if (now !== JSON.stringify(report))
      throw new Error(`checkpoint ${checkpoint.id} says ${now} instead of ${JSON.stringify(report)}`);
    this.#report = report;
    this.#resumedAt = report.step;
  }
}
