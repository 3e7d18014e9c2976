import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from './support/folders.js';
import { judge } from './support/judge.js';
import type { Plan } from './support/model.js';
import { read, Writer } from './support/programs.js';
import { eachRound, rounds } from './support/rounds.js';

/** A file that may not become larger (EFBIG) fails in the middle of a record, like a full disk, and needs no privilege. */
describe('crash: writes that fail in the middle (RLIMIT_FSIZE)', function () {
  this.timeout(3_600_000);
  let folder: string;
  beforeEach(() => {
    folder = temporaryFolder();
  });
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  // Small ones hit the index and the recovery as well.
  for (const kilobytes of [1, 40, 300, 2000, 7000]) {
    it(`${kilobytes} KiB: the process lives, and nothing acknowledged is lost`, async () => {
      await eachRound(rounds(1), async (seed, number) => {
        const store = join(folder, `store${number}`);
        const branches: Record<string, Plan> = { main: { seed, pages: 2048, large: 0, medium: 12 } };
        const limit = ['sh', '-c', `ulimit -S -f ${kilobytes * 2}; exec "$@"`, 'sh'];
        // Forty steps write 7 MB nearly always, sixty more than 10 MB whatever the seed.
        const common = { store, branches, durability: 'mixed', steps: kilobytes < 5000 ? 40 : 60, end: 'kill' } as const;
        const limited = new Writer({ ...common, life: 1, overlap: 1 + (seed % 3), openRetries: 2 }, limit);
        const { code, signal } = await limited.ended();
        limited.check();
        assert.ok(signal === 'SIGKILL' || (code === 0 && !limited.said('ready')), `the process has died: ${limited.tail()}`);
        if (signal === 'SIGKILL') assert.ok(limited.said('done'), limited.tail());
        assert.ok(limited.failures.length > 0, 'nothing has failed: the limit does not work');
        for (const failure of limited.failures) assert.equal(failure.code, 'TIDEMARK_WRITE_FAILED', failure.message);

        const findings = await read({ store, branches, life: 2 });
        judge(limited.events, findings, 'nothing');
        const free = new Writer({ ...common, life: 3, overlap: 2, steps: 5 });
        await free.ended();
        free.check();
        assert.equal(free.acknowledged.length, 5, free.tail());
        judge([...limited.events, ...free.events], await read({ store, branches, life: 4 }), 'nothing');
        rmSync(store, { recursive: true, force: true });
      });
    });
  }
});
