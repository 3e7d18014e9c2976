import { Worker } from 'node:worker_threads';
import type { Engine, EngineOptions } from '../../lib/index.js';
import { engineWith } from '../support/faulty-engine.js';
import type { Pages, Pick } from './lazy-memory.js';
import { PAGE } from './model.js';

/** An engine, and what goes wrong in it. */
export interface Kind {
  options: EngineOptions;
  /** Nothing is filled ahead until somebody asks for it. */
  held?: boolean;
  /** Its faults happen once. */
  once?: boolean;
  faults?(pick: Pick): string;
}

const MIB = 1 << 20;
const HOLD = 'lazy.hold:1:1000000';
export const KINDS: Kind[] = [
  { options: { workers: 2, maxStagingBytes: 32 * MIB } },
  { options: { workers: 2, maxStagingBytes: 8 * MIB }, faults: () => 'lazy.late:1:1000000' },
  { options: { workers: 1, maxStagingBytes: 4 * MIB }, held: true, faults: () => HOLD },
  { options: { workers: 2, maxStagingBytes: 4 * MIB, maxShadowBytes: 0 }, held: true, faults: () => HOLD },
  { options: { workers: 1, maxStagingBytes: 16 * MIB, maxDeltas: 1 }, faults: () => 'lazy.ahead:3:1000000' },
  {
    options: { workers: 2, maxStagingBytes: 4 * MIB, maxShadowBytes: 16 * PAGE },
    once: true,
    faults: (pick) =>
      `log.write:${20 + pick(60)}:1,log.acknowledge:${20 + pick(60)}:1,index.write:${20 + pick(60)}:1,codec.decode:${40 + pick(200)}:2`,
  },
];

/** They cost more to start than all that is done with them: kept for all worlds, but for those that fail once. */
const engines = new Map<Kind, Engine>();
export const helpers: Worker[] = [];

/** Ends what worlds have left running. */
export async function endAll(): Promise<void> {
  await Promise.all(helpers.splice(0).map((helper) => helper.terminate()));
  for (const engine of engines.values()) await engine.close();
  engines.clear();
}

/** Two threads that read and write shared memory when they are asked to. */
const HELPER = `
  const { parentPort } = require('node:worker_threads');
  parentPort.on('message', ({ buffer, first, count, value }) => {
    const words = new Int32Array(buffer, first * ${PAGE}, count * ${PAGE / 4});
    let sum = 0;
    for (let k = 0; k < words.length; k++) sum = (Math.imul(sum, 31) + words[k]) | 0;
    if (value !== undefined) for (let page = 0; page < count; page++) words[page * ${PAGE / 4} + (value % 1000)] = value;
    parentPort.postMessage(sum);
  });`;

export function startHelpers(): void {
  while (helpers.length < 2) helpers.push(new Worker(HELPER, { eval: true, execArgv: [] }));
}

export async function engineOf(kind: Kind, pick: Pick): Promise<Engine> {
  const faults = kind.faults?.(pick) ?? '';
  let engine = engines.get(kind);
  if (engine === undefined) {
    engine = await engineWith(faults, kind.options);
    engines.set(kind, engine);
  }
  return engine;
}

/** The next world has another one, that fails anew. */
export async function endOnce(kind: Kind): Promise<void> {
  if (kind.once !== true) return;
  await engines.get(kind)?.close();
  engines.delete(kind);
}

/** What a helper says of these pages. */
export function sumOf(pages: Pages): number {
  const bytes = Buffer.concat(pages);
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 4) sum = (Math.imul(sum, 31) + bytes.readInt32LE(at)) | 0;
  return sum;
}
