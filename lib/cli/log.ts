import type { Checkpoint } from '../chain/header.js';
import type { CheckpointStore } from '../chain/store.js';
import { isName } from '../options.js';
import { checkpointJson, dirtyPages } from './checkpoint-json.js';
import { Exit, notFound, typed, usageError } from './exit.js';
import { bytes, plural, Table, time } from './format.js';
import { print } from './stdout.js';
import { type Invocation, JSON_OPTION, type Verb } from './verb.js';
import { withStore } from './with-store.js';

/** Rows that are written, and aligned, together. */
const BATCH = 256;

export const log: Verb = {
  name: 'log',
  summary: 'List the checkpoints of a store, newest first',
  arguments: ['<store>'],
  options: {
    branch: { type: 'string', value: 'NAME', text: 'only checkpoints committed on this branch' },
    limit: { type: 'string', short: 'n', value: 'N', text: 'at most so many' },
    json: JSON_OPTION,
  },
  notes: 'A line: id, beginning of the uid, time (UTC), branch and [labels], kind, dirty pages, bytes stored, durable or not.',

  async run({ values, arguments: [path], signal }: Invocation): Promise<number> {
    const branch = values.branch as string | undefined;
    if (branch !== undefined) typed(() => isName('--branch', branch), 'log');
    const limit = values.limit === undefined ? undefined : parseLimit(values.limit as string);
    const format = values.json === true ? jsonLines : lines();
    await withStore(path!, signal, async (store) => {
      let rows: Checkpoint[] = [];
      let none = true;
      const query = { reverse: true, ...(branch === undefined ? {} : { branch }), ...(limit === undefined ? {} : { limit }) };
      for await (const checkpoint of store.checkpoints(query)) {
        signal.throwIfAborted();
        none = false;
        rows.push(checkpoint);
        if (rows.length < BATCH) continue;
        await print(format(rows));
        rows = [];
      }
      await print(format(rows));
      if (none && branch !== undefined && limit !== 0) await requireBranch(store, branch);
    });
    return Exit.done;
  },
};

function parseLimit(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw usageError(`--limit must be a whole number, not ${JSON.stringify(text)}`, 'log');
  return Number(text);
}

/** Nothing on a branch that is there is nothing; a branch that is not there is a mistake. */
async function requireBranch(store: CheckpointStore, name: string): Promise<void> {
  const found = await store.find(name);
  if (found === undefined) throw notFound(`there is no branch ${name} in the store ${store.path}`);
  if (found.labels.includes(name)) throw notFound(`${name} is the label of checkpoint ${found.id}, not a branch`);
}

function jsonLines(checkpoints: Checkpoint[]): string {
  return checkpoints.map((checkpoint) => `${JSON.stringify(checkpointJson(checkpoint))}\n`).join('');
}

function lines(): (checkpoints: Checkpoint[]) => string {
  const right = true;
  const table = new Table([{ right, style: 'bold' }, { style: 'yellow' }, {}, { style: 'cyan' }, {}, { right }, { right }, {}]);
  return (checkpoints) =>
    table.format(
      checkpoints.map((checkpoint) => [
        `${checkpoint.id}`,
        checkpoint.uid.slice(0, 8),
        time(checkpoint.createdAt),
        [checkpoint.branch, ...checkpoint.labels.map((label) => `[${label}]`)].join(' '),
        checkpoint.kind,
        plural(dirtyPages(checkpoint), 'page'),
        bytes(checkpoint.storedBytes),
        checkpoint.durable ? 'durable' : 'relaxed',
      ]),
    );
}
