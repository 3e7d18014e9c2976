import { pageRanges } from '../chain/runs.js';
import type { VerifyProblem, VerifyReport } from '../engine/protocol.js';
import { Exit } from './exit.js';
import { bytes, paint, plural } from './format.js';
import { Progress } from './progress.js';
import { print, printJson } from './stdout.js';
import { type Invocation, interruptible, JSON_OPTION, type Verb } from './verb.js';
import { withStore } from './with-store.js';

export const verify: Verb = {
  name: 'verify',
  summary: 'Check every checkpoint of a store; exit code 12 when anything is damaged',
  arguments: ['<store>'],
  options: {
    'read-data': { type: 'boolean', text: 'also decompress every page and compare it with its checksum' },
    json: JSON_OPTION,
  },
  notes:
    'Without --read-data it checks records and their checksums, the links of the chain and the page tables, but does not\ndecompress what the pages hold.',

  async run({ values, arguments: [path], signal }: Invocation): Promise<number> {
    const report = await withStore(path!, signal, async (store) => {
      const progress = new Progress();
      progress.tick('checking');
      try {
        return await interruptible(signal, store.verify({ readData: values['read-data'] === true }));
      } finally {
        progress.end();
      }
    });
    const problems = report.problems;
    if (values.json === true) await printJson(reportJson(path!, report, problems));
    else await print(describe(report, problems));
    return problems.length === 0 ? Exit.done : Exit.damaged;
  },
};

function reportJson(store: string, report: VerifyReport, problems: VerifyProblem[]): unknown {
  const { checkpoints, extents, pages, bytes, readData } = report;
  return {
    store,
    ok: problems.length === 0,
    readData,
    checkpoints,
    extents,
    pages,
    bytes,
    problems: problems.map((problem) => ({
      code: problem.code,
      message: problem.message,
      checkpoint: problem.checkpoint ?? null,
      region: problem.region ?? null,
      attachment: problem.attachment ?? null,
      pages: problem.pages ?? [],
    })),
  };
}

function describe(report: VerifyReport, problems: VerifyProblem[]): string {
  const found = problems.map(({ code, message, checkpoint, region, attachment, pages }) => {
    const where = [
      ...(checkpoint === undefined ? [] : [`checkpoint ${checkpoint}`]),
      ...(region === undefined ? [] : [`region ${region}`]),
      ...(attachment === undefined ? [] : [`attachment ${attachment}`]),
      ...(pages === undefined || pages.length === 0 ? [] : [`pages ${pageRanges(pages)}`]),
    ].join(', ');
    return `${paint('red', code)}  ${where === '' ? '' : `${where}: `}${message}\n`;
  });
  const checked = `${plural(report.checkpoints, 'checkpoint')}, ${plural(report.extents, 'extent')}, ${plural(report.pages, 'page')}, ${bytes(report.bytes)}`;
  const verdict = problems.length === 0 ? paint('green', 'no damage found') : paint('red', plural(problems.length, 'problem'));
  const data = report.readData
    ? 'every page was decompressed and compared'
    : 'the contents of the pages were not read; --read-data does that';
  return `${found.join('')}${checked}: ${verdict}\n${data}\n`;
}
