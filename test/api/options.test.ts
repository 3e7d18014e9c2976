import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { Checkpointer, CheckpointStore, Engine, Region } from '../../lib/index.js';
import { Bench, freeMemory, type Method, options, refused } from './options.js';
import { PAGE, withFolder } from './support.js';
import { notInteger, show, THROWN, wrong } from './wrong-values.js';

async function all(iterable: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of iterable);
}

const tagged = (buffer: unknown) => ({ [Symbol.toStringTag]: 'WebAssembly.Memory', buffer, grow() {} });
const BYTES = 8 * PAGE;
/** Made by the first that maps it. */
const FILE = `/dev/shm/tidemark-options-${process.pid}`;
const region = Region.allocate(PAGE);
const [notName, notObject] = [wrong('name'), wrong('object')];
const cycle: Record<string, unknown> = {};
cycle.self = cycle;
const toJson = (value: unknown) => ({
  toJSON() {
    if (value === THROWN) throw value;
    return value;
  },
});

const TABLE: Record<string, Method> = {
  'Region.allocate(byteLength)': {
    sync: true,
    call: (_, byteLength) => Region.allocate(byteLength).close(),
    wrong: [undefined, ...notInteger(1, 2 ** 43)],
    good: [1, PAGE + 1],
  },
  'Region.allocate(, options)': options(
    (_, options) => Region.allocate(1, options).close(),
    { shared: ['boolean', true], hugePages: ['boolean', false] },
    { sync: true },
  ),
  'Region.map(path)': {
    sync: true,
    call: (_, path) => Region.map(path, { create: true, byteLength: PAGE }).close(),
    wrong: [undefined, ...wrong('string'), '/dev/shm/tidemark\0'],
    good: [FILE],
  },
  'Region.map(, options)': options(
    (_, options) => Region.map(FILE, options).close(),
    {
      byteOffset: [notInteger(0, 2 ** 43), 0],
      byteLength: [notInteger(1, 2 ** 43), PAGE],
      create: ['boolean', true],
    },
    { sync: true, needed: () => ({ create: true, byteLength: PAGE }) },
  ),
  'Region.of(source)': {
    sync: true,
    call: (_, source) => Region.of(source).close(),
    wrong: [
      ...notObject,
      {},
      new DataView(region.buffer),
      new Float64Array(region.buffer),
      region,
      tagged(undefined),
      tagged(null),
      tagged(5),
      tagged({ byteLength: PAGE }),
      Object.create(ArrayBuffer.prototype),
      Object.create(SharedArrayBuffer.prototype),
      Object.create(Uint8Array.prototype),
      new Proxy(region.buffer, {}),
      new Proxy(new Uint8Array(region.buffer), {}),
    ],
    good: [freeMemory(), new Uint8Array(freeMemory())],
  },
  'Region.of(, range)': options(
    ({ memory }, range) => Region.of(memory, range).close(),
    { byteOffset: [notInteger(0, BYTES), PAGE], byteLength: [notInteger(1, BYTES), PAGE] },
    { sync: true },
  ),
  'Region.of(view, range)': {
    sync: true,
    call: ({ memory }, range) => Region.of(new Uint8Array(memory), range).close(),
    wrong: [{ byteOffset: 0 }, { byteLength: BYTES }],
    good: [{}, undefined, { byteOffset: undefined }],
  },
  'new Engine(options)': options(
    (_, options) => new Engine(options),
    {
      workers: [notInteger(1, 64), 1],
      maxStagingBytes: [notInteger(4 << 20, 64 * 2 ** 30), 4 << 20],
      stallMs: [notInteger(1, 2 ** 31), 1],
    },
    { sync: true },
  ),

  'CheckpointStore.open(path)': {
    call: ({ engine }, path) => CheckpointStore.open(path, { engine }),
    wrong: [undefined, ...wrong('string'), 'a\0b'],
    good: [],
  },
  'CheckpointStore.open(, options)': options(
    async ({ other }, options) => (await CheckpointStore.open(other, options)).close(),
    { createIfMissing: ['boolean', true], engine: ['engine', Engine.shared] },
    { needed: () => ({ createIfMissing: true }) },
  ),
  'Checkpointer.open(store)': {
    call: ({ spare }, store) => Checkpointer.open(store, { regions: { spare } }),
    wrong: [undefined, ...wrong('string'), 'a\0b', Object.create(CheckpointStore.prototype)],
    good: [],
  },
  'Checkpointer.open(, regions)': {
    call: async ({ store, spare }, { regions }: { regions(spare: Region): unknown }) => {
      const checkpointer = await Checkpointer.open(store, { regions: regions(spare) as never, branch: 'other' });
      await checkpointer.close();
    },
    wrong: [
      ...notObject.map((value) => ({ regions: () => value })),
      ...wrong('region').map((value) => ({ regions: (spare: Region) => ({ spare, heap: value }) })),
      ...notName.filter((name) => typeof name === 'string').map((name) => ({ regions: (spare: Region) => ({ [name]: spare }) })),
      { regions: () => undefined },
      { regions: () => ({}) },
      { regions: (spare: Region) => ({ a: spare, b: spare }) },
      { regions: (spare: Region) => new Map([['heap', spare]]) },
      { regions: (spare: Region) => ({ a: spare, b: new Proxy(spare, {}) }) },
      {
        regions: (spare: Region) =>
          Object.defineProperty({ spare }, 'b', {
            enumerable: true,
            get: () => {
              throw THROWN;
            },
          }),
      },
    ],
    good: [{ regions: (spare: Region) => ({ spare }) }, { regions: (spare: Region) => ({ ['__proto__']: spare }) }],
  },
  'Checkpointer.open(, options)': options(
    async ({ other }, options) => (await Checkpointer.open(other, options)).close(),
    {
      branch: ['name', 'other'],
      durability: ['durability', 'relaxed'],
      compressionLevel: [notInteger(-7, 19), 19],
      fingerprint: ['string', 'x'],
      startOver: ['boolean', true],
      engine: ['engine', Engine.shared],
    },
    { needed: ({ spare }) => ({ regions: { spare } }) },
  ),

  'checkpoint(options)': options(({ checkpointer }, options) => checkpointer.checkpoint(options), {
    label: ['name', 'two'],
    metadata: [
      [
        () => 1,
        Symbol('x'),
        1n,
        { a: 1n },
        cycle,
        'x'.repeat(65535),
        'ä'.repeat(32768),
        new Array(40_000).fill(1),
        toJson(undefined),
        toJson(1n),
        toJson(THROWN),
        { toJSON: 1n },
      ],
      'x'.repeat(65534),
    ],
    attachments: [
      [
        ...notObject,
        ...notName.filter((name) => typeof name === 'string').map((name) => ({ [name]: new Uint8Array(1) })),
        ...[
          'x',
          null,
          undefined,
          1,
          [1],
          {},
          region.buffer,
          new Uint16Array(1),
          new DataView(region.buffer),
          Object.create(Uint8Array.prototype),
          new Proxy(new Uint8Array(1), {}),
        ].map((bytes) => ({ notes: bytes })),
        Object.defineProperty({}, 'notes', {
          enumerable: true,
          get: () => {
            throw THROWN;
          },
        }),
      ],
      { notes: new Uint8Array(0), ['__proto__']: Buffer.from('x') },
    ],
    lengths: [
      [
        ...notObject,
        ...notInteger(0, BYTES).map((heap) => ({ heap })),
        { other: 1 },
        { heap: 1, other: undefined },
        JSON.parse('{"__proto__": 1}'),
      ],
      { heap: BYTES },
    ],
    durability: ['durability', 'relaxed'],
    ifChanged: ['boolean', true],
    signal: ['signal', new AbortController().signal],
  }),
  'precopy(options)': options(({ checkpointer }, options) => checkpointer.precopy(options), {
    signal: ['signal', new AbortController().signal],
  }),
  'restore(target)': {
    call: ({ checkpointer }, target) => checkpointer.restore(target),
    wrong: wrong('target'),
    good: [1, '1', 'one', 'main~0', {}, { branch: 'main' }, { back: 0 }, undefined],
  },
  'restore(, options)': options(({ checkpointer }, options) => checkpointer.restore(1, options), {
    regions: ['names', ['heap', 'heap']],
    signal: ['signal', new AbortController().signal],
    onProgress: ['function', () => {}],
  }),
  'attach(name)': {
    sync: true,
    call: ({ checkpointer, spare }, name) => checkpointer.attach(name, spare),
    wrong: [undefined, ...notName, 'heap'],
    good: [],
  },
  'attach(, region)': {
    sync: true,
    call: ({ checkpointer }, spare) => checkpointer.attach('spare', spare),
    wrong: [undefined, ...wrong('region'), new Proxy(region, {})],
    good: [],
  },
  'detach(name)': {
    sync: true,
    call: ({ checkpointer }, name) => checkpointer.detach(name),
    wrong: [undefined, ...notName],
    good: [],
  },
  'restoration.attachment(name)': {
    call: ({ restoration }, name) => restoration.attachment(name),
    wrong: [undefined, ...wrong('string')],
    good: ['notes'],
  },

  'checkpoints(options)': options(({ store }, options) => all(store.checkpoints(options)), {
    branch: ['string', 'main'],
    since: ['date', new Date()],
    until: ['date', new Date()],
    reverse: ['boolean', true],
    limit: [notInteger(0, Number.MAX_SAFE_INTEGER), 0],
  }),
  'find(target)': { call: ({ store }, target) => store.find(target), wrong: [undefined, ...wrong('target')], good: [1] },
  'at(target)': { call: ({ store }, target) => store.at(target), wrong: [undefined, ...wrong('target')], good: [1] },
  'label(options)': options(({ store }, options) => store.label('noted', 1, options), { move: ['boolean', true] }),
  'verify(options)': options(({ store }, options) => store.verify(options), { readData: ['boolean', false] }),
  'read(region)': {
    call: ({ snapshot }, name) => snapshot.read(name, 0, 1),
    wrong: [undefined, ...wrong('string')],
    good: ['heap'],
  },
  'read(, byteOffset)': {
    call: ({ snapshot }, offset) => snapshot.read('heap', offset, 0),
    wrong: [undefined, ...notInteger(0, BYTES)],
    good: [0, BYTES],
  },
  'read(, , byteLength)': {
    call: ({ snapshot }, length) => snapshot.read('heap', PAGE, length),
    wrong: [undefined, ...notInteger(0, BYTES - PAGE)],
    good: [0, BYTES - PAGE],
  },
  'stream(region)': {
    call: ({ snapshot }, name) => all(snapshot.stream(name)),
    wrong: [undefined, ...wrong('string')],
    good: ['heap'],
  },
  'stream(, range)': options(({ snapshot }, range) => all(snapshot.stream('heap', range)), {
    byteOffset: [notInteger(0, BYTES), BYTES],
    byteLength: [notInteger(0, BYTES), BYTES],
  }),
  'snapshot.attachment(name)': {
    call: ({ snapshot }, name) => snapshot.attachment(name),
    wrong: [undefined, ...wrong('string')],
    good: ['notes'],
  },
};

describe('api: options with wrong values', () => {
  after(() => rmSync(FILE, { force: true }));

  for (const [name, method] of Object.entries(TABLE)) {
    it(name, async () => {
      await withFolder(async (folder) => {
        const bench = new Bench(folder);
        await bench.open();
        const before = bench.look();
        for (const value of method.wrong) {
          await refused(method, bench, value);
          assert.deepEqual(bench.look(), before, `${show(value)} has changed something`);
        }
        const { regions } = await bench.checkpointer.checkpoint();
        assert.equal(regions.heap!.pages, 2, 'what was written before the calls is in the next checkpoint');
        for (const value of method.good) await method.call(bench, value as never);
        await bench.close();
      });
    });
  }
});
