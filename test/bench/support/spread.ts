/** What several rounds gave. */
export interface Spread {
  median: number;
  min: number;
  max: number;
  rounds: number;
}

/** @param samples one a round, at least one */
export function spread(samples: readonly number[]): Spread {
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  const median = (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)!, rounds: sorted.length };
}

export const ms = (s: Spread): string => show(s, 'ms');

export type Unit = 'ms' | 'us' | 'ns' | 'MB' | 'KB' | 'MiB' | '' | 'MB/s';

/** `median (min-max) unit`, or only the value where there was one round. */
export function show({ median, min, max, rounds }: Spread, unit: Unit): string {
  const value = rounds === 1 ? digits(median) : `${digits(median)} (${digits(min)}-${digits(max)})`;
  return unit === '' ? value : `${value} ${unit}`;
}

/** Milliseconds, and what is less than one of them as microseconds. */
export function duration(time: Spread): string {
  if (time.median >= 1) return ms(time);
  return show({ ...time, median: time.median * 1000, min: time.min * 1000, max: time.max * 1000 }, 'us');
}

/** Three digits that count, and never an exponent. */
export function digits(value: number): string {
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  return value.toFixed(size >= 1 || size === 0 ? 2 : 3);
}
