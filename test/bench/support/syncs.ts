import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Checkpointer, CheckpointStore, Region } from '../../../lib/index.js';
import { compileShared } from './native.js';

export interface Syncs {
  /** Of each of several small checkpoints. */
  each: number[];
  /** So many checkpoints at once, and what they took. */
  together: number;
  togetherSyncs: number;
}

/** Counts system calls in a process of its own, with a library that is preloaded. */
export function countSyncs(scratch: string): Syncs {
  const file = join(scratch, 'syncs');
  writeFileSync(file, Buffer.alloc(4));
  const env = { ...process.env, LD_PRELOAD: compileShared('count-syncs', scratch), TIDEMARK_BENCH_SYNCS: file };
  const output = execFileSync(process.execPath, [import.meta.filename, join(scratch, 'synced'), file], { env, encoding: 'utf8' });
  return JSON.parse(output) as Syncs;
}

const TOGETHER = 50;

/** In that process. */
async function measure(folder: string, file: string): Promise<Syncs> {
  const count = (): number => readFileSync(file).readUInt32LE();
  const store = await CheckpointStore.open(folder, { createIfMissing: true });
  const members = await Promise.all(
    Array.from({ length: TOGETHER }, async (_, k) => {
      const region = Region.allocate(1 << 20);
      return { region, checkpointer: await Checkpointer.open(store, { regions: { memory: region }, branch: `b${k}` }) };
    }),
  );
  const step = async ({ region, checkpointer }: (typeof members)[number]): Promise<void> => {
    const memory = new Uint8Array(region.buffer);
    for (let at = 0; at < 16 * 4096; at += 4096) memory[at]!++;
    await checkpointer.checkpoint();
  };
  for (const member of members) await step(member);
  const each: number[] = [];
  for (let k = 0; k < 20; k++) {
    const before = count();
    await step(members[0]!);
    each.push(count() - before);
  }
  const before = count();
  await Promise.all(members.map(step));
  const togetherSyncs = count() - before;
  await store.close();
  return { each, together: TOGETHER, togetherSyncs };
}

if (process.argv[1] === import.meta.filename) console.log(JSON.stringify(await measure(process.argv[2]!, process.argv[3]!)));
