import assert from 'node:assert/strict';
import { join } from 'node:path';
import { Checkpointer, type CheckpointerOptions, CheckpointStore, Region } from '../../lib/index.js';
import { assertSame, copyOf, outcome, stamp, stored } from '../support/kit.js';
import { code, misuse, PAGE, withFolder } from './support.js';

const TAKEN = 'TIDEMARK_NAME_TAKEN';

/** An open store with a checkpointer on main and three checkpoints: page k stamped with k, none labelled. */
class Fixture {
  readonly contents: Uint8Array[] = [];
  readonly store: CheckpointStore;
  readonly region = Region.allocate(16 * PAGE);
  main!: Checkpointer<'r'>;

  private constructor(store: CheckpointStore) {
    this.store = store;
  }

  static async with(body: (fixture: Fixture) => Promise<void>, options: Partial<CheckpointerOptions<'r'>> = {}): Promise<void> {
    await withFolder(async (folder) => {
      const fixture = new Fixture(await CheckpointStore.open(join(folder, 'store'), { createIfMissing: true }));
      try {
        fixture.main = await Checkpointer.open(fixture.store, { regions: { r: fixture.region }, ...options });
        for (let k = 1; k <= 3; k++) await fixture.step(fixture.main, k);
        await body(fixture);
      } finally {
        await fixture.store.close();
        fixture.region.close();
      }
    });
  }

  async step(checkpointer: Checkpointer<'r'>, k: number): Promise<number> {
    stamp(this.region, [k, 9], k);
    this.contents.push(copyOf(this.region));
    return (await checkpointer.checkpoint()).id;
  }

  /** Label given last, and all, as `find`, `checkpoints` and `at` tell them; they must agree. */
  async labelsOf(id: number): Promise<[string | undefined, string[]]> {
    const found = (await this.store.find(id))!;
    const snapshot = await this.store.at(id);
    assert.deepEqual([snapshot.checkpoint.label, snapshot.checkpoint.labels], [found.label, found.labels]);
    await snapshot.close();
    for await (const listed of this.store.checkpoints())
      if (listed.id === id) assert.deepEqual([listed.label, listed.labels], [found.label, found.labels]);
    return [found.label, found.labels];
  }
}

