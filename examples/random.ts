/** Whole numbers from 0 up to `below`, which depend on `seed` and `n` and nothing else: what was done once can be done again. */
export function random(n: number, seed = 0): (below: number) => number {
  let state = Math.imul(n + 1, 0x9e3779b1) ^ Math.imul(seed, 0x85ebca6b);
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const words =
  'amber anchor basin beacon canal cedar delta ember estuary fathom gravel harbor inlet jetty kelp lagoon marsh nautical oyster pier quay reef shoal tide upland vessel wharf'.split(
    ' ',
  );

/** That many words. */
export function text(next: (below: number) => number, count: number): string {
  return Array.from({ length: count }, () => words[next(words.length)]).join(' ');
}
