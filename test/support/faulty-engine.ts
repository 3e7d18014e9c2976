import { Engine } from '../../lib/index.js';

/** An engine of one codec thread whose threads have faults: they see the environment as it is when they start. */
export async function faultyEngine(faults: string): Promise<Engine> {
  const engine = new Engine({ workers: 1 });
  process.env.TIDEMARK_FAULTS = faults;
  try {
    await engine.ready();
  } finally {
    delete process.env.TIDEMARK_FAULTS;
  }
  return engine;
}
