import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CheckpointOptions, Engine, type EngineOptions } from '../../lib/index.js';
import { assertSound } from '../support/log-files.js';
import { random } from './model.js';
import { Machine, PAGE, World } from './world.js';

const STEPS = 120;

type Command = (world: World) => Promise<void>;

const durability = (world: World) => (world.pick(2) === 0 ? 'sync' : 'relaxed');

function anyOptions(world: World): CheckpointOptions<string> {
  const options: CheckpointOptions<string> = { durability: durability(world) };
  if (world.pick(4) === 0) options.ifChanged = true;
  if (world.pick(3) === 0) {
    options.attachments = Object.fromEntries(
      ['globals', 'table', 'log']
        .filter(() => world.pick(2) === 0)
        .map((name) => [name, Buffer.alloc(world.pick(9000), world.pick(3))]),
    );
  }
  if (world.pick(6) === 0) {
    // Sometimes one that is taken: refused when it is to be committed, with all that was captured behind it.
    const taken = [...world.labels.keys(), ...world.heads.keys()];
    options.label = world.pick(3) === 0 && taken.length > 0 ? taken[world.pick(taken.length)]! : world.newName('label');
  }
  return options;
}

const write: Command = async (world) => world.machine().write(world.pick);

const single: Command = async (world) => {
  await world.checkpoint(world.machine(), anyOptions(world));
};

const many: Command = async (world) => {
  const machine = world.machine();
  const inFlight: Promise<unknown>[] = [];
  for (let k = 2 + world.pick(4); k > 0; k--) {
    const controller = new AbortController();
    const abort = world.pick(4) === 0;
    inFlight.push(world.checkpoint(machine, { ...anyOptions(world), signal: controller.signal }));
    if (abort) setImmediate(() => controller.abort());
    machine.write(world.pick);
    if (world.pick(3) === 0) await new Promise(setImmediate);
  }
  await Promise.all(inFlight);
};

const together: Command = async (world) => {
  await Promise.all(world.machines.map((machine) => world.checkpoint(machine, anyOptions(world))));
};

const precopy: Command = async (world) => {
  const machine = world.machine();
  const controller = new AbortController();
  const ahead = machine.checkpointer.precopy({ signal: controller.signal }).catch((error) => world.expectFailure(error));
  machine.write(world.pick);
  for (let turns = world.pick(4); turns > 0; turns--) await new Promise(setImmediate);
  machine.write(world.pick);
  const what = world.pick(4);
  if (what === 0) controller.abort();
  if (what === 1) await world.checkpoint(machine, anyOptions(world));
  await ahead;
};

const restore: Command = async (world) => {
  const id = world.anyId();
  if (id !== undefined) await world.restore(world.machine(), id);
};

const attach: Command = async (world) => {
  const machine = world.machine();
  if (machine.members.size > 3) return;
  const name = world.newName('extra');
  machine.add(name, 1 + world.pick(40));
  machine.checkpointer.attach(name, machine.members.get(name)!.region);
};

const detach: Command = async (world) => {
  const machine = world.machine();
  if (machine.members.size < 2) return;
  const name = [...machine.members.keys()][world.pick(machine.members.size)]!;
  const inFlight = world.pick(2) === 0 ? world.checkpoint(machine, anyOptions(world)) : undefined;
  const region = machine.checkpointer.detach(name);
  const member = machine.members.get(name)!;
  assert.equal(region, member.region);
  if (world.pick(2) === 0) {
    machine.checkpointer.attach(name, region);
    member.touched = undefined;
    await inFlight;
    return;
  }
  machine.members.delete(name);
  await inFlight;
  region.close();
};

const label: Command = async (world) => {
  const id = world.anyId();
  if (id === undefined) return;
  const labels = [...world.labels.keys()];
  const old = labels.length > 0 && world.pick(2) === 0;
  const name = old ? labels[world.pick(labels.length)]! : world.newName('label');
  try {
    await world.store.label(name, id, { move: true });
    world.labels.set(name, id);
  } catch (error) {
    world.expectFailure(error as { code?: string });
  }
};

const fork: Command = async (world) => {
  const id = world.anyId();
  if (id === undefined || world.machines.length > 3) return;
  const branch = world.newName('fork');
  try {
    assert.equal((await world.store.fork(id, branch)).id, id);
  } catch (error) {
    world.expectFailure(error as { code?: string });
    return;
  }
  world.heads.set(branch, id);
  const machine = new Machine(branch);
  for (const [name, pages] of world.states.get(id)!.regions) machine.add(name, pages.length);
  await machine.open(world, world.pick(5) > 0);
  assert.equal(machine.checkpointer.head?.id, id);
  world.machines.push(machine);
  await world.begin(machine, id);
};

