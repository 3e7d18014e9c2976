/** Milliseconds since 1970 with fractions, on a clock that all threads of the process share. */
export function now(): number {
  return performance.timeOrigin + performance.now();
}
