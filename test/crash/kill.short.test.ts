import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { temporaryFolder } from './support/folders.js';
import { judge } from './support/judge.js';
import { type Plan, random } from './support/model.js';
import { read, Writer } from './support/programs.js';
import type { WriterEvent } from './support/protocol.js';
import { eachRound, rounds } from './support/rounds.js';

/** Deaths that one store lives through. */
const LIVES = 6;

describe('crash: kill -9 at any moment', function () {
  this.timeout(3_600_000);

  it('everything acknowledged is there, with overlapping calls and two branches', async () => {
    await eachRound(Math.ceil(rounds(18) / LIVES), round);
  });
});

async function round(seed: number): Promise<void> {
  const next = random(seed);
  const folder = temporaryFolder();
  try {
    const store = join(folder, 'store');
    const branches: Record<string, Plan> = { main: { seed, pages: 1536, large: 3, medium: 15 } };
    if (next(2) === 0) branches.other = { seed: seed + 1, pages: 512, large: 20, medium: 0 };
    const events: WriterEvent[] = [];
    let seen = 0;
    for (let life = 1; life <= LIVES; life++) {
      const durability = (['sync', 'relaxed', 'mixed'] as const)[next(3)]!;
      const overlap = 1 + next(6);
      const writer = new Writer({
        store,
        branches,
        life: life * 2 - 1,
        durability,
        steps: 10_000,
        overlap,
        flushes: true,
        end: 'stay',
      });
      try {
        if (next(6) > 0) await writer.until((w) => w.said('ready'));
        await sleep(next(200));
      } finally {
        await writer.kill();
      }
      writer.check();
      events.push(...writer.events);
      // Every third time nobody looks: the next process has to cope by itself.
      if (next(3) === 0 && life < LIVES) continue;
      const findings = await read({ store, branches, life: life * 2, seen });
      judge(events, findings, 'nothing');
      seen = findings.checkpoints.at(-1)?.id ?? 0;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
