/** Rounds of a test that draws its cases: TIDEMARK_CRASH_ROUNDS, or the short form. */
export function rounds(short: number): number {
  const asked = process.env.TIDEMARK_CRASH_ROUNDS;
  return asked === undefined ? short : Number(asked);
}

/** True when everything is to be tried, not a sample of it. */
export const LONG = process.env.TIDEMARK_CRASH_ROUNDS !== undefined;

/**
 * The first seed; a failure is repeated with TIDEMARK_CRASH_SEED and one round. Only campaigns draw it from the clock: what runs with every
 * `npm test` must not be another test each time.
 */
export const SEED = Number(process.env.TIDEMARK_CRASH_SEED ?? (LONG ? Date.now() % 1_000_000_000 : 4711));

/** Runs the rounds; the one that fails says with which seed it can be repeated. */
export async function eachRound(count: number, round: (seed: number, number: number) => Promise<void>): Promise<void> {
  const started = Date.now();
  for (let k = 0; k < count; k++) {
    const seed = SEED + k * 7919;
    try {
      await round(seed, k);
    } catch (error) {
      const message = `round ${k + 1} of ${count} failed, repeat it with TIDEMARK_CRASH_SEED=${seed} TIDEMARK_CRASH_ROUNDS=1`;
      throw new Error(`${message}: ${(error as Error).message}`, { cause: error });
    }
  }
  console.log(`      ${count} rounds from seed ${SEED}, ${((Date.now() - started) / 1000).toFixed(1)} s`);
}
