/** `npm run bench -- [options]`: the first figures. `npm run bench -- deltas [options]`: what deltas save and cost. */
if (process.argv[2] === 'deltas') {
  process.argv.splice(2, 1);
  await import('./deltas.js');
} else {
  await import('./first-figures.js');
}

export {};
