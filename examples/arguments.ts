/** The whole number that an argument of the command line says. @throws {RangeError} */
export function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least) throw new RangeError(`--${name} must be a whole number from ${least} on`);
  return value;
}

/** Time, which need not be whole. @throws {RangeError} */
export function seconds(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0)) throw new RangeError(`--${name} must be a number above 0`);
  return value;
}
