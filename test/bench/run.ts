import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { Report } from './support/report.js';
import type { Suite } from './support/suite.js';

/** One suite, in this process: `node run.js NAME --scratch FOLDER --json FILE [--quick]`. */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { scratch: { type: 'string' }, json: { type: 'string' }, quick: { type: 'boolean', default: false } },
});
const name = positionals[0]!;
const report = new Report(name);
const { suite } = (await import(`./suites/${name}.js`)) as { suite: Suite };
mkdirSync(values.scratch!, { recursive: true });
await suite({ report, quick: values.quick, scratch: values.scratch!, cores: Math.min(4, availableParallelism()) });
writeFileSync(values.json!, JSON.stringify(report.results));
