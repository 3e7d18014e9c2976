/**
 * A program that uses the package as it is published. It is compiled by declarations.test.ts, never run: `@ts-expect-error` stands where the
 * compiler must refuse what is misuse, and is an error itself where it does not.
 */
import {
  type AllocateOptions,
  type Capabilities,
  type Checkpoint,
  type CheckpointAttachment,
  Checkpointer,
  type CheckpointerOptions,
  type CheckpointerStats,
  type CheckpointOptions,
  type CheckpointRegion,
  CheckpointStore,
  type CheckpointTimings,
  capabilities,
  Engine,
  type EngineOptions,
  type EngineStats,
  type Json,
  type ListOptions,
  type MapOptions,
  type PrecopyOptions,
  type Progress,
  Region,
  type RegionRange,
  type RegionSource,
  type Restoration,
  type RestoreOptions,
  type RestoreStats,
  type Snapshot,
  type StoreOptions,
  type Target,
  TidemarkError,
  type TidemarkErrorCode,
  type TidemarkErrorOptions,
  type VerifyProblem,
  type VerifyReport,
  type Warning,
  type WasmMemory,
} from 'tidemark';

/** Fails to compile when the types are not the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(_: Same<A, B>): void {}

// --- regions: of each source -----------------------------------------------------------------------------

const plain = Region.allocate(4096);
const shared = Region.allocate(4096, { shared: true });
same<typeof plain, Region<ArrayBuffer>>(true);
same<typeof shared, Region<SharedArrayBuffer>>(true);
same<typeof plain.buffer, ArrayBuffer>(true);
same<typeof shared.buffer, SharedArrayBuffer>(true);
const allocateOptions: AllocateOptions = { hugePages: true };
Region.allocate(4096, allocateOptions);
// @ts-expect-error no such option
Region.allocate(4096, { huge: true });
// @ts-expect-error bytes are a number
Region.allocate('4096');
const mapOptions: MapOptions = { byteOffset: 0, byteLength: 4096, create: true };
const file = Region.map('/dev/shm/state', mapOptions);
same<typeof file, Region<ArrayBuffer>>(true);
// @ts-expect-error no such option
Region.map('/dev/shm/state', { length: 4096 });
// @ts-expect-error a path is a string
Region.map(5);
same<ReturnType<typeof plain.hugeBytes>, number>(true);
// @ts-expect-error regions are made by allocate, map and of
new Region();

declare const memory: WasmMemory;
const range: RegionRange = { byteOffset: 0, byteLength: 65536 };
const sources: RegionSource[] = [memory, new ArrayBuffer(1), new SharedArrayBuffer(1), new Uint8Array(1), Buffer.alloc(1)];
for (const source of sources) Region.of(source, range);
Region.of(memory);
same<ReturnType<typeof plain.dirtyRanges>, Uint32Array>(true);
// @ts-expect-error another view must be given as a Uint8Array
Region.of(new Float64Array(1));
// @ts-expect-error not memory
Region.of('memory');
// @ts-expect-error no such option
Region.of(memory, { offset: 0 });
// @ts-expect-error read only
plain.byteLength = 1;
// @ts-expect-error internal
plain.claim({});
// @ts-expect-error internal
void plain.lineage;

// --- engine ----------------------------------------------------------------------------------------------

const engineOptions: EngineOptions = { workers: 1, maxStagingBytes: 4 << 20, stallMs: 1000 };
const engine: Engine = new Engine(engineOptions);
const engineStats: EngineStats = Engine.shared.stats();
void (engineStats.workers + engineStats.stagingBytes + engineStats.stagingFreeBytes + engineStats.checkpointers);
// @ts-expect-error no such option
new Engine({ threads: 1 });
// @ts-expect-error internal
engine.call('find');
// @ts-expect-error internal
void engine.workers;

// --- checkpointer: region names --------------------------------------------------------------------------

const options: CheckpointerOptions<'heap' | 'stack'> = { regions: { heap: plain, stack: shared }, durability: 'relaxed' };
const checkpointer = await Checkpointer.open('./state', options);
same<typeof checkpointer, Checkpointer<'heap' | 'stack'>>(true);
const inferred = await Checkpointer.open('./state', {
  regions: { heap: plain, stack: shared },
  branch: 'main',
  compressionLevel: 1,
  fingerprint: 'x',
  startOver: true,
  engine,
});
same<typeof inferred, Checkpointer<'heap' | 'stack'>>(true);
// @ts-expect-error regions are needed
await Checkpointer.open('./state', {});
// @ts-expect-error not a region
await Checkpointer.open('./state', { regions: { heap: memory } });
// @ts-expect-error no such durability
await Checkpointer.open('./state', { regions: { heap: plain }, durability: 'none' });
// @ts-expect-error no such option
await Checkpointer.open('./state', { regions: { heap: plain }, interval: 5 });
// @ts-expect-error not a store
await Checkpointer.open(5, { regions: { heap: plain } });

const checkpointOptions: CheckpointOptions<'heap' | 'stack'> = {
  label: 'one',
  metadata: { step: 1, list: [null, 'x'] },
  attachments: { notes: new Uint8Array(1), more: Buffer.from('x') },
  lengths: { heap: 17 },
  durability: 'sync',
  ifChanged: true,
  signal: AbortSignal.timeout(1000),
};
const checkpoint: Checkpoint = await checkpointer.checkpoint(checkpointOptions);
await checkpointer.checkpoint({ lengths: { heap: 1, stack: 2 } });
// @ts-expect-error no such region
await checkpointer.checkpoint({ lengths: { wrong: 1 } });
// @ts-expect-error bytes are a number
await checkpointer.checkpoint({ lengths: { heap: '1' } });
// @ts-expect-error an attachment is a Uint8Array
await checkpointer.checkpoint({ attachments: { notes: 'text' } });
// @ts-expect-error a signal, not its controller
await checkpointer.checkpoint({ signal: new AbortController() });
// @ts-expect-error no such option
await checkpointer.checkpoint({ lable: 'x' });
const precopyOptions: PrecopyOptions = { signal: AbortSignal.timeout(1000) };
same<Awaited<ReturnType<typeof checkpointer.precopy>>, void>(true);
await checkpointer.precopy(precopyOptions);
same<Awaited<ReturnType<typeof checkpointer.flush>>, Checkpoint | undefined>(true);
same<typeof checkpointer.head, Checkpoint | undefined>(true);
// @ts-expect-error read only
checkpointer.base = checkpoint;

const detached: Region = checkpointer.detach('stack');
checkpointer.attach('stack', detached);
// @ts-expect-error no such region
checkpointer.detach('wrong');
// @ts-expect-error a name that `open` was not given
checkpointer.attach('more', plain);
const open = await Checkpointer.open<string>('./state', { regions: { heap: plain } });
open.attach('more', shared);
const stats: CheckpointerStats = checkpointer.stats();
void (stats.checkpoints + stats.failed + stats.inFlight + stats.pages + stats.rawBytes + stats.storedBytes + stats.captureMs.max);

// --- restore ---------------------------------------------------------------------------------------------

const restoreOptions: RestoreOptions<'heap' | 'stack'> = {
  regions: ['heap'],
  signal: AbortSignal.timeout(1000),
  onProgress: ({ donePages, totalPages }: Progress) => void (donePages / totalPages),
};
const restoration: Restoration = await checkpointer.restore('main~3', restoreOptions);
await checkpointer.restore(undefined, { regions: ['heap', 'stack'] as const });
const targets: Target[] = [17, '17', 'main~3', {}, { branch: 'main', back: 3 }, { back: 1 }];
for (const target of targets) await checkpointer.restore(target);
// @ts-expect-error no such region
await checkpointer.restore(1, { regions: ['wrong'] });
// @ts-expect-error no such option
await checkpointer.restore(1, { only: ['heap'] });
// @ts-expect-error no target
await checkpointer.restore(null);
// @ts-expect-error no target
await checkpointer.restore({ name: 'main' });
// @ts-expect-error no target
await checkpointer.restore({ branch: 1 });
await restoration.done;
same<typeof restoration.checkpoint, Checkpoint>(true);
same<Awaited<ReturnType<typeof restoration.attachment>>, Uint8Array>(true);
const restoreStats: RestoreStats = restoration.stats();
void (restoreStats.inPlace ? restoreStats.filledPages : restoreStats.zeroedPages + restoreStats.ms);
// @ts-expect-error the name is needed
await restoration.attachment();

// --- a checkpoint ----------------------------------------------------------------------------------------

const regionOf: CheckpointRegion | undefined = checkpoint.regions.heap;
const attachmentOf: CheckpointAttachment | undefined = checkpoint.attachments.notes;
const timings: CheckpointTimings = checkpoint.timings;
const metadata: Json | undefined = checkpoint.metadata;
same<typeof checkpoint.kind, 'full' | 'incremental'>(true);
same<typeof checkpoint.parent, number | null>(true);
same<typeof checkpoint.createdAt, Date>(true);
same<typeof checkpoint.label, string | undefined>(true);
void [regionOf?.pages, attachmentOf?.sha256, timings.captureMs, metadata];
// @ts-expect-error it may not have that region
void checkpoint.regions.heap.pages;

// --- stores and snapshots --------------------------------------------------------------------------------

const storeOptions: StoreOptions = { createIfMissing: true, engine };
const store = await CheckpointStore.open('./state', storeOptions);
await Checkpointer.open(store, { regions: { heap: plain } });
const listOptions: ListOptions = { branch: 'main', since: new Date(), until: new Date(), reverse: true, limit: 5 };
for await (const one of store.checkpoints(listOptions)) same<typeof one, Checkpoint>(true);
same<Awaited<ReturnType<typeof store.find>>, Checkpoint | undefined>(true);
const snapshot: Snapshot = await store.at('main');
same<Awaited<ReturnType<typeof snapshot.read>>, Uint8Array>(true);
for await (const piece of snapshot.stream('heap', { byteOffset: 0, byteLength: 5 })) same<typeof piece, Uint8Array>(true);
same<Awaited<ReturnType<typeof snapshot.attachment>>, Uint8Array>(true);
const differences: Record<string, Uint32Array> = await store.diff('main~1', { branch: 'main', time: new Date() });
const forked: Checkpoint = await store.fork('main', 'other');
await store.label('release', forked.id, { move: true });
const labels: readonly string[] = forked.labels;
// @ts-expect-error a time is a Date
await store.find({ branch: 'main', time: 0 });
// @ts-expect-error no such option
await store.label('release', 1, { force: true });
const report: VerifyReport = await store.verify({ readData: false });
const problem: VerifyProblem | undefined = report.problems[0];
void [store.path, problem?.code, problem?.pages, differences, labels];
// @ts-expect-error stores are opened
new CheckpointStore('./state');
// @ts-expect-error a date, not its milliseconds
store.checkpoints({ since: Date.now() });
// @ts-expect-error no such option
await store.verify({ data: true });
// @ts-expect-error a number of bytes is needed
await snapshot.read('heap', 0);
// @ts-expect-error internal
void store.engine;

// --- errors, capabilities, diagnostics, disposal ---------------------------------------------------------

try {
  await checkpointer.checkpoint();
} catch (error) {
  if (!(error instanceof TidemarkError)) throw error;
  const code: TidemarkErrorCode = error.code;
  if (error.code === 'TIDEMARK_NO_SPACE') void [error.hint?.length, error.retryable, error.cause, code];
  // @ts-expect-error no such code
  if (error.code === 'TIDEMARK_OOPS') throw error;
}
const errorOptions: TidemarkErrorOptions = { hint: 'x', cause: 1, retryable: true };
new TidemarkError('TIDEMARK_CLOSED', 'closed', errorOptions);
// @ts-expect-error no such code
new TidemarkError('CLOSED', 'closed');
const found: Capabilities = capabilities();
void [found.tracking, found.problems.length];
// @ts-expect-error frozen
found.tracking = true;
declare const warning: Warning;
same<typeof warning.message, string>(true);
const disposables: AsyncDisposable[] = [checkpointer, store, snapshot];
for (const disposable of disposables) await disposable[Symbol.asyncDispose]();
await engine.close();
