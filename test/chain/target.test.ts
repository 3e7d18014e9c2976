import assert from 'node:assert/strict';
import { join } from 'node:path';
import { parseTarget, type Target } from '../../lib/chain/target.js';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { code, PAGE, withFolder } from './support.js';
import { SyntheticStore } from './synthetic-store.js';

const utc = (...parts: [number, number, number?, number?, number?, number?, number?]) => Date.UTC(...(parts as [number, number]));
const T0 = utc(2026, 10, 22, 12);
const minutes = (count: number) => T0 + count * 60_000;

describe('chain: targets', () => {
  it('are taken apart', () => {
    const uid = '0123456789abcdef0123456789abcdef';
    const expected: [Target, object][] = [
      [17, { id: 17 }],
      ['17', { id: 17, text: '17', back: 0 }],
      ['17~2', { id: 17, text: '17', back: 2 }],
      ['main', { name: 'main', back: 0 }],
      ['main~0', { name: 'main', back: 0 }],
      ['a.b-c_D~999999999', { name: 'a.b-c_D', back: 999_999_999 }],
      ['12345678', { id: 12345678, text: '12345678', back: 0 }],
      ['0abcdef9~1', { name: '0abcdef9', back: 1 }],
      [uid, { name: uid, back: 0 }],
      ['1'.repeat(16), { name: '1'.repeat(16), back: 0 }],
      [{}, { name: 'main', back: 0 }],
      [{ branch: 'x' }, { name: 'x', back: 0 }],
      [
        { branch: 'x', back: 3 },
        { name: 'x', back: 3 },
      ],
      [{ back: 0 }, { name: 'main', back: 0 }],
      [{ time: new Date(T0) }, { name: 'main', until: T0 }],
      [
        { branch: 'x', time: new Date(T0) },
        { name: 'x', until: T0 },
      ],
      [
        { branch: 'x', time: new Date(0) },
        { name: 'x', until: 0 },
      ],
    ];
    for (const [target, plain] of expected) assert.deepEqual(parseTarget(target), plain, JSON.stringify(target));
  });

  it('with a time: in UTC where no zone is given, whatever the zone of the process', () => {
    const zone = process.env.TZ;
    process.env.TZ = 'Pacific/Chatham';
    try {
      const times: [string, number][] = [
        ['2026-11-22', utc(2026, 10, 22)],
        ['2026-11-22T14:05', utc(2026, 10, 22, 14, 5)],
        ['2026-11-22 14:05', utc(2026, 10, 22, 14, 5)],
        ['2026-11-22T14:05Z', utc(2026, 10, 22, 14, 5)],
        ['2026-11-22T14:05:06', utc(2026, 10, 22, 14, 5, 6)],
        ['2026-11-22T14:05:06.7Z', utc(2026, 10, 22, 14, 5, 6, 700)],
        ['2026-11-22T14:05:06.789', utc(2026, 10, 22, 14, 5, 6, 789)],
        ['2026-11-22T14:05:06.789999999Z', utc(2026, 10, 22, 14, 5, 6, 789)],
        ['2026-11-22T14:05+02:00', utc(2026, 10, 22, 12, 5)],
        ['2026-11-22T14:05+0200', utc(2026, 10, 22, 12, 5)],
        ['2026-11-22 14:05:06-09:30', utc(2026, 10, 22, 23, 35, 6)],
        ['2026-11-22T00:00+13:45', utc(2026, 10, 21, 10, 15)],
        ['2026-11-22T24:00', utc(2026, 10, 23)],
        ['2028-02-29', utc(2028, 1, 29)],
        ['2000-02-29', utc(2000, 1, 29)],
        ['1969-12-31T23:59:59Z', -1000],
      ];
      for (const [text, until] of times) {
        assert.deepEqual(parseTarget(`main@${text}`), { name: 'main', until }, text);
        assert.deepEqual(parseTarget(`17@${text}`), { id: 17, text: '17', until }, text);
      }
    } finally {
      if (zone === undefined) delete process.env.TZ;
      else process.env.TZ = zone;
    }
  });

  it('that are none are refused', () => {
    const times =
      '2026-02-30 2026-02-29 2025-02-29 1900-02-29 2026-13-01 2026-00-10 2026-04-31 2026-01-00 2026-01-32 2026-11-22T25:00 2026-11-22T24:01 2026-11-22T14:60 ' +
      '2026-11-22T14:05:60 2026-11-22T14:05+25:00 2026-11-22T14:05+02:60 2026-11-22T14 2026-11-22Z 2026-11-22+01:00 2026-11-22T14:05Z+1 2026-11-22T 26-11-22 2026-1-1 ' +
      '20261122 12026-11-22 now yesterday 1795000000 2026-11-22T14:05z 2026-11-22T14:05:06. 2026-11-22t14:05 -2026-11-22 2026/11/22';
    for (const time of [...times.split(' '), '', ' ', '2026-11-22 14:05 Z', '2026-11-22\n', 'x'.repeat(50)])
      assert.throws(() => parseTarget(`main@${time}`), TypeError, time);
    for (const text of [
      '',
      '~1',
      '@2026-11-22',
      'main~',
      'main~-1',
      'main~1.5',
      'main~x',
      'main~1234567890',
      'main~1~1',
      'main~1@2026-11-22',
    ])
      assert.throws(() => parseTarget(text), TypeError, text);
    for (const text of [
      'main@2026-11-22~1',
      'main@2026-11-22@2026-11-22',
      '1a',
      '0abcdef',
      '-1',
      '1.5',
      ' 17',
      '17 ',
      '17\n',
      'a b',
      'ä',
      'x'.repeat(129),
      'ABCDEF0123456789~',
    ])
      assert.throws(() => parseTarget(text), TypeError, text);
    for (const value of [
      0,
      -1,
      1.5,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      2 ** 53,
      null,
      undefined,
      true,
      [],
      new Date(),
      17n,
      () => {},
      { branch: 1 },
      { branch: '' },
      { branch: '1' },
    ])
      assert.throws(() => parseTarget(value as Target), /must|target|is not a name/, String(value));
    for (const value of [
      { back: -1 },
      { back: 0.5 },
      { back: '1' },
      { time: '2026-11-22' },
      { time: 5 },
      { time: new Date(Number.NaN) },
      { back: 0, time: new Date() },
      { until: 5 },
      { id: 5 },
      { back: null },
      { time: null },
    ])
      assert.throws(() => parseTarget(value as Target), /must|not both|unknown option/, JSON.stringify(value));
  });

  it('lead to the newest checkpoint on the way to the root that was taken by then', async () => {
    await withFolder(async (folder) => {
      const path = join(folder, 'store');
      const region = Region.allocate(PAGE);
      const store = await CheckpointStore.open(path, { createIfMissing: true });
      const clock = Date.now;
      try {
        // Ids 1 to 6 on main; the clock goes back before 4 and again before 6. 7 is on main after going back to 3, 8 on side behind 5.
        const main = await Checkpointer.open(store, { regions: { region } });
        for (const [k, at] of [10, 20, 30, 15, 40, 35].entries()) {
          Date.now = () => minutes(at);
          await main.checkpoint({ label: `l${k + 1}` });
        }
        await store.fork(5, 'side');
        Date.now = () => minutes(50);
        await main.restore(3);
        await main.checkpoint();
        await main.close();
        const side = await Checkpointer.open(store, { regions: { region }, branch: 'side' });
        await side.restore();
        Date.now = () => minutes(45);
        await side.checkpoint();
        await side.close();
      } finally {
        Date.now = clock;
      }
      const at = (minute: number) => new Date(minutes(minute)).toISOString();
      const uid = (await store.find(6))!.uid;
      const expected: [Target, number | undefined][] = [
        // What was undone is not on the branch.
        [`main@${at(60)}`, 7],
        [`main@${at(50)}`, 7],
        [`main@${at(49)}`, 3],
        [`main@${at(30)}`, 3],
        [`main@${at(29)}`, 2],
        [`main@${at(10)}`, 1],
        [`main@${at(9)}`, undefined],
        ['main~1', 3],
        ['main~3', 1],
        ['main~4', undefined],
        // The first that is met counts, also where the clock has gone back.
        [`l6@${at(35)}`, 6],
        [`l6@${at(34)}`, 4],
        [`l5@${at(39)}`, 4],
        [`l5@${at(14)}`, 1],
        [`5@${at(16)}`, 4],
        ['5~2', 3],
        ['5~4', 1],
        ['5~5', undefined],
        [`${uid.slice(0, 8)}~1`, 5],
        [`${uid.slice(0, 12)}@${at(30)}`, 4],
        [`side@${at(44)}`, 5],
        ['side~0', 8],
        ['side~1', 5],
        [{ branch: 'side', back: 2 }, 4],
        [{ branch: 'side', time: new Date(minutes(44)) }, 5],
        [{ time: new Date(minutes(29)) }, 2],
        [{ branch: 'l4', time: new Date(minutes(12)) }, 1],
        [{ time: new Date(0) }, undefined],
        [`nothing@${at(60)}`, undefined],
        [`99@${at(60)}`, undefined],
      ];
      for (const [target, id] of expected) {
        const text = JSON.stringify(target);
        assert.equal((await store.find(target))?.id, id, text);
        if (id === undefined) await assert.rejects(store.at(target), code('TIDEMARK_NOT_FOUND'), text);
      }
      await assert.rejects(
        store.at(`main@${at(9)}`),
        /on the way from main to the root that was taken at 2026-11-22T12:09:00.000Z or before/,
      );
      await assert.rejects(store.at('5~5'), /checkpoint 5~5 is not in the store/);
      await assert.rejects(store.at({ branch: 'side', back: 9 }), /side~9 is not in the store/);
      const checkpointer = await Checkpointer.open(store, { regions: { region }, branch: 'reader' });
      assert.equal((await checkpointer.restore(`main@${at(29)}`)).checkpoint.id, 2);
      await store.label('by-time', `main@${at(29)}`);
      assert.equal((await store.find('by-time'))?.id, 2);
      await store.close();
      region.close();
    });
  });

  it('walk a dense chain in pages of the index, and read nothing of the log', async () => {
    await withFolder(async (folder) => {
      await SyntheticStore.with(join(folder, 'store'), async (store) => {
        const count = 3000;
        await store.open('main');
        for (let k = 1; k <= count; k++) store.take('main', minutes(k));
        await store.settled();
        store.reads = 0;
        const find = async (target: Target, most: number) => {
          store.headers = 0;
          const id = (await store.host.find(parseTarget(target)))?.checkpoint.id;
          assert.ok(store.headers <= most, `${JSON.stringify(target)}: ${store.headers} headers`);
          return id;
        };
        assert.equal(await find('main', 1), count);
        assert.equal(await find('main~1', 2), count - 1);
        assert.equal(await find('main~10', 32), count - 10);
        assert.equal(await find(`main~${count - 1}`, count + 256), 1);
        assert.equal(await find(`main~${count}`, count + 256), undefined);
        assert.equal(await find(`main~${2 ** 29}`, count + 256), undefined);
        store.lookUps = 0;
        await find(`main~${count - 1}`, count + 256);
        assert.ok(store.lookUps < 40, `${store.lookUps} look-ups`);
        assert.equal(await find({ time: new Date(minutes(1500)) }, 2200), 1500);
        assert.equal(await find({ time: new Date(minutes(0)) }, count + 256), undefined);
        store.headers = 0;
        const listed: number[] = [];
        for (let after: number | undefined; ; ) {
          const page = await store.host.list({ reverse: true, limit: 256, ...(after === undefined ? {} : { after }) });
          listed.push(...page.checkpoints.map(({ id }) => id));
          if (page.next === null) break;
          after = page.next;
        }
        assert.deepEqual(
          listed,
          Array.from({ length: count }, (_, k) => count - k),
        );
        assert.equal(store.headers, count);
        assert.equal(store.reads, 0, 'records of the log');
      });
    });
  });

  it('walk one of 40 branches without reading all of the others', async () => {
    await withFolder(async (folder) => {
      await SyntheticStore.with(join(folder, 'store'), async (store) => {
        const [branches, steps] = [40, 50];
        await store.open('b0');
        store.take('b0', minutes(0));
        await store.settled();
        for (let b = 1; b < branches; b++) await store.open(`b${b}`, 1);
        for (let k = 1; k <= steps; k++) {
          for (let b = 0; b < branches; b++) store.take(`b${b}`, minutes(k), b === 7 && k === 30 ? 'mark' : undefined);
          // One round after the other: between two checkpoints of a branch lie those of the others.
          await store.settled();
        }
        const parents = new Map<number, number | null>();
        const page = await store.host.list({ reverse: false, limit: 256 * 10 });
        for (const { id, parent } of page.checkpoints) parents.set(id, parent);
        const ancestor = (id: number, back: number): number | undefined => {
          let at: number | null | undefined = id;
          for (let k = 0; k < back && at; k++) at = parents.get(at);
          return at ?? undefined;
        };
        store.reads = 0;
        for (const b of [0, 7, 39]) {
          const head = store.host.index.names.get(`b${b}`)!.id;
          for (const back of [1, 2, 5, 20, steps, steps + 1]) {
            store.headers = 0;
            const found = await store.host.find(parseTarget(`b${b}~${back}`));
            assert.equal(found?.checkpoint.id, ancestor(head, back), `b${b}~${back}`);
            // A walk reads a few for each step, not the 40 that lie between two of them.
            assert.ok(store.headers <= 4 * back + 4, `b${b}~${back}: ${store.headers} headers`);
          }
        }
        assert.equal((await store.host.find(parseTarget('mark~30')))?.checkpoint.id, 1);
        assert.equal(store.reads, 0, 'records of the log');
      });
    });
  });
});
