import type { Json } from '../chain/manifest.js';
import { CheckpointStore } from '../chain/store.js';
import { parseTarget, type Target } from '../chain/target.js';
import { Engine } from '../engine/engine.js';
import type { PlainTarget } from '../engine/protocol.js';
import { isBoolean, isName, isNumber, isOptions, isPath, isSignal, isString, oneOf, option } from '../options.js';
import { Region } from '../region/region.js';
import type { Progress } from '../restore/restore.js';
import { checkAttachments } from './attachments.js';
import type { Member } from './members.js';

export interface CheckpointerOptions<N extends string = string> {
  /** The memory, by name. All of it is captured at one moment. */
  regions: Record<N, Region>;
  /** Default: `'main'`. One checkpointer per branch at a time. */
  branch?: string;
  /** `'sync'` (default): a resolved checkpoint survives power loss. `'relaxed'`: it survives the death of the process. */
  durability?: 'sync' | 'relaxed';
  /** zstd level, -7 to 19. Default: 1. */
  compressionLevel?: number;
  /**
   * Store what changed in a page instead of the page, where that is smaller; uses the engine's `maxShadowBytes`. A store may hold checkpoints taken with it and without.
   * Default: true.
   */
  deltas?: boolean;
  /**
   * Store with each checkpoint that follows a lazy restore in which order pages were first touched after that (as the attachment `tidemark.working-set`; by reference while it is the same). The next lazy
   * restore fills these first, about in that order. Up to 65,536 pages. While it is on, a lazy restore fills nothing else as long as pages are touched within 20 ms of each
   * other, for up to 5 s: touches of pages that are there are not seen. Default: false.
   */
  workingSet?: boolean;
  /** Of the program that gives the memory its meaning; a restore of a checkpoint with another one is refused. */
  fingerprint?: string;
  /** Allow a full checkpoint on a branch that has history but was not restored. Default: false. */
  startOver?: boolean;
  /** Default: the engine of the store, or `Engine.shared`. */
  engine?: Engine;
}

export interface CheckpointOptions<N extends string = string> {
  /** A name for the checkpoint (`[A-Za-z_][\w.-]{0,127}`, as for branches and regions), unique among labels and branches of the store. */
  label?: string;
  /** Anything that JSON can say, up to 64 KiB; taken in the call. */
  metadata?: unknown;
  /** How many bytes of a region mean something, from its start. Default: all of it. */
  lengths?: Partial<Record<N, number>>;
  /** Default: the checkpointer's. */
  durability?: 'sync' | 'relaxed';
  /**
   * Bytes to be stored beside the memory, by name, up to 1 GiB each: hashed and copied in the call; what is the same as in the checkpoint before is stored
   * by reference.
   */
  attachments?: Record<string, Uint8Array>;
  /**
   * Take none if no page was written since the newest checkpoint, and sizes and attachments are as in that: the promise gives that one then. `metadata` and
   * `lengths` alone do not make a difference, a `label` does. Default: false.
   */
  ifChanged?: boolean;
  /** Aborted before it is committed, the checkpoint fails with `TIDEMARK_ABORTED`, and what was captured after it, too; nothing is lost. */
  signal?: AbortSignal;
}

export interface PrecopyOptions {
  /** Ends it; what has been stored stays stored. */
  signal?: AbortSignal;
}

export interface RestoreOptions<N extends string = string> {
  /** Only these; what else the checkpoint has is not restored, and what else the checkpointer has is left as it is and stored whole by the next checkpoint. */
  regions?: readonly N[];
  /**
   * Resolve as soon as the regions can be used, and fill them when they are touched and in between; `done` of what it resolves with says when everything is there. No page is read before, so what
   * cannot be restored is found later: those pages cannot be read (SIGBUS), and `done` rejects. `true` needs a userfaultfd that serves faults of the kernel, too (`capabilities().kernelFaults`);
   * with `'user-faults'` system calls that touch a page which is not there yet fail with EFAULT where the process has none: see `ensureResident`. Default: false.
   */
  lazy?: boolean | 'user-faults';
  /** Works until the first page is changed; where nothing was in the memory, until the end. */
  signal?: AbortSignal;
  /** Called now and then with what is done. What it throws is an uncaught exception, as from any listener of events. */
  onProgress?: (progress: Progress) => void;
}

const METADATA_BYTES = 64 << 10;
const OPTIONS = [
  'regions',
  'branch',
  'durability',
  'compressionLevel',
  'deltas',
  'workingSet',
  'fingerprint',
  'startOver',
  'engine',
];
const DURABILITIES = ['sync', 'relaxed'] as const;

/** Options of a checkpointer, checked and with their defaults. */
export interface Checked<N extends string> {
  regions: Map<N, Region>;
  branch: string;
  durability: 'sync' | 'relaxed';
  level: number;
  deltas: boolean;
  workingSet: boolean;
  fingerprint: string | undefined;
  startOver: boolean;
  /** For the store that is opened by path. */
  engine: { engine?: Engine };
}

