import assert from 'node:assert/strict';
import { setImmediate } from 'node:timers/promises';
import { CheckpointStore, Engine, Region } from '../../lib/index.js';
import { closeSharedEngine, STATES, type StateName, type World, worldIn } from './states.js';

/**
 * `get` and `sync` methods throw their errors, `read` and `async` ones give promises and never throw. Those that change nothing (`get`, `read`) are called
 * all at once, the others in a world of their own.
 */
type Row = [
  kind: 'get' | 'sync' | 'read' | 'async',
  call: (world: World) => unknown,
  expected: Partial<Record<StateName, string>>,
];

const CLOSED = 'TIDEMARK_CLOSED';
const BUSY = 'TIDEMARK_REGION_BUSY';
const BRANCH_BUSY = 'TIDEMARK_BRANCH_BUSY';
const LOCKED = 'TIDEMARK_STORE_LOCKED';
const LOST = 'TIDEMARK_WRITE_FAILED';
const TORN = 'TIDEMARK_REGION_TORN';

/** The outcome in each of these states; in all others it is `'ok'`. */
function where(...outcomes: [outcome: string, states: readonly StateName[]][]): Row[2] {
  return Object.fromEntries(outcomes.flatMap(([outcome, states]) => states.map((state) => [state, outcome])));
}

const always = (outcome: string): Row[2] => where([outcome, Object.keys(STATES) as StateName[]]);
const OK: Row[2] = {};

const ENGINE_CLOSED: StateName[] = ['engineClosing', 'engineClosed'];
const STORE_CLOSED: StateName[] = ['storeClosing', 'storeClosed', ...ENGINE_CLOSED];
/** `opening`: of another one, when this one is closed. */
const CHECKPOINTER_CLOSED: StateName[] = ['opening', 'closing', 'closed', 'regionClosed', ...STORE_CLOSED];
/** A checkpointer has the region as long as it is not closed itself. */
const FREE: StateName[] = ['closed', 'storeClosed', 'regionClosed'];
const CLAIMED = (Object.keys(STATES) as StateName[]).filter((state) => !FREE.includes(state));
const HAS_BRANCH = CLAIMED.filter((state) => state !== 'storageEnded' && !ENGINE_CLOSED.includes(state));

/** What the storage thread answers: one that was started anew knows nothing of what was open. */
const BY_STORE = where([CLOSED, [...STORE_CLOSED, 'storageEnded']]);
const BY_SNAPSHOT = { ...BY_STORE, ...where([CLOSED, ['snapshotClosed']]) };
const BY_CHECKPOINTER = where([CLOSED, CHECKPOINTER_CLOSED], [LOST, ['storageEnded']]);
/** Where a capture would take what a restore is about to change, or what it has left torn. */
const CAPTURES = { ...BY_CHECKPOINTER, ...where([BUSY, ['restoring']], [TORN, ['torn']]) };
/** `close()` of the engine ends its threads later, and they may be faster. */
const MEMBERS = { ...BY_CHECKPOINTER, ...where([BUSY, ['restoring']], ['ok', ['engineClosing']]) };

