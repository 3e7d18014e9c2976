import { Engine, type EngineOptions } from '../../lib/index.js';

/** An engine of one codec thread whose threads have faults. */
export function faultyEngine(faults: string): Promise<Engine> {
  return engineWith(faults, { workers: 1 });
}

/** An engine whose threads have faults: they see the environment as it is when they start. */
export async function engineWith(faults: string, options: EngineOptions): Promise<Engine> {
  const engine = new Engine(options);
  process.env.TIDEMARK_FAULTS = faults;
  try {
    await engine.ready();
  } finally {
    delete process.env.TIDEMARK_FAULTS;
  }
  return engine;
}