describe('api: labels', () => {
  it('given later name a checkpoint as one given to checkpoint() does', async () => {
    await Fixture.with(async (f) => {
      await f.store.label('good', 2);
      assert.equal((await f.store.find('good'))?.id, 2);
      assert.equal((await f.store.find('good~1'))?.id, 1);
      await f.store.label('better', 'main');
      await f.store.label('best', 'better~1');
      const { uid } = (await f.store.find(1))!;
      await f.store.label('first', uid.slice(0, 10));
      await f.store.label('first-too', { branch: 'main', back: 2 });
      assert.deepEqual(await f.labelsOf(1), ['first-too', ['first', 'first-too']]);
      assert.deepEqual(await f.labelsOf(2), ['best', ['good', 'best']]);
      assert.deepEqual(await f.labelsOf(3), ['better', ['better']]);
      assertSame(await stored(f.store, 'best'), f.contents[1]!);
      const fourth = await f.main.checkpoint({ label: 'mine' });
      assert.deepEqual([fourth.label, fourth.labels], ['mine', ['mine']]);
      await f.store.label('extra', fourth.id);
      assert.deepEqual(await f.labelsOf(4), ['extra', ['mine', 'extra']]);
    });
  });

  it('move when they are told to, there and back', async () => {
    await Fixture.with(async (f) => {
      await f.store.label('a', 1);
      await f.store.label('b', 1);
      await assert.rejects(f.store.label('a', 3), code(TAKEN));
      assert.deepEqual(await f.labelsOf(1), ['b', ['a', 'b']]);
      await f.store.label('a', 3, { move: true });
      assert.deepEqual(await f.labelsOf(1), ['b', ['b']]);
      assert.deepEqual(await f.labelsOf(3), ['a', ['a']]);
      assert.equal((await f.store.find('a~1'))?.id, 2);
      await f.store.label('a', 1, { move: true });
      // Given last again: behind b now.
      assert.deepEqual(await f.labelsOf(1), ['a', ['b', 'a']]);
      assert.deepEqual(await f.labelsOf(3), [undefined, []]);
      await f.store.label('free', 2, { move: true });
      assert.deepEqual(await f.labelsOf(2), ['free', ['free']]);
    });
  });

  it('that a checkpoint was committed with move like others', async () => {
    await Fixture.with(async (f) => {
      await f.main.checkpoint({ label: 'built-in' });
      await f.store.label('built-in', 2, { move: true });
      assert.deepEqual(await f.labelsOf(4), [undefined, []]);
      assert.deepEqual(await f.labelsOf(2), ['built-in', ['built-in']]);
      await assert.rejects(f.main.checkpoint({ label: 'built-in' }), code(TAKEN));
      assert.equal((await f.store.find('built-in'))?.id, 2);
      await f.main.checkpoint();
      assert.deepEqual(await f.labelsOf(2), ['built-in', ['built-in']]);
    });
  });

  it('of the same checkpoint are given again without a word', async () => {
    await Fixture.with(async (f) => {
      await f.store.label('a', 1);
      await f.store.label('b', 1);
      await f.store.label('a', 1);
      await f.store.label('a', 1, { move: true });
      await f.store.label('a', 1, { move: false });
      assert.deepEqual(await f.labelsOf(1), ['b', ['a', 'b']]);
    });
  });

  it('of a relaxed checkpoint make it durable, and everything before it', async () => {
    await Fixture.with(
      async (f) => {
        await f.main.checkpoint({ label: 'committed-with' });
        const durable = async () => {
          const list: boolean[] = [];
          for await (const checkpoint of f.store.checkpoints()) list.push(checkpoint.durable);
          assert.equal((await f.store.find('main'))?.durable, list.at(-1));
          return list;
        };
        assert.deepEqual(await durable(), [false, false, false, false]);
        await f.store.label('given-later', 1);
        assert.deepEqual(await durable(), [true, true, true, true]);
        await f.main.checkpoint();
        assert.deepEqual(await durable(), [true, true, true, true, false]);
        await f.store.fork(2, 'side');
        assert.deepEqual(await durable(), [true, true, true, true, true]);
        await f.main.checkpoint({ label: 'again' });
        assert.equal((await f.store.find('again'))?.durable, false);
        // It names that one already, but is to be durable.
        await f.store.label('again', 'main');
        assert.equal((await f.store.find('again'))?.durable, true);
      },
      { durability: 'relaxed' },
    );
  });
});

