import { mkdir, rmdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Checkpoint } from '../chain/header.js';
import type { Snapshot } from '../chain/snapshot.js';
import type { CheckpointStore } from '../chain/store.js';
import { PAGE_SIZE } from '../kernel/addon.js';
import { isName } from '../options.js';
import { checkpointJson } from './checkpoint-json.js';
import { Exit, notFound, typed, usageError } from './exit.js';
import { bytes } from './format.js';
import { checkFile, checkFolder, checkOutside, checkSpace, PendingFile, syncFolder } from './output-file.js';
import { Progress } from './progress.js';
import { print, printJson } from './stdout.js';
import { type Invocation, interruptible, JSON_OPTION, type Verb } from './verb.js';
import { checkTarget, TARGETS, withStore } from './with-store.js';

/** One file that is to be written: of a region, of an attachment, or (neither) metadata.json. */
interface Plan {
  path: string;
  region: string | null;
  attachment: string | null;
  byteLength: number;
}

/** What of a checkpoint is wanted. */
interface Part {
  kind: 'region' | 'attachment';
  name: string;
}

/** What the restore works with. */
interface Job {
  store: CheckpointStore;
  snapshot: Snapshot;
  signal: AbortSignal;
  force: boolean;
  dryRun: boolean;
}

export const restore: Verb = {
  name: 'restore',
  summary: 'Write the memory of a checkpoint, and what is attached to it, to files',
  arguments: ['<store>', '<target>'],
  options: {
    output: {
      type: 'string',
      short: 'o',
      value: 'PATH',
      text: 'a file with --region or --attachment (- is stdout), else a folder',
    },
    region: {
      type: 'string',
      short: 'r',
      value: 'NAME',
      text: 'only this region; default: all there is, each in a file of its own',
    },
    attachment: { type: 'string', short: 'a', value: 'NAME', text: 'only this attachment' },
    force: { type: 'boolean', short: 'f', text: 'overwrite files that exist' },
    'dry-run': { type: 'boolean', text: 'write nothing, say what would be written' },
    json: JSON_OPTION,
  },
  notes: `${TARGETS}\nA folder gets NAME.bin for each region, NAME.attachment for each attachment, and metadata.json last. Files appear whole or not at all.`,

  async run({ values, arguments: [path, target], signal }: Invocation): Promise<number> {
    const output = values.output as string | undefined;
    checkTarget(target!, 'restore');
    if (output === undefined || output === '') throw usageError('--output is missing', 'restore');
    const part = askedPart(values);
    if (output === '-' && part === undefined)
      throw usageError('--output - needs --region or --attachment: stdout takes one', 'restore');
    const [force, dryRun, json] = [values.force === true, values['dry-run'] === true, values.json === true];
    if (output === '-' && process.stdout.isTTY && !force && !dryRun)
      throw usageError('stdout is a terminal; redirect it, or add --force', 'restore');
    await withStore(path!, signal, async (store) => {
      const snapshot = await interruptible(signal, store.at(target!));
      const { checkpoint } = snapshot;
      const job: Job = { store, snapshot, signal, force, dryRun };
      if (part !== undefined) requirePart(checkpoint, part);
      if (output !== '-') await checkOutside(path!, output);
      const files =
        output === '-'
          ? await toStdout(job, part!)
          : part === undefined
            ? await toFolder(job, output)
            : await toFile(job, part, output);
      if (output !== '-' || dryRun) await report(checkpoint, files, dryRun, json);
    });
    return Exit.done;
  },
};

/** The one thing that was named, if one was. */
function askedPart({ region, attachment }: Invocation['values']): Part | undefined {
  if (region !== undefined && attachment !== undefined)
    throw usageError('--region and --attachment exclude each other: one file takes one', 'restore');
  const kind = region === undefined ? 'attachment' : 'region';
  const name = region ?? attachment;
  return name === undefined ? undefined : { kind, name: typed(() => isName(`--${kind}`, name), 'restore') };
}

function requirePart(checkpoint: Checkpoint, { kind, name }: Part): void {
  const there = kind === 'region' ? checkpoint.regions : checkpoint.attachments;
  if (Object.hasOwn(there, name)) return;
  throw notFound(`checkpoint ${checkpoint.id} has no ${kind} ${name}`, `it has ${Object.keys(there).join(', ') || 'none'}`);
}

function planOf({ regions, attachments }: Checkpoint, { kind, name }: Part, path: string): Plan {
  return kind === 'region'
    ? { path, region: name, attachment: null, byteLength: regions[name]!.length }
    : { path, region: null, attachment: name, byteLength: attachments[name]!.byteLength };
}

async function toStdout({ snapshot, signal, dryRun }: Job, part: Part): Promise<Plan[]> {
  const plan = planOf(snapshot.checkpoint, part, '-');
  if (!dryRun) await copy(snapshot, plan, signal, (piece) => interruptible(signal, print(piece)));
  return [plan];
}

