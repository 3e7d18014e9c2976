import type { Checkpoint } from '../chain/header.js';
import { union } from '../chain/runs.js';
import type { Engine } from '../engine/engine.js';
import type { LazyBegun, LazyRequest, PlainTarget, RestoreRequest } from '../engine/protocol.js';
import type { RegionShadow } from '../engine/shadows.js';
import { TidemarkError } from '../errors.js';
import { PAGE_SIZE } from '../kernel/addon.js';
import { isString } from '../options.js';
import type { Region } from '../region/region.js';
import { type LazyStats, Residency, requireServing } from './lazy.js';

export interface Progress {
  /** Pages read and checked, or filled; the count starts again for each of the two passes. */
  donePages: number;
  totalPages: number;
}

export interface RestoreStats {
  /** Pages put into the regions; of a lazy restore those that are, sooner or later. */
  filledPages: number;
  /** Pages made zero. */
  zeroedPages: number;
  /** The memory descended from the chain: only what differed was changed. */
  inPlace: boolean;
  /** Until the regions could be used, in milliseconds. */
  ms: number;
  /** Of a lazy restore. */
  lazy?: LazyStats;
}

/** A restore that has succeeded. */
export interface Restoration {
  readonly checkpoint: Checkpoint;
  /**
   * Resolves when everything is in memory: for an eager restore it has resolved. That of a lazy one rejects, when all else is there, with the pages that could not be restored
   * (`TIDEMARK_DAMAGED`), or with why nobody fills them any more (`TIDEMARK_CLOSED`, `TIDEMARK_WRITE_FAILED`): these pages cannot be read.
   */
  readonly done: Promise<void>;
  /**
   * Resolves when these bytes of a region are in memory, zeros too. For those who hand memory to the kernel that is, or ever was, restored lazily where faults of the kernel are not served (`lazy: 'user-faults'`):
   * a system call that touches a page which is not there fails with EFAULT. Pages that are dropped afterwards are not there again.
   * @throws {TidemarkError} (rejects) `TIDEMARK_NOT_FOUND`, `TIDEMARK_DAMAGED`, `TIDEMARK_CLOSED`
   */
  ensureResident(region: string, byteOffset: number, byteLength: number): Promise<void>;
  /** The bytes of an attachment of the checkpoint. @throws {TidemarkError} (rejects) `TIDEMARK_NOT_FOUND`, `TIDEMARK_DAMAGED`, `TIDEMARK_CHAIN_BROKEN`, `TIDEMARK_CLOSED` */
  attachment(name: string): Promise<Uint8Array>;
  stats(): RestoreStats;
}

/** A region to be restored. */
export interface RestoreInput {
  region: Region;
  /** It descends from the checkpointer's base: only what differs is changed. */
  known: boolean;
  shadow: RegionShadow | undefined;
}

interface RestoreJob {
  engine: Engine;
  store: number;
  session: number;
  /** Null: the head of the branch. */
  target: PlainTarget | null;
  regions: Map<string, RestoreInput>;
  /** Only these regions were asked for: what else the checkpoint or the checkpointer has is left alone. */
  partial: boolean;
  /** Uid of the checkpoint that the memory descends from. */
  base: string | null;
  fingerprint: string | undefined;
  signal: AbortSignal | undefined;
  /** Undefined: everything is there when it resolves. */
  lazy: LazyOptions | undefined;
  /** The first page is about to be changed. */
  onTouched(): void;
  /** It has succeeded. */
  onRestored(residency: Residency): void;
}

/** That a restore is lazy. */
export interface LazyOptions {
  request: LazyRequest;
  /** Settles when all pages are there, or some cannot be had. */
  resident: Promise<void>;
}