describe('api: names that are taken', () => {
  it('by a branch, a label, an open checkpointer without a checkpoint', async () => {
    await Fixture.with(async (f) => {
      await f.store.label('label', 1);
      await f.store.fork(2, 'forked');
      const region = Region.allocate(PAGE);
      const other = await Checkpointer.open(f.store, { regions: { region }, branch: 'open' });
      for (const name of ['main', 'label', 'forked', 'open']) {
        await assert.rejects(f.store.fork(3, name), code(TAKEN), `fork to ${name}`);
        await assert.rejects(f.main.checkpoint({ label: name }), code(TAKEN), `checkpoint with label ${name}`);
        await assert.rejects(f.store.label(name, 3), code(TAKEN), `label ${name}`);
        if (name !== 'label') await assert.rejects(f.store.label(name, 3, { move: true }), code(TAKEN), `move ${name}`);
      }
      // A branch is not a label of its own head either.
      await assert.rejects(f.store.label('main', 'main'), code(TAKEN));
      await assert.rejects(f.store.label('forked', 2, { move: true }), code(TAKEN));
      await assert.rejects(f.store.fork(2, 'forked'), code(TAKEN));
      const second = Region.allocate(PAGE);
      await assert.rejects(Checkpointer.open(f.store, { regions: { second }, branch: 'label' }), code(TAKEN));
      assert.deepEqual(
        await Promise.all(['main', 'label', 'forked', 'open'].map(async (name) => (await f.store.find(name))?.id)),
        [3, 1, 2, undefined],
      );
      await other.close();
      // Nothing was ever committed there: the name is free again.
      await f.store.label('open', 3);
      await assert.rejects(Checkpointer.open(f.store, { regions: { second }, branch: 'open' }), code(TAKEN));
      assert.deepEqual(await f.labelsOf(3), ['open', ['open']]);
      region.close();
      second.close();
    });
  });

  it('says by what, and what to do', async () => {
    await Fixture.with(async (f) => {
      await f.store.label('x', 1);
      await assert.rejects(f.store.label('x', 2), /x is taken by a label.*move: true/);
      await assert.rejects(f.store.label('main', 2), /main is taken by a branch/);
      await assert.rejects(f.store.fork(2, 'x'), /x is taken by a label/);
    });
  });

  it('calls at the same time come out as one after the other', async () => {
    await Fixture.with(async (f) => {
      const { store } = f;
      const both = (...calls: Promise<unknown>[]) => Promise.all(calls.map(outcome));
      assert.deepEqual(await both(store.label('a', 1), store.label('a', 2)), ['ok', TAKEN]);
      assert.equal((await store.find('a'))?.id, 1);
      assert.deepEqual(await both(store.label('b', 1), store.label('b', 1)), ['ok', 'ok']);
      assert.deepEqual(await both(store.label('c', 1), store.label('c', 2, { move: true }), store.label('c', 3)), [
        'ok',
        'ok',
        TAKEN,
      ]);
      assert.equal((await store.find('c'))?.id, 2);
      assert.deepEqual(await both(store.fork(1, 'd'), store.label('d', 1), store.fork(1, 'd')), ['ok', TAKEN, TAKEN]);
      assert.deepEqual(await both(store.label('e', 2), store.fork(1, 'e')), ['ok', TAKEN]);
      const moves = Array.from({ length: 30 }, (_, k) => store.label('f', 1 + (k % 3), { move: true }));
      assert.deepEqual(new Set(await both(...moves)), new Set(['ok']));
      assert.equal((await store.find('f'))?.id, 3);
      assert.deepEqual(await f.labelsOf(1), ['b', ['a', 'b']]);
      assert.deepEqual(await f.labelsOf(2), ['e', ['c', 'e']]);
      assert.deepEqual(await f.labelsOf(3), ['f', ['f']]);
    });
  });

  it('labels of checkpoints in flight count, whichever comes first', async () => {
    await Fixture.with(async (f) => {
      const region = Region.allocate(PAGE);
      const other = await Checkpointer.open(f.store, { regions: { r: region }, branch: 'other' });
      for (let k = 0; k < 20; k++) {
        const name = `l${k}`;
        const calls = [
          () => f.main.checkpoint({ label: name }),
          () => other.checkpoint({ label: name }),
          () => f.store.label(name, 1),
          () => f.store.fork(2, name),
        ];
        const first = k % calls.length;
        const results = await Promise.all([...calls.slice(first), ...calls.slice(0, first)].map((call) => outcome(call())));
        assert.deepEqual([...results].sort(), [TAKEN, TAKEN, TAKEN, 'ok'], name);
        assert.ok(await f.store.find(name), name);
      }
      // What failed was not lost, and fails nothing else.
      assert.ok((await other.checkpoint()).id > 3);
      assert.ok((await f.main.checkpoint()).id > 3);
      await other.close();
      region.close();
    });
  });

  it('two checkpoints of one checkpointer with one label: the first has it', async () => {
    await Fixture.with(async (f) => {
      const calls = [f.main.checkpoint({ label: 'x' }), f.main.checkpoint({ label: 'x' }), f.main.checkpoint({ label: 'y' })];
      const results = await Promise.all(calls.map(outcome));
      assert.deepEqual(results, ['ok', TAKEN, TAKEN]);
      assert.deepEqual(await f.labelsOf(4), ['x', ['x']]);
      assert.equal((await f.main.checkpoint({ label: 'y' })).parent, 4);
    });
  });

  it('opening a checkpointer on a name that is being given', async () => {
    await Fixture.with(async (f) => {
      const region = Region.allocate(16 * PAGE);
      for (let k = 0; k < 10; k++) {
        const name = `n${k}`;
        const give = k % 2 === 0 ? f.store.label(name, 1) : f.store.fork(1, name);
        const opening = Checkpointer.open(f.store, { regions: { r: region }, branch: name });
        const [given, opened] = await Promise.all([outcome(give), outcome(opening)]);
        if (given === 'ok' && k % 2 === 0) assert.equal(opened, TAKEN, name);
        else if (given === 'ok') assert.equal((await opening).head?.id, 1, name);
        else assert.deepEqual([given, opened], [TAKEN, 'ok'], name);
        if (opened === 'ok') await (await opening).close();
      }
      region.close();
    });
  });
});

