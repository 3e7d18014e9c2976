import assert from 'node:assert/strict';
import { closeSync, fdatasyncSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { judge } from './support/judge.js';
import { type Plan, random } from './support/model.js';
import { Mount, requireRoot } from './support/mounts.js';
import { read, Writer } from './support/programs.js';
import type { WriterEvent } from './support/protocol.js';
import { eachRound, rounds } from './support/rounds.js';

const FULL = new Set(['TIDEMARK_NO_SPACE']);

describe('crash: a full disk', function () {
  this.timeout(3_600_000);
  before(() => requireRoot('losetup', 'mkfs.ext4', 'mount', 'umount'));

  for (const [kind, megabytes] of [
    ['tmpfs', 24],
    ['tmpfs', 64],
    ['ext4', 48],
    ['ext4', 96],
  ] as const) {
    it(`${kind} of ${megabytes} MiB: the process lives, and goes on when there is room`, async () => {
      await eachRound(rounds(1), (seed) => room(seed, Mount[kind](megabytes), megabytes));
    });

    it(`${kind} of ${megabytes} MiB: killed while it is full, opened while it is full, opened when there is room`, async () => {
      await eachRound(rounds(1), (seed) => killed(seed, Mount[kind](megabytes), megabytes));
    });
  }
});

interface Filled {
  store: string;
  branches: Record<string, Plan>;
  ballast: string;
  writer: Writer;
}

/** A program that has filled the disk, has failed a few times and waits. More than half of the disk is ballast. */
async function fill(seed: number, mount: Mount, megabytes: number): Promise<Filled> {
  const next = random(seed);
  const ballast = join(mount.path, 'ballast');
  const file = openSync(ballast, 'w');
  const bytes = Buffer.alloc(1 << 20, 1);
  for (let k = 0; k < megabytes * 0.55; k++) writeSync(file, bytes);
  fdatasyncSync(file);
  closeSync(file);
  const store = join(mount.path, 'store');
  const branches: Record<string, Plan> = { main: { seed, pages: 1024, large: 10, medium: 0 } };
  const durability = (['sync', 'relaxed', 'mixed'] as const)[next(3)]!;
  const writer = new Writer({
    store,
    branches,
    life: 1,
    durability,
    steps: 100_000,
    overlap: 1 + next(4),
    end: 'stay',
    waitAfterFailures: 1 + next(12),
  });
  await writer.until((w) => w.said('waiting'));
  assert.ok(writer.said('waiting'), writer.tail());
  for (const { code, message } of writer.failures) assert.ok(FULL.has(code), `${code}: ${message}`);
  return { store, branches, ballast, writer };
}

async function room(seed: number, mount: Mount, megabytes: number): Promise<void> {
  let filled: Filled | undefined;
  try {
    filled = await fill(seed, mount, megabytes);
    const { store, branches, ballast, writer } = filled;
    const failed = writer.failures.length;
    rmSync(ballast);
    writer.child.kill('SIGUSR2');
    await writer.until((w) => w.said('done'));
    assert.ok(writer.said('done'), writer.tail());
    assert.equal(writer.failures.length, failed, `it goes on failing although there is room:\n${writer.tail()}`);
    await writer.kill();
    writer.check();
    judge(writer.events, await read({ store, branches, life: 2 }), 'nothing');
  } finally {
    await filled?.writer.kill();
    mount.remove();
  }
}

async function killed(seed: number, mount: Mount, megabytes: number): Promise<void> {
  let filled: Filled | undefined;
  try {
    filled = await fill(seed, mount, megabytes);
    const { store, branches, ballast, writer } = filled;
    await writer.kill();
    writer.check();
    const events: WriterEvent[] = [...writer.events];
    for (let attempt = 0; attempt < 2; attempt++) {
      const findings = await read({ store, branches, life: 2 + attempt });
      if (findings.error === undefined) judge(events, findings, 'nothing');
      else assert.ok(FULL.has(findings.code!), findings.error);
    }
    rmSync(ballast);
    judge(events, await read({ store, branches, life: 10 }), 'nothing');
    const after = new Writer({ store, branches, life: 11, durability: 'sync', steps: 3, overlap: 1, end: 'kill' });
    await after.ended();
    after.check();
    assert.equal(after.acknowledged.length, 3, after.tail());
    events.push(...after.events);
    judge(events, await read({ store, branches, life: 12 }), 'nothing');
  } finally {
    await filled?.writer.kill();
    mount.remove();
  }
}