/** The caller's part of a restore: what is asked for fits, what differs, and what the regions are afterwards. */
export async function restoreRegions(job: RestoreJob): Promise<Restoration> {
  const started = performance.now();
  const { engine, session, signal } = job;
  signal?.throwIfAborted();
  const { lazy } = job;
  if (lazy !== undefined) requireServing(lazy.request.userFaults);
  const { checkpoint, regions: found } = await engine.call('planRestore', session, job.target);
  if (job.fingerprint !== undefined && checkpoint.fingerprint !== job.fingerprint) {
    throw new TidemarkError(
      'TIDEMARK_FINGERPRINT',
      `checkpoint ${checkpoint.id} was made by a program with fingerprint ${checkpoint.fingerprint ?? '(none)'}, not ${job.fingerprint}`,
      {
        hint: 'restore it with the program that made it, or open the checkpointer without a fingerprint',
      },
    );
  }
  const stored = job.partial ? found.filter(({ name }) => job.regions.has(name)) : found;
  checkSizes(job.regions, stored, checkpoint);
  const regions = [...job.regions.values()].map(({ region }) => region);
  const inPlace = [...job.regions.values()].every(({ known }) => known);
  const request: RestoreRequest = {
    uid: checkpoint.uid,
    base: job.base,
    phase: 'check',
    regions: stored.map(({ name, byteLength }) => describe(name, job.regions.get(name)!, byteLength)),
  };
  const fresh = request.regions.every(({ known, changed }) => !known && changed.length === 0);
  const stop = (): void => engine.tell({ type: 'abort-restore', session });
  signal?.addEventListener('abort', stop);
  let begun: Pick<LazyBegun, 'filledPages' | 'zeroedPages'> & Partial<LazyBegun>;
  try {
    if (!fresh && lazy === undefined) await engine.call('restore', session, request);
    // From here on it cannot be aborted any more, unless there was nothing in the memory: then what was filled is taken out again.
    signal?.throwIfAborted();
    if (!fresh) signal?.removeEventListener('abort', stop);
    growAll(job.regions, stored);
    job.onTouched();
    for (const region of regions) region.beginFill();
    begun = await fill(job, request, fresh);
  } finally {
    engine.tell({ type: 'restore-ended', session });
    signal?.removeEventListener('abort', stop);
  }
  for (const region of regions) region.settle();
  const { lazy: numbers, ...counts } = begun;
  const inputs = stored.map(({ name }) => ({ name, region: job.regions.get(name)!.region, lazy: numbers?.[name] ?? 0 }));
  const residency = new Residency(engine, session, inputs, lazy?.resident);
  job.onRestored(residency);
  const ms = performance.now() - started;
  return {
    checkpoint,
    done: residency.done,
    ensureResident: async (name, byteOffset, byteLength) => residency.ensure(isString('region', name), byteOffset, byteLength),
    attachment: async (name) => engine.call('readAttachment', job.store, checkpoint.uid, isString('name', name)),
    stats: () => ({ ...counts, inPlace, ms, ...residency.stats() }),
  };
}

function checkSizes(
  regions: Map<string, RestoreInput>,
  stored: { name: string; byteLength: number }[],
  checkpoint: Checkpoint,
): void {
  const has = Object.entries(checkpoint.regions).map(([name, { byteLength }]) => `${name} (${byteLength} bytes)`);
  const mismatch = (message: string): TidemarkError =>
    new TidemarkError('TIDEMARK_REGION_MISMATCH', message, {
      hint: `checkpoint ${checkpoint.id} has ${has.join(', ')}; the option \`regions\` names those to restore`,
    });
  for (const { name, byteLength } of stored) {
    const region = regions.get(name)?.region;
    if (region === undefined) throw mismatch(`the checkpoint has a region ${name}, the checkpointer has not`);
    const size = region.currentByteLength();
    if (!region.growable && size !== byteLength) throw mismatch(`region ${name} has ${size} bytes, the checkpoint ${byteLength}`);
  }
  for (const name of regions.keys())
    if (!stored.some((one) => one.name === name)) throw mismatch(`the checkpointer has a region ${name}, the checkpoint has not`);
}

function describe(name: string, { region, known, shadow }: RestoreInput, storedBytes: number): RestoreRequest['regions'][number] {
  const changed = union(known ? region.scan(false) : region.writtenOrPopulated(), region.poisoned());
  return {
    name,
    native: region.nativeId,
    byteLength: Math.max(region.byteLength, storedBytes),
    known,
    changed,
    shadow: shadow?.handle() ?? null,
    lazy: 0,
  };
}

function growAll(regions: Map<string, RestoreInput>, stored: { name: string; byteLength: number }[]): void {
  for (const { name, byteLength } of stored) {
    const { region } = regions.get(name)!;
    try {
      region.grow(byteLength);
    } catch (cause) {
      throw new TidemarkError(
        'TIDEMARK_REGION_MISMATCH',
        `region ${name} has ${region.byteLength} bytes and cannot grow to the ${byteLength} that are stored`,
        { cause, hint: 'make the memory with a larger maximum' },
      );
    }
  }
}

async function fill(
  job: RestoreJob,
  request: RestoreRequest,
  fresh: boolean,
): Promise<Pick<LazyBegun, 'filledPages' | 'zeroedPages'> & Partial<LazyBegun>> {
  // A region of a source that was moved when it grew has another id now.
  const regions = request.regions.map((region) => ({ ...region, native: job.regions.get(region.name)!.region.nativeId }));
  try {
    const filled: RestoreRequest = { ...request, regions, phase: 'fill' };
    if (job.lazy !== undefined) return await job.engine.call('restoreLazily', job.session, filled, job.lazy.request);
    const counts = await job.engine.call('restore', job.session, filled);
    await job.engine.call('adopt', job.session, request.uid);
    return counts;
  } catch (cause) {
    if (fresh && emptied(job.regions)) throw cause;
    for (const { region } of job.regions.values()) region.torn = true;
    throw new TidemarkError(
      'TIDEMARK_REGION_TORN',
      `the restore failed while it was changing the memory: ${(cause as Error).message}`,
      {
        cause,
        hint: 'the regions hold bytes of two states: restore a checkpoint before anything else',
      },
    );
  }
}

/** Takes out again what was filled into regions that had nothing in them. */
function emptied(regions: Map<string, RestoreInput>): boolean {
  try {
    for (const { region } of regions.values()) region.empty(Uint32Array.of(0, region.byteLength / PAGE_SIZE));
    return true;
  } catch {
    return false;
  }
}
