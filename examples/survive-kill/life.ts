import { join } from 'node:path';
import { liveAndDie } from '../mortal.js';

/** When it ends: so long after it was started, after it has restored, or after it has taken so many checkpoints. */
export interface Death {
  after: 'start' | 'restored' | 'taken';
  count: number;
  delayMs: number;
  signal: 'SIGKILL' | 'SIGTERM';
}

/** What the program has said before it died. */
export interface Life {
  /** The operation it went on from; undefined when it had not come so far. */
  restored: number | undefined;
  /** The last operation of every checkpoint it has taken or was about to take, committed or not. */
  taken: number[];
  /** The last operation whose checkpoint was resolved; 0 when there was none. */
  acknowledged: number;
  /** Checkpoints that it was in the middle of. */
  inFlight: number;
}

const program = join(import.meta.dirname, 'worker-program.js');

/** Starts the program, and ends it. @throws when it ends by itself */
export async function live(store: string, seed: number, death: Death): Promise<Life> {
  const life: Life = { restored: undefined, taken: [], acknowledged: 0, inFlight: 0 };
  const end = { signal: death.signal, delayMs: death.delayMs, atStart: death.after === 'start' };
  await liveAndDie(program, [store, String(seed)], end, (line) => {
    const [event, number] = line.split(' ');
    if (event === 'restored') life.restored = Number(number);
    if (event === 'taken') life.taken.push(Number(number));
    if (event === 'acknowledged') life.acknowledged = Number(number);
    if (event === 'taken') life.inFlight++;
    if (event === 'acknowledged') life.inFlight--;
    return event === death.after && (event === 'restored' || life.taken.length >= death.count);
  });
  return life;
}
