import type { Checkpoint } from '../chain/header.js';
import { checkpointJson, dirtyPages } from './checkpoint-json.js';
import { Exit } from './exit.js';
import { bytes, count, milliseconds, paint, plural, quoted, Table, time } from './format.js';
import { print, printJson } from './stdout.js';
import { type Invocation, interruptible, JSON_OPTION, type Verb } from './verb.js';
import { checkTarget, requireCheckpoint, TARGETS, withStore } from './with-store.js';

export const show: Verb = {
  name: 'show',
  summary: 'Show everything about one checkpoint',
  arguments: ['<store>', '<target>'],
  options: { json: JSON_OPTION },
  notes: TARGETS,

  async run({ values, arguments: [path, target], signal }: Invocation): Promise<number> {
    checkTarget(target!, 'show');
    await withStore(path!, signal, async (store) => {
      const checkpoint = await interruptible(signal, requireCheckpoint(store, target!));
      if (values.json === true) await printJson(checkpointJson(checkpoint));
      else await print(describe(checkpoint));
    });
    return Exit.done;
  },
};

function describe(checkpoint: Checkpoint): string {
  const { timings, regions, attachments } = checkpoint;
  const facts: [string, string][] = [
    ['uid', checkpoint.uid],
    ['branch', checkpoint.branch],
    ['labels', checkpoint.labels.join(' ') || '-'],
    ['parent', checkpoint.parent === null ? '-' : `${checkpoint.parent}`],
    ['kind', checkpoint.kind],
    ['created', time(checkpoint.createdAt)],
    ['durable', checkpoint.durable ? 'yes' : 'not known to survive a power loss'],
    [
      'stored',
      `${bytes(checkpoint.storedBytes)} for ${plural(dirtyPages(checkpoint), 'dirty page')} (${bytes(checkpoint.rawBytes)})`,
    ],
    [
      'timings',
      `capture ${milliseconds(timings.captureMs)}, encode ${milliseconds(timings.encodeMs)}, commit ${milliseconds(timings.commitMs)}, total ${milliseconds(timings.totalMs)}`,
    ],
    ['fingerprint', checkpoint.fingerprint === undefined ? '-' : quoted(checkpoint.fingerprint)],
  ];
  const right = true;
  const table = new Table([{ style: 'cyan' }, { right }, { right }, { right }, { right }, { right }, { right }]);
  const rows = Object.entries(regions).map(([name, region]) => [
    `  ${name}`,
    ...[region.byteLength, region.length, region.pages, region.deltaPages, region.zeroPages, region.unchangedPages].map(count),
  ]);
  const head = ['  name', 'bytes', 'length', 'pages', 'deltas', 'zero', 'unchanged'];
  const attached = Object.entries(attachments).map(([name, { byteLength }]) => `  ${name}  ${count(byteLength)} bytes\n`);
  return [
    `${paint('bold', `checkpoint ${checkpoint.id}`)}\n`,
    new Table([{}, {}]).format(facts.map(([name, value]) => [`  ${name}`, value])),
    `${paint('bold', 'regions')}\n`,
    table.format([head, ...rows]),
    ...(attached.length === 0 ? [] : [`${paint('bold', 'attachments')}\n`, ...attached]),
    ...(checkpoint.metadata === undefined
      ? []
      : [`${paint('bold', 'metadata')}\n`, `${quoted(checkpoint.metadata, 2).replace(/^/gm, '  ')}\n`]),
  ].join('');
}