const TABLE: Record<string, Row> = {
  'Region.allocate': ['get', () => Region.allocate(1).close(), OK],
  'Region.of, the same memory': [
    'get',
    ({ region }) => Region.of(region.buffer).close(),
    { ...always(BUSY), regionClosed: 'ok' },
  ],
  'region.buffer': ['get', ({ region }) => region.buffer, OK],
  'region.byteLength': ['get', ({ region }) => region.byteLength, OK],
  'region.pageSize': ['get', ({ region }) => region.pageSize, OK],
  'region.hugeBytes': ['get', ({ region }) => region.hugeBytes(), where([CLOSED, ['regionClosed']])],
  'region.dirtyRanges': ['get', ({ region }) => region.dirtyRanges(), where([CLOSED, ['regionClosed']])],
  'region.takeDirtyRanges': ['get', ({ region }) => region.takeDirtyRanges(), where([BUSY, CLAIMED], [CLOSED, ['regionClosed']])],
  'region.close': ['sync', ({ region }) => region.close(), where([BUSY, CLAIMED])],

  'Engine.shared': ['get', () => Engine.shared, OK],
  'engine.stats': ['get', ({ engine }) => engine.stats(), OK],
  'engine.close': ['async', ({ engine }) => engine.close(), OK],

  'Checkpointer.open, the same region': [
    'async',
    (world) => world.openAnother({ regions: { heap: world.region }, branch: 'other' }),
    where([BUSY, CLAIMED], [CLOSED, ['storeClosed', 'regionClosed']]),
  ],
  'Checkpointer.open, the same branch': [
    'async',
    (world) => world.openAnother({ regions: { heap: world.spare } }),
    { ...BY_STORE, ...where([BRANCH_BUSY, HAS_BRANCH]) },
  ],
  'Checkpointer.open, others': [
    'async',
    (world) => world.openAnother({ regions: { heap: world.spare }, branch: 'other' }),
    BY_STORE,
  ],
  'checkpointer.head': ['get', ({ checkpointer }) => checkpointer.head, OK],
  'checkpointer.base': ['get', ({ checkpointer }) => checkpointer.base, OK],
  'checkpointer.checkpoint': ['async', ({ checkpointer }) => checkpointer.checkpoint(), CAPTURES],
  'checkpointer.precopy': ['async', ({ checkpointer }) => checkpointer.precopy(), CAPTURES],
  'checkpointer.flush': ['read', ({ checkpointer }) => checkpointer.flush(), BY_CHECKPOINTER],
  'checkpointer.restore': ['async', ({ checkpointer }) => checkpointer.restore(1), BY_CHECKPOINTER],
  'checkpointer.attach': ['sync', ({ checkpointer, spare }) => checkpointer.attach('more', spare), MEMBERS],
  'checkpointer.detach': ['sync', ({ checkpointer }) => checkpointer.detach('heap'), MEMBERS],
  'checkpointer.stats': ['get', ({ checkpointer }) => checkpointer.stats(), OK],
  'checkpointer.close': ['async', ({ checkpointer }) => closedTwice(checkpointer), OK],

  'restoration.checkpoint': ['get', ({ restoration }) => restoration.checkpoint, OK],
  'restoration.done': ['read', ({ restoration }) => restoration.done, OK],
  // It is the store that is asked, and as long as something is open on it, that answers.
  'restoration.attachment': ['read', ({ restoration }) => restoration.attachment('notes'), { ...BY_STORE, storeClosing: 'ok' }],
  'restoration.stats': ['get', ({ restoration }) => restoration.stats(), OK],

  'CheckpointStore.open, the same folder': [
    'read',
    ({ path }) => CheckpointStore.open(path).then((store) => store.close()),
    { ...always(LOCKED), ...where(['ok', ['storeClosed', 'engineClosed', 'storageEnded']]), engineClosing: `ok or ${LOCKED}` },
  ],
  'CheckpointStore.open, with the engine': [
    'read',
    async ({ path, engine }) => (await CheckpointStore.open(`${path}-2`, { createIfMissing: true, engine })).close(),
    where([CLOSED, ENGINE_CLOSED]),
  ],
  'store.path': ['get', ({ store }) => store.path, OK],
  'store.checkpoints': ['read', ({ store }) => all(store.checkpoints()), BY_STORE],
  'store.find': ['read', ({ store }) => store.find(1), BY_STORE],
  'store.at': ['read', ({ store }) => store.at(1), BY_STORE],
  'store.label': ['read', ({ store }) => store.label('noted', 1), BY_STORE],
  'store.fork': ['read', ({ store }) => store.fork(1, 'forked'), BY_STORE],
  'store.diff': ['read', ({ store }) => store.diff(1, 2), BY_STORE],
  'store.verify': ['read', ({ store }) => store.verify(), BY_STORE],
  'store.close': ['async', ({ store }) => closedTwice(store), OK],

  'snapshot.checkpoint': ['get', ({ snapshot }) => snapshot.checkpoint, OK],
  'snapshot.read': ['read', ({ snapshot }) => snapshot.read('heap', 0, 1), BY_SNAPSHOT],
  'snapshot.stream': ['read', ({ snapshot }) => all(snapshot.stream('heap')), BY_SNAPSHOT],
  'snapshot.attachment': ['read', ({ snapshot }) => snapshot.attachment('notes'), BY_SNAPSHOT],
  'snapshot.close': ['async', ({ snapshot }) => closedTwice(snapshot), OK],
};

