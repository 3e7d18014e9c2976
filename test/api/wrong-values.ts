import { Engine, Region } from '../../lib/index.js';

/** Values that are not what an option wants, by what that is. */
export type Kind =
  | 'boolean'
  | 'string'
  | 'name'
  | 'names'
  | 'durability'
  | 'date'
  | 'signal'
  | 'engine'
  | 'region'
  | 'function'
  | 'object'
  | 'target';

const revoked = (): object => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};

/** Of no kind that anything wants. */
const NOTHING: unknown[] = [null, Symbol('x'), 1n, Number.NaN];
/** What looks like one, but is none. */
const BOXED = {
  boolean: new Boolean(true),
  string: new String('x'),
  number: new Number(1),
  thing: { valueOf: () => 1, toString: () => 'x' },
};

const WRONG: Record<Kind, unknown[]> = {
  boolean: [0, 1, '', 'true', {}, [], () => true, BOXED.boolean],
  string: [1, true, '', {}, [], ['x'], () => 'x', BOXED.string, BOXED.thing],
  name: [
    1,
    true,
    '',
    ' ',
    'a b',
    '1a',
    'a/b',
    'ä',
    '-a',
    'a\n',
    'a\0',
    'a'.repeat(129),
    'main~1',
    'main@1',
    {},
    [],
    ['a'],
    BOXED.string,
    BOXED.thing,
  ],
  names: [
    1,
    true,
    '',
    'heap',
    {},
    [],
    [1],
    [''],
    ['a b'],
    ['other'],
    ['heap', null],
    ['__proto__'],
    [['heap']],
    new Set(['heap']),
    { length: 1, 0: 'heap' },
  ],
  durability: ['', 'none', 'SYNC', true, 1, {}, ['sync'], BOXED.string],
  date: [0, Date.now(), '2026-01-01', {}, [], new Date(Number.NaN), { getTime: () => 0 }, Object.create(Date.prototype)],
  signal: [
    true,
    'abort',
    {},
    new AbortController(),
    { aborted: false, addEventListener() {} },
    new EventTarget(),
    Object.create(AbortSignal.prototype),
  ],
  engine: [1, 'shared', {}, Engine, Object.create(Engine.prototype), new Proxy(Engine.shared, {})],
  region: [1, 'heap', {}, [], new Uint8Array(4096), new ArrayBuffer(4096), Region, Object.create(Region.prototype)],
  function: [1, true, 'f', {}, [], { call() {} }],
  object: [1, 'x', true, [], [{}], () => ({})],
  target: [
    true,
    0,
    -1,
    1.5,
    2 ** 53,
    Number.POSITIVE_INFINITY,
    '',
    ' ',
    'a b',
    '~1',
    'main~',
    'main~x',
    'main~-1',
    '-1',
    [],
    ['main'],
    [1],
    () => 1,
    { Branch: 'x' },
    { back: -1 },
    { back: '1' },
    { back: null },
    { branch: 'a b' },
    { branch: 1 },
    JSON.parse('{"__proto__": 1}'),
    JSON.parse('{"constructor": 1}'),
  ],
};

export function wrong(kind: Kind): unknown[] {
  return [...NOTHING, ...WRONG[kind]];
}

/** Numbers out of a range of integers, and what is no integer. */
export function notInteger(min: number, max: number): unknown[] {
  const outside = [min - 1, max + 1, -(2 ** 53), 2 ** 53, Number.MAX_VALUE].filter((value) => value < min || value > max);
  return [
    ...NOTHING,
    ...outside,
    Number.POSITIVE_INFINITY,
    Number.NEGATIVE_INFINITY,
    min + 0.5,
    '1',
    '',
    true,
    {},
    [],
    [1],
    BOXED.number,
    BOXED.thing,
  ];
}

/** What is thrown by the caller's own code, while its options are read. */
export const THROWN = new Error('thrown by a getter');

/** Options that are no object, have keys that nobody knows, or throw when they are looked at. */
export function wrongOptions(known: readonly string[]): unknown[] {
  const boom = () => {
    throw THROWN;
  };
  const capital = known.map((name) => ({ [name[0]!.toUpperCase() + name.slice(1)]: undefined }));
  return [
    ...wrong('object'),
    ...capital,
    { [`${known[0]} `]: undefined },
    { '': 1 },
    JSON.parse('{"__proto__": 1}'),
    JSON.parse('{"constructor": 1}'),
    JSON.parse('{"toString": 1}'),
    revoked(),
    new Proxy({}, { ownKeys: boom }),
    new Proxy(
      {},
      { ownKeys: () => ['unknown'], getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true, value: 1 }) },
    ),
    ...known.map((name) => Object.defineProperty({}, name, { get: boom, enumerable: true })),
    ...known.map((name) => new Proxy({ [name]: 1 }, { get: boom })),
  ];
}

/** For messages. */
export function show(value: unknown): string {
  try {
    return typeof value === 'symbol' || typeof value === 'bigint' || typeof value === 'function'
      ? String(value)
      : (JSON.stringify(value) ?? String(value));
  } catch {
    return typeof value;
  }
}
