import { realpathSync } from 'node:fs';
import { type Checkpoint, CheckpointStore } from '../../lib/index.js';
import { Interpreter } from './interpreter.js';
import { boot, fingerprint, type Loaded, load, type Metadata, makeStep, type Report } from './vm.js';

export interface Verified {
  id: number;
  step: number;
  /** What is wrong with it; empty when it is what a run has that was never interrupted. */
  problems: string[];
}

export interface VerifyOptions {
  store: string;
  log?: (line: string) => void;
}

/**
 * Compares the memory of every checkpoint, byte by byte, with that of an interpreter that makes the same steps in this process without ever being
 * stopped. Then a copy is woken up, to look at its own state and to make one more step.
 */
export async function verify({ store, log = () => {} }: VerifyOptions): Promise<Verified[]> {
  const loaded = await load();
  const opened = await CheckpointStore.open(store);
  try {
    const uninterrupted = new Interpreter(loaded);
    boot(uninterrupted, loaded);
    let [steps, report]: [number, Report | undefined] = [0, undefined];
    const results: Verified[] = [];
    for await (const checkpoint of opened.checkpoints()) {
      const { report: noted } = checkpoint.metadata as Metadata;
      while (steps < noted.step) report = makeStep(uninterrupted, ++steps);
      const memory = await memoryOf(opened, checkpoint);
      const problems: string[] = [];
      if (checkpoint.fingerprint !== fingerprint(loaded)) problems.push('it is of another program');
      if (steps !== noted.step) problems.push(`step ${noted.step} comes after step ${steps}`);
      else if (JSON.stringify(report) !== JSON.stringify(noted))
        problems.push(`it says ${JSON.stringify(noted)}, and should say ${JSON.stringify(report)}`);
      const different = differences(memory, new Uint8Array(uninterrupted.memory.buffer));
      if (different !== undefined) problems.push(different);
      problems.push(...wake(loaded, memory, checkpoint));
      log(`checkpoint ${checkpoint.id}, step ${noted.step}: ${problems.join('; ') || 'ok'}`);
      results.push({ id: checkpoint.id, step: noted.step, problems });
    }
    return results;
  } finally {
    await opened.close();
  }
}

async function memoryOf(store: CheckpointStore, { id, regions }: Checkpoint): Promise<Uint8Array> {
  const snapshot = await store.at(id);
  try {
    return await snapshot.read('memory', 0, regions.memory!.byteLength);
  } finally {
    await snapshot.close();
  }
}

function differences(found: Uint8Array, expected: Uint8Array): string | undefined {
  if (found.length !== expected.length) return `its memory has ${found.length} bytes instead of ${expected.length}`;
  if (Buffer.compare(found, expected) === 0) return undefined;
  const at = found.findIndex((byte, k) => byte !== expected[k]);
  return `its memory differs from byte ${at} on`;
}

/** What a copy that goes on says of itself. */
function wake(loaded: Loaded, memory: Uint8Array, checkpoint: Checkpoint): string[] {
  const { report, roots } = checkpoint.metadata as Metadata;
  try {
    const copy = Interpreter.copyOf(memory, roots, loaded);
    const problems = JSON.parse(copy.call('audit')) as string[];
    makeStep(copy, report.step + 1);
    return problems;
  } catch (error) {
    return [`it does not go on: ${error instanceof Error ? error.message : String(error)}`];
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === import.meta.filename) {
  const results = await verify({ store: process.argv[2] ?? 'durable-vm.tidemark', log: console.log });
  if (results.some(({ problems }) => problems.length > 0)) process.exitCode = 1;
}
