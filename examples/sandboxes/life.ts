import { join } from 'node:path';
import { liveAndDie } from '../mortal.js';
import type { History } from './model.js';
import type { Said, Usage } from './protocol.js';

/** When it ends: so long after it was started, or after the program has said something so often. */
export interface Death {
  after: 'start' | Said['event'];
  count: number;
  delayMs: number;
  signal: 'SIGKILL' | 'SIGTERM';
}

/** What became of one branch. */
export interface Branch {
  /** The states that can be at its head after this life, in the order in which they were to be: of each checkpoint, and of the fork that made it. */
  states: History[];
  /** How many of these were acknowledged: those in front. */
  acknowledged: number;
}

/** What the program has said before it died. */
export interface Life {
  /** What each sandbox went on from. */
  restored: Map<string, { history: History; digest: string }>;
  /** What those had in their memory that were rolled back. */
  rolledBack: { name: string; history: History; digest: string }[];
  branches: Map<string, Branch>;
  forks: number;
  /** Of checkpoints that were acknowledged. */
  blockedMs: number[];
  storedBytes: number;
  /** Checkpoints and forks that it was in the middle of. */
  inFlight: number;
  /** From when all sandboxes were there to the last acknowledgement. */
  activeMs: number;
  /** Of the process, when it last said it. */
  usage: Usage | undefined;
}

const program = join(import.meta.dirname, 'worker-program.js');
/** What it is to die after does perhaps not come: nothing more is forked at some time. */
const roundsAtMost = 6;

/** Starts the program, and ends it. @throws when it ends by itself */
export async function live(store: string, sandboxes: number, seed: number, death: Death): Promise<Life> {
  const life: Life = {
    restored: new Map(),
    rolledBack: [],
    branches: new Map(),
    forks: 0,
    blockedMs: [],
    storedBytes: 0,
    inFlight: 0,
    activeMs: 0,
    usage: undefined,
  };
  const said: Partial<Record<Said['event'], number>> = {};
  let readyAt = 0;
  const args = [store, sandboxes, seed].map(String);
  const end = { signal: death.signal, delayMs: death.delayMs, atStart: death.after === 'start' };
  await liveAndDie(program, args, end, (line) => {
    const one = JSON.parse(line) as Said;
    note(life, one);
    if (one.event === 'ready') readyAt = performance.now();
    if (one.event === 'acknowledged') life.activeMs = performance.now() - readyAt;
    said[one.event] = (said[one.event] ?? 0) + 1;
    return (one.event === death.after && said[one.event]! >= death.count) || (said.acknowledged ?? 0) >= roundsAtMost * sandboxes;
  });
  return life;
}

function note(life: Life, said: Said): void {
  switch (said.event) {
    case 'restored':
      life.restored.set(said.name, said);
      break;
    case 'rolledBack':
      life.rolledBack.push(said);
      break;
    case 'taking':
    case 'forking':
      branch(life, said.name).states.push(said.history);
      life.inFlight++;
      break;
    case 'acknowledged':
      life.blockedMs.push(said.blockedMs);
      life.storedBytes += said.storedBytes;
      branch(life, said.name).acknowledged++;
      life.inFlight--;
      break;
    case 'forked':
      life.forks++;
      branch(life, said.name).acknowledged++;
      life.inFlight--;
      break;
    case 'usage':
      life.usage = said;
  }
}

function branch({ branches }: Life, name: string): Branch {
  const known = branches.get(name) ?? { states: [], acknowledged: 0 };
  branches.set(name, known);
  return known;
}