async function all(iterable: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of iterable);
}

/** The second one waits for the first. */
async function closedTwice(open: AsyncDisposable & { close(): Promise<void> }): Promise<void> {
  const order: string[] = [];
  const calls = [open.close().then(() => order.push('first')), open[Symbol.asyncDispose]().then(() => order.push('second'))];
  await Promise.all(calls);
  assert.deepEqual(order, ['first', 'second']);
}

const LIMIT_MS = 20_000;

/** What calls come to, all made at once: `'ok'`, the code of an error, or what must not be. */
async function cells(rows: [method: string, row: Row][], state: StateName): Promise<[method: string, outcome: string][]> {
  const world = await worldIn(state, rows[0]?.[0] === 'engine.close');
  let failure: string | undefined;
  const onUnhandled = (reason: unknown) => {
    failure = `unhandled: ${reason}`;
  };
  process.on('unhandledRejection', onUnhandled);
  const calls = rows.map(async ([method, [kind, call]]): Promise<[string, string]> => {
    return [method, await outcomeOf(kind === 'get' || kind === 'sync', () => call(world))];
  });
  try {
    const outcomes = await inTime(
      Promise.all(calls),
      rows.map(([method]): [string, string] => [method, 'one of these hangs']),
    );
    if (outcomes.every(([, outcome]) => !outcome.includes('hangs'))) {
      const ended = world.end().catch((error) => {
        failure = `then: ${error}`;
      });
      await inTime(
        ended.then(() => true),
        false,
      ).then((inTime) => {
        if (!inTime) failure = 'closing everything hangs';
      });
    }
    await setImmediate();
    return failure === undefined ? outcomes : outcomes.map(([method, outcome]) => [method, `${outcome}, ${failure}`]);
  } finally {
    process.off('unhandledRejection', onUnhandled);
  }
}

async function inTime<T>(promise: Promise<T>, otherwise: T): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([
      promise,
      new Promise<T>((resolve) => {
        timer = setTimeout(() => resolve(otherwise), LIMIT_MS);
      }),
    ]);
  } finally {
    clearTimeout(timer);
  }
}

async function outcomeOf(isSync: boolean, call: () => unknown): Promise<string> {
  let value: unknown;
  try {
    value = call();
  } catch (error) {
    return isSync ? nameOf(error) : `threw ${nameOf(error)}`;
  }
  if (isSync) return value instanceof Promise ? 'a promise' : 'ok';
  if (!(value instanceof Promise)) return 'no promise';
  return value.then(() => 'ok', nameOf);
}

function nameOf(error: unknown): string {
  return (error as { code?: string }).code ?? String(error);
}

describe('api: every method in every state', function () {
  this.timeout(120_000);
  after(closeSharedEngine);
  const rows = Object.entries(TABLE);
  const harmless = rows.filter(([, [kind]]) => kind === 'get' || kind === 'read');
  const others = rows.filter((row) => !harmless.includes(row));
  for (const state of Object.keys(STATES) as StateName[]) {
    it(state, async () => {
      const outcomes = await cells(harmless, state);
      for (const row of others) outcomes.push(...(await cells([row], state)));
      const actual = Object.fromEntries(outcomes);
      // Where two outcomes are right, the one that came.
      const expected = rows.map(([method, [, , { [state]: named = 'ok' }]]) => {
        return [method, named.split(' or ').find((one) => one === actual[method]) ?? named];
      });
      assert.deepEqual(actual, Object.fromEntries(expected));
    });
  }
});
