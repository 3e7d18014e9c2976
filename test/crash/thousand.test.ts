import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { inChild } from '../support/in-child.js';
import type * as Sandboxes from '../support/sandboxes.js';
import { temporaryFolder } from './support/folders.js';
import { requireRoot } from './support/mounts.js';
import { LONG } from './support/rounds.js';

const [SANDBOXES, SECONDS] = LONG ? [1000, 60] : [400, 5];
const STAGING_MIB = 64;
const program = new URL('../support/sandboxes.js', import.meta.url).href;

function start(path: string, count: number, seconds: number, wrapper: string[] = []): Promise<Sandboxes.Running> {
  return inChild(
    { limitMs: 300_000, wrapper },
    async ({ crash }, program, path, count, seconds, stagingMiB) => {
      const { run }: typeof Sandboxes = await import(program);
      return crash(await run(path, count, seconds, stagingMiB));
    },
    program,
    path,
    count,
    seconds,
    STAGING_MIB,
  );
}

describe('crash: a thousand checkpointers', function () {
  this.timeout(1_800_000);
  let path: string;
  let folder: string;

  beforeEach(() => {
    folder = temporaryFolder();
    path = join(folder, 'store');
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it(`${SANDBOXES} of 1 MiB for ${SECONDS} s, killed: each is at its last acknowledged checkpoint or later`, async () => {
    const running = await start(path, SANDBOXES, SECONDS);
    const { before, most, commits } = running;
    const threads = most.threads - before.threads;
    const beyond = most.beyondMiB - STAGING_MIB;
    console.log(
      `      ${commits} commits; ${beyond.toFixed(0)} MiB beyond regions and staging; ${threads} threads, ${most.descriptors - before.descriptors} descriptors`,
    );
    assert.ok(commits > 2 * SANDBOXES, `${commits} commits`);
    assert.ok(threads <= availableParallelism() + 6, `${threads} threads`);
    assert.ok(beyond <= 300, `${beyond.toFixed(0)} MiB beyond regions and staging`);
    assert.ok(most.descriptors - before.descriptors - SANDBOXES < 100, `${most.descriptors} descriptors`);
    const wrong = await inChild(
      { limitMs: 300_000 },
      async (_, program, path, running) => {
        const { check }: typeof Sandboxes = await import(program);
        return check(path, running);
      },
      program,
      path,
      running,
    );
    assert.deepEqual(wrong, []);
  });

  it('commits that are ready share a synced batch', async () => {
    requireRoot('strace');
    const output = join(folder, 'calls');
    const { commits } = await start(path, 200, 5, ['strace', '-f', '-qq', '-y', '-o', output, '-e', 'trace=fdatasync']);
    const syncs = readFileSync(output, 'utf8')
      .split('\n')
      .filter((line) => /fdatasync\(\d+<[^>]*\/log\/\d+\.log>/.test(line)).length;
    console.log(`      ${commits} commits, ${syncs} syncs of the log`);
    assert.ok(syncs > 0);
    assert.ok(syncs * 3 < commits, `${syncs} syncs for ${commits} commits`);
  });
});