async function toFile(job: Job, part: Part, output: string): Promise<Plan[]> {
  const path = await checkFile(output, job.force);
  const plans = [planOf(job.snapshot.checkpoint, part, path)];
  await checkSpace(dirname(resolve(path)), (enough) => mostBytes(job, plans, enough));
  if (!job.dryRun) await writeAll(job, plans);
  return plans;
}

async function toFolder(job: Job, output: string): Promise<Plan[]> {
  const { checkpoint } = job.snapshot;
  const { missing } = await checkFolder(output, job.force);
  const plans: Plan[] = [
    ...Object.keys(checkpoint.regions).map((name) => planOf(checkpoint, { kind: 'region', name }, join(output, `${name}.bin`))),
    ...Object.keys(checkpoint.attachments).map((name) =>
      planOf(checkpoint, { kind: 'attachment', name }, join(output, `${name}.attachment`)),
    ),
    { path: join(output, 'metadata.json'), region: null, attachment: null, byteLength: metadataFile(checkpoint).length },
  ];
  if (!missing) for (const plan of plans) plan.path = await checkFile(plan.path, job.force);
  await checkSpace(missing ? dirname(resolve(output)) : output, (enough) => mostBytes(job, plans, enough));
  if (job.dryRun) return plans;
  if (missing) await mkdir(output, { mode: 0o700 });
  try {
    await writeAll(job, plans);
    if (missing) await syncFolder(dirname(resolve(output)));
  } catch (error) {
    if (missing) await rmdir(output).catch(() => {});
    throw error;
  }
  return plans;
}

/** All files are written before the first gets its name. */
async function writeAll({ snapshot, signal, force }: Job, plans: Plan[]): Promise<void> {
  const files: PendingFile[] = [];
  try {
    for (const plan of plans) {
      const file = await PendingFile.create(plan.path, force);
      files.push(file);
      await copy(snapshot, plan, signal, (piece, at) => file.write(piece, at));
      await file.finish(plan.byteLength);
    }
    signal.throwIfAborted();
    for (const file of files) await file.publish();
    for (const folder of new Set(plans.map(({ path }) => dirname(resolve(path))))) await syncFolder(folder);
  } catch (error) {
    for (const file of files) await file.discard();
    throw error;
  }
}

async function copy(
  snapshot: Snapshot,
  { region, attachment, byteLength }: Plan,
  signal: AbortSignal,
  take: (piece: Uint8Array, at: number) => Promise<void>,
): Promise<void> {
  if (attachment !== null) return take(await interruptible(signal, snapshot.attachment(attachment)), 0);
  if (region === null) return take(metadataFile(snapshot.checkpoint), 0);
  const progress = new Progress();
  let at = 0;
  try {
    for await (const piece of snapshot.stream(region)) {
      signal.throwIfAborted();
      await take(piece, at);
      at += piece.length;
      progress.show(() => `${region}: ${bytes(at)} of ${bytes(byteLength)} (${Math.floor((at / byteLength) * 100)} %)`);
    }
  } finally {
    progress.end();
  }
}

/**
 * An upper bound of the bytes that take room in the files. Zeros become holes, so where the lengths do not fit, the pages that were ever stored
 * for this checkpoint and those before it may still do.
 */
async function mostBytes({ store, snapshot, signal }: Job, plans: readonly Plan[], enough: number): Promise<number> {
  const names = plans.map(({ region }) => region).filter((region) => region !== null);
  const lengths = plans.reduce((sum, { byteLength }) => sum + byteLength, 0);
  // Of the others every byte counts.
  let stored = plans.reduce((sum, { region, byteLength }) => sum + (region === null ? byteLength : 0), 0);
  let checkpoint: Checkpoint | undefined = snapshot.checkpoint;
  while (lengths > enough && stored < lengths) {
    signal.throwIfAborted();
    for (const name of names) stored += (checkpoint.regions[name]?.pages ?? 0) * PAGE_SIZE;
    if (checkpoint.parent === null) return Math.min(stored, lengths);
    checkpoint = await store.find(checkpoint.parent);
    if (checkpoint === undefined) break;
  }
  return lengths;
}

function metadataFile(checkpoint: Checkpoint): Buffer {
  return Buffer.from(`${JSON.stringify(checkpointJson(checkpoint), null, 2)}\n`);
}

/** On stdout when that is what was asked for; else it is only a remark. */
async function report(checkpoint: Checkpoint, files: Plan[], dryRun: boolean, json: boolean): Promise<void> {
  if (json) {
    await printJson({ checkpoint: checkpoint.id, uid: checkpoint.uid, dryRun, files });
    return;
  }
  const text = files
    .map(({ path, region, attachment, byteLength }) => {
      const part = region !== null ? `region ${region}` : attachment !== null ? `attachment ${attachment}` : undefined;
      const what = part === undefined ? 'about the checkpoint' : `${part} of checkpoint ${checkpoint.id}`;
      return `${dryRun ? 'would write' : 'wrote'} ${path === '-' ? 'to stdout' : path}: ${byteLength} bytes, ${what}\n`;
    })
    .join('');
  if (dryRun) await print(text);
  else process.stderr.write(text);
}