const reopen: Command = async (world) => {
  await world.close();
  await world.open();
  for (const machine of world.machines) {
    assert.equal(machine.checkpointer.head?.id, world.heads.get(machine.branch));
    // Memory whose regions do not all descend from one checkpoint does not descend from any.
    if (machine.checkpointer.base !== undefined) assert.equal(machine.checkpointer.base.id, machine.base);
    else for (const member of machine.members.values()) member.touched = undefined;
    if (machine.checkpointer.base === undefined && machine.checkpointer.head !== undefined) await renewed(world, machine);
  }
};

/** Fresh memory for a machine, restored to its head. */
async function renewed(world: World, machine: Machine): Promise<void> {
  const { head } = machine.checkpointer;
  await machine.checkpointer.close();
  for (const { region } of machine.members.values()) region.close();
  machine.members.clear();
  for (const [name, pages] of world.states.get(head!.id)!.regions) machine.add(name, pages.length);
  await machine.open(world, world.pick(5) > 0);
  await world.begin(machine, head!.id);
}

const renew: Command = async (world) => {
  const machine = world.machine();
  if (machine.checkpointer.head !== undefined) await renewed(world, machine);
};

const COMMANDS: [weight: number, name: string, command: Command][] = [
  [12, 'write', write],
  [9, 'checkpoint', single],
  [5, 'many', many],
  [2, 'together', together],
  [3, 'precopy', precopy],
  [3, 'restore', restore],
  [1, 'attach', attach],
  [1, 'detach', detach],
  [1, 'label', label],
  [1, 'fork', fork],
  [1, 'reopen', reopen],
  [1, 'renew', renew],
];
const TOTAL = COMMANDS.reduce((sum, [weight]) => sum + weight, 0);

function choose(pick: (below: number) => number): [string, Command] {
  let rest = pick(TOTAL);
  for (const [weight, name, command] of COMMANDS) {
    if (rest < weight) return [name, command];
    rest -= weight;
  }
  throw new Error('not reached');
}

/** Runs commands against a new world, and compares everything at the end. @returns how many calls failed by a fault point, and pages stored as deltas */
async function run(seed: number, faults: string, options: EngineOptions = {}): Promise<{ faulted: number; deltas: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-world-'));
  process.env.TIDEMARK_FAULTS = faults;
  const engine = new Engine({ workers: 2, maxStagingBytes: 4 << 20, ...options });
  const world = new World(join(folder, 'store'), engine, random(seed), faults !== '');
  const done: string[] = [];
  try {
    for (const branch of ['main', 'other']) {
      const machine = new Machine(branch);
      machine.add('heap', 300);
      machine.add('stack', 20);
      world.machines.push(machine);
    }
    await world.open();
    for (let k = 0; k < STEPS; k++) {
      const [name, command] = choose(world.pick);
      done.push(name);
      await command(world);
    }
    await world.finish();
    await world.close();
    await assertSound(world.path);
    return { faulted: world.faulted, deltas: world.deltas };
  } catch (error) {
    (error as Error).message += `\nseed ${seed}, after ${done.join(', ')}`;
    throw error;
  } finally {
    delete process.env.TIDEMARK_FAULTS;
    await world.close().catch(() => {});
    await engine.close();
    world.release();
    rmSync(folder, { recursive: true, force: true });
  }
}

describe('model: branches, labels, attachments, regions that come and go, precopy, aborts', function () {
  this.timeout(120_000);

  for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
    // With room for all shadows and many deltas, few of either, none.
    const options: EngineOptions = [{}, { maxDeltas: 1 }, { maxShadowBytes: 16 * PAGE }, { maxShadowBytes: 0 }][seed % 4]!;
    it(`does what a plain model does, seed ${seed}, ${JSON.stringify(options)}`, async () => {
      const { deltas } = await run(seed, '', options);
      assert.equal(deltas > 10, options.maxShadowBytes !== 0, `${deltas} deltas`);
    });
  }

  it('does what a plain model does when a batch is rejected that was written', () =>
    run(100, 'log.acknowledge:14').then(() => {}));

  it('does what a plain model does when shadows change: pages are stored full, and no call fails', async () => {
    const { faulted, deltas } = await run(110, 'shadow.corrupt:10:60');
    assert.equal(faulted, 0);
    assert.ok(deltas > 10, `${deltas} deltas`);
  });

  for (const [k, faults] of [
    'log.write:9:4',
    'codec.encode:30:3',
    'log.write:20:3,index.write:6',
    'log.write:15:3,log.reopen:1:2',
  ].entries())
    it(`does what a plain model does when something fails: ${faults}`, async () => {
      assert.ok((await run(101 + k, faults)).faulted > 0, 'nothing has failed');
    });
});