describe('api: forks', () => {
  it('a fork resolves with the checkpoint, and copies nothing', async () => {
    await Fixture.with(async (f) => {
      const before = await f.store.verify();
      const forked = await f.store.fork('main~1', 'side');
      assert.deepEqual([forked.id, forked.branch, forked.labels], [2, 'main', []]);
      assert.deepEqual(forked, await f.store.find('side'));
      assert.deepEqual(await f.store.find({ branch: 'side', back: 1 }), await f.store.find(1));
      assert.deepEqual(await f.store.verify(), before);
      assert.equal((await f.store.find('main'))?.id, 3);
      const again = await f.store.fork('side', 'third');
      assert.equal(again.id, 2);
    });
  });

  it('both branches go on from there, each with its own', async () => {
    await Fixture.with(async (f) => {
      await f.store.fork(2, 'side');
      const memory = Region.allocate(16 * PAGE);
      const side = await Checkpointer.open(f.store, { regions: { r: memory }, branch: 'side' });
      assert.deepEqual([side.head?.id, side.base], [2, undefined]);
      await assert.rejects(side.checkpoint(), code('TIDEMARK_NOT_RESTORED'));
      await assert.rejects(side.checkpoint(), /branch side has history/);
      const { checkpoint } = await side.restore();
      assert.equal(checkpoint.id, 2);
      assertSame(memory, f.contents[1]!);
      stamp(memory, [12, 2], 40);
      const [onSide, onMain] = [copyOf(memory), f.step(f.main, 5)];
      const next = await side.checkpoint();
      assert.deepEqual([next.parent, next.branch, next.kind, next.regions.r!.pages], [2, 'side', 'incremental', 2]);
      const mainId = await onMain;
      assert.equal((await f.store.find(mainId))?.parent, 3);
      assertSame(await stored(f.store, 'side'), onSide);
      assertSame(await stored(f.store, 'main'), f.contents[3]!);
      assertSame(await stored(f.store, 'side~1'), f.contents[1]!);
      assertSame(await stored(f.store, 'main~1'), f.contents[2]!);
      assert.deepEqual([side.head?.id, f.main.head?.id], [next.id, mainId]);
      await side.restore('main');
      assertSame(memory, f.contents[3]!);
      await side.close();
      memory.close();
      const ids: number[] = [];
      for await (const { id } of f.store.checkpoints({ branch: 'side' })) ids.push(id);
      assert.deepEqual(ids, [next.id]);
      assert.deepEqual((await f.store.verify()).problems, []);
    });
  });

  it('memory that is as the fork point goes on without a restore', async () => {
    await Fixture.with(async (f) => {
      await f.store.fork('main', 'side');
      await f.main.close();
      const side = await Checkpointer.open(f.store, { regions: { r: f.region }, branch: 'side' });
      assert.deepEqual([side.head?.id, side.base?.id], [3, 3]);
      stamp(f.region, 4, 1);
      const next = await side.checkpoint();
      assert.deepEqual([next.parent, next.branch, next.regions.r!.pages], [3, 'side', 1]);
      await side.close();
    });
  });

  it('a checkpointer is not moved away from a branch that others name', async () => {
    await Fixture.with(async (f) => {
      await f.store.fork(1, 'side');
      await assert.rejects(
        Checkpointer.open(f.store, { regions: { r: Region.allocate(PAGE) }, branch: 'main' }),
        code('TIDEMARK_BRANCH_BUSY'),
      );
      assert.equal(await f.step(f.main, 4), 4);
      assert.equal((await f.store.find('side'))?.id, 1);
    });
  });
});