/** @throws {TypeError | RangeError} */
export function checkOptions<N extends string>(store: unknown, options: CheckpointerOptions<N>): Checked<N> {
  if (!(store instanceof CheckpointStore) && typeof store !== 'string')
    throw new TypeError('store must be a path or a CheckpointStore');
  if (typeof store === 'string') isPath('store', store);
  isOptions('Checkpointer.open', options, OPTIONS);
  const regions = new Map<N, Region>();
  if (typeof options.regions !== 'object' || options.regions === null || Array.isArray(options.regions))
    throw new TypeError('regions must be an object of regions by name');
  for (const [name, region] of Object.entries(options.regions) as [N, Region][]) {
    isName('region name', name);
    if (!(region instanceof Region)) throw new TypeError(`regions.${name} must be a Region`);
    regions.set(name, region);
  }
  if (regions.size === 0) throw new TypeError('regions must name at least one region');
  if (new Set(regions.values()).size !== regions.size) throw new TypeError('regions must not name one region twice');
  const { engine } = options;
  if (engine !== undefined && !(engine instanceof Engine)) throw new TypeError('engine must be an Engine');
  if (engine !== undefined && store instanceof CheckpointStore && store.engine !== engine)
    throw new TypeError('the store was opened with another engine');
  return {
    regions,
    branch: option(options.branch, (value) => isName('branch', value)) ?? 'main',
    durability: option(options.durability, (value) => oneOf('durability', value, DURABILITIES)) ?? 'sync',
    level: option(options.compressionLevel, (value) => isNumber('compressionLevel', value, -7, 19)) ?? 1,
    deltas: option(options.deltas, (value) => isBoolean('deltas', value)) ?? true,
    workingSet: option(options.workingSet, (value) => isBoolean('workingSet', value)) ?? false,
    fingerprint: option(options.fingerprint, (value) => isString('fingerprint', value)),
    startOver: option(options.startOver, (value) => isBoolean('startOver', value)) ?? false,
    engine: engine === undefined ? {} : { engine },
  };
}

/** What a call of `checkpoint` asks for. */
export interface CheckedCheckpoint {
  lengths: Map<string, number>;
  info: { label?: string; metadata?: Json; fingerprint?: string };
  durability: 'sync' | 'relaxed';
  attachments: Map<string, Uint8Array>;
  ifChanged: boolean;
  signal: AbortSignal | undefined;
}

/** Checks a call of `checkpoint` and takes what must be taken in the call. @throws {TypeError | RangeError} */
export function checkCheckpoint<N extends string>(
  options: CheckpointOptions<N>,
  checkpointer: Checked<N>,
  members: readonly Member[],
): CheckedCheckpoint {
  isOptions('checkpoint', options, ['label', 'metadata', 'lengths', 'durability', 'attachments', 'ifChanged', 'signal']);
  if (members.length === 0) throw new TypeError('there is no region to be checkpointed: attach one');
  const { fingerprint } = checkpointer;
  const info: CheckedCheckpoint['info'] = {};
  if (options.label !== undefined) info.label = isName('label', options.label);
  if (options.metadata !== undefined) info.metadata = copyMetadata(options.metadata);
  if (fingerprint !== undefined) info.fingerprint = fingerprint;
  const durability = option(options.durability, (value) => oneOf('durability', value, DURABILITIES)) ?? checkpointer.durability;
  const given: Partial<Record<string, number>> = options.lengths === undefined ? {} : options.lengths;
  isOptions(
    'lengths',
    given,
    members.map(({ name }) => name),
  );
  const lengths = new Map<string, number>();
  for (const { name, region } of members) {
    // A region may be named like something that every object inherits.
    if (!Object.hasOwn(given, name)) continue;
    const length = option(given[name], (value) => isNumber(`lengths.${name}`, value, 0, region.currentByteLength()));
    if (length !== undefined) lengths.set(name, length);
  }
  return {
    lengths,
    info,
    durability,
    attachments: options.attachments === undefined ? new Map() : checkAttachments(options.attachments),
    ifChanged: option(options.ifChanged, (value) => isBoolean('ifChanged', value)) ?? false,
    signal: option(options.signal, isSignal),
  };
}

/** What a call of `restore` asks for. */
export interface CheckedRestore {
  target: PlainTarget | null;
  /** Undefined: all there are. */
  asked: Member[] | undefined;
  lazy: boolean;
  /** A lazy restore need not serve faults of the kernel. */
  userFaults: boolean;
  signal: AbortSignal | undefined;
  onProgress: RestoreOptions['onProgress'];
}

/** Checks a call of `restore`, and takes what is in its objects: they may change before its turn comes. @throws {TypeError | RangeError} */
export function checkRestore(target: Target | undefined, options: RestoreOptions, members: readonly Member[]): CheckedRestore {
  isOptions('restore', options, ['regions', 'lazy', 'signal', 'onProgress']);
  const { regions, lazy, onProgress, signal } = options;
  if (lazy !== undefined && lazy !== 'user-faults') isBoolean('lazy', lazy);
  if (onProgress !== undefined && typeof onProgress !== 'function') throw new TypeError('onProgress must be a function');
  return {
    target: target === undefined ? null : parseTarget(target),
    asked: regions === undefined ? undefined : checkAsked(regions, members),
    lazy: lazy !== undefined && lazy !== false,
    userFaults: lazy === 'user-faults',
    signal: option(signal, isSignal),
    onProgress,
  };
}

function checkAsked(regions: unknown, members: readonly Member[]): Member[] {
  if (!Array.isArray(regions) || regions.length === 0) throw new TypeError('regions must be an array of names');
  const asked = new Set(regions.map((name) => isName('regions', name)));
  for (const name of asked) {
    if (!members.some((member) => member.name === name)) throw new TypeError(`regions: the checkpointer has no region ${name}`);
  }
  return members.filter(({ name }) => asked.has(name));
}

function copyMetadata(metadata: unknown): Json {
  let text: string | undefined;
  try {
    text = JSON.stringify(metadata);
  } catch (cause) {
    throw new TypeError(`metadata must be something that JSON can say: ${(cause as Error).message}`, { cause });
  }
  if (text === undefined) throw new TypeError('metadata must be something that JSON can say');
  const bytes = Buffer.byteLength(text);
  if (bytes > METADATA_BYTES) throw new RangeError(`metadata must be at most ${METADATA_BYTES} bytes of JSON, not ${bytes}`);
  return JSON.parse(text) as Json;
}
