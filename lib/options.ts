/** Checks of what a caller passes in. Misuse is a TypeError or RangeError without a code. */

/** An object with no keys but those known: a mistyped option must not be ignored. */
export function isOptions(what: string, value: unknown, known: readonly string[]): void {
  // Not a Date or a Map: it has no keys of its own, and would pass for no options at all.
  if (Object.prototype.toString.call(value) !== '[object Object]') throw new TypeError(`${what}: the options must be an object`);
  for (const key of Object.keys(value as object)) {
    if (!known.includes(key)) throw new TypeError(`${what}: unknown option ${JSON.stringify(key)} (known: ${known.join(', ')})`);
  }
}

/** Applies a check to an option that was given. */
export function option<T>(value: T | undefined, check: (value: T) => T): T | undefined {
  return value === undefined ? undefined : check(value);
}

export function isNumber(name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw new TypeError(`${name} must be an integer`);
  if (value < min || value > max) throw new RangeError(`${name} must be ${min} to ${max}, not ${value}`);
  return value;
}

export function isBoolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw new TypeError(`${name} must be a boolean`);
  return value;
}

export function isString(name: string, value: unknown): string {
  if (typeof value !== 'string' || value === '') throw new TypeError(`${name} must be a string that is not empty`);
  return value;
}

export function isPath(name: string, value: unknown): string {
  const path = isString(name, value);
  if (path.includes('\0')) throw new TypeError(`${name} must not have a null byte`);
  return path;
}

export function oneOf<T extends string>(name: string, value: unknown, values: readonly T[]): T {
  if (!values.includes(value as T)) throw new TypeError(`${name} must be ${values.map((v) => `'${v}'`).join(' or ')}`);
  return value as T;
}

export function isSignal(value: unknown): AbortSignal {
  if (!(value instanceof AbortSignal)) throw new TypeError('signal must be an AbortSignal');
  return value;
}

const NAME = /^[A-Za-z_][\w.-]{0,127}$/;

/** A name of a region, branch or label. */
export function isName(what: string, value: unknown): string {
  if (typeof value !== 'string') throw new TypeError(`${what} must be a string`);
  if (!NAME.test(value))
    throw new RangeError(
      `${what} ${JSON.stringify(value)} is not a name: a letter or _, then up to 127 letters, digits, _, . or -`,
    );
  return value;
}