describe('api: names, refusals', () => {
  it('of targets that are not there', async () => {
    await Fixture.with(async (f) => {
      for (const target of [9, 'nothing', 'main~3', 'deadbeef', { branch: 'x' }, 'main@2001-01-01']) {
        await assert.rejects(f.store.label('a', target), code('TIDEMARK_NOT_FOUND'), String(target));
        await assert.rejects(f.store.fork(target, 'a'), code('TIDEMARK_NOT_FOUND'), String(target));
        await assert.rejects(f.store.diff(target, 1), code('TIDEMARK_NOT_FOUND'), String(target));
        await assert.rejects(f.store.diff(1, target), code('TIDEMARK_NOT_FOUND'), String(target));
      }
      assert.equal(await f.store.find('a'), undefined);
    });
  });

  it('of names and options that are none', async () => {
    await Fixture.with(async (f) => {
      const { store } = f;
      for (const name of [
        '',
        '1',
        '0a',
        '-a',
        '.a',
        'a b',
        'a~1',
        'a@b',
        'a/b',
        'ä',
        'a\n',
        'x'.repeat(129),
        7,
        null,
        undefined,
      ]) {
        await misuse(() => store.label(name as string, 1), `label ${name}`);
        await misuse(() => store.fork(1, name as string), `fork ${name}`);
      }
      for (const options of [null, 7, [], { moved: true }, { move: 1 }, { move: 'yes' }, { move: null }])
        await misuse(() => store.label('a', 1, options as object), `options ${JSON.stringify(options)}`);
      for (const target of [null, undefined, 0, -1, 1.5, 'main~', {}.constructor]) {
        await misuse(() => store.label('a', target as number), `target ${target}`);
        await misuse(() => store.fork(target as number, 'a'), `target ${target}`);
        await misuse(() => store.diff(target as number, 1), `target ${target}`);
        await misuse(() => store.diff(1, target as number), `target ${target}`);
      }
      assert.equal(await store.find('a'), undefined);
      for (const name of ['_', 'x'.repeat(128), 'a.b-c_D9', 'deadbeef', 'toString', '__proto__']) {
        await store.label(name, 1);
        assert.equal((await store.find(name))?.id, 1, name);
      }
    });
  });

  it('once the store is closed; what was called before is done', async () => {
    await Fixture.with(async (f) => {
      const { store } = f;
      const before = [store.label('a', 1), store.fork(1, 'b'), store.diff(1, 2)].map(outcome);
      await store.close();
      assert.deepEqual(await Promise.all(before), ['ok', 'ok', 'ok']);
      for (const call of [() => store.label('c', 1), () => store.fork(1, 'd'), () => store.diff(1, 2)])
        await assert.rejects(call(), code('TIDEMARK_CLOSED'));
      const again = await CheckpointStore.open(store.path);
      assert.deepEqual(await Promise.all(['a', 'b', 'c', 'd'].map(async (name) => (await again.find(name))?.id)), [
        1,
        1,
        undefined,
        undefined,
      ]);
      await again.close();
    });
  });
});
