import { countPages, union, without } from '../chain/runs.js';
import { warn } from '../diagnostics.js';
import { TidemarkError } from '../errors.js';
import { fault } from '../faults.js';
import { addon, PAGE_SIZE } from '../kernel/addon.js';
import { capabilities, requireTracking } from '../kernel/capabilities.js';
import { isBoolean, isNumber, isOptions, option } from '../options.js';
import { describeFile, type MapOptions } from './file.js';
import { lostPages, openRegion, translate, translated } from './native.js';
import { describeSource, isWholePages, type RegionRange, type RegionSource, type Source, unaligned } from './source.js';

export interface AllocateOptions {
  /** A SharedArrayBuffer, to be posted to worker threads. Default: false. */
  shared?: boolean;
  /** 2 MiB pages: cheap to scan while idle, dear for random writers. The memory is populated at once. Default: false. */
  hugePages?: boolean;
}

/** @internal What the memory of a region descends from: a checkpoint, and the name the region had in it. */
export interface Lineage {
  name: string;
  uid: string;
}

const NO_RUNS = new Uint32Array(0);
const finalizer = new FinalizationRegistry<number>((id) => addon().regionClose(id));

/**
 * A page-aligned range of memory whose writes are tracked by the kernel, at about a microsecond for the first write to a page after it
 * was armed and nothing for the others (`userfaultfd(2)`, `UFFD_FEATURE_WP_ASYNC`; `PAGEMAP_SCAN`).
 *
 * Writes are seen whoever makes them: this thread, worker threads, the kernel (`read(2)` into the memory). Not seen are writes through
 * another mapping of the same file, by another process, or by O_DIRECT and io_uring into pinned pages.
 * A region belongs to the thread that made it.
 */
export class Region<B extends ArrayBufferLike = ArrayBufferLike> {
  readonly #source: Source;
  #id: number;
  #byteLength: number;
  #closed = false;
  /** The dirty set is unknown: everything counts as written. */
  #allDirty = false;
  /** Pages that became part of the region since they were last taken, and have content. */
  #arrived: Uint32Array = NO_RUNS;
  #owner: object | undefined;
  #torn = false;
  /** It was nothing but holes when it was armed, and was not armed again since: whatever has content was written, and is reported. */
  #pristine: boolean;
  /** @internal */
  lineage: Lineage | undefined;

  private constructor(source: Source, pristine = false) {
    requireTracking();
    this.#source = source;
    this.#pristine = pristine;
    this.#byteLength = source.byteLength ?? source.buffer().byteLength - source.byteOffset;
    this.#id = openRegion(this.#view());
    finalizer.register(this, this.#id, this);
  }

  /**
   * New memory, zeroed, rounded up to whole pages.
   * @throws {TidemarkError} `TIDEMARK_KERNEL_UNSUPPORTED`, `TIDEMARK_PERMISSION`
   */
  static allocate(byteLength: number, options?: AllocateOptions & { shared?: false }): Region<ArrayBuffer>;
  static allocate(byteLength: number, options: AllocateOptions & { shared: true }): Region<SharedArrayBuffer>;
  static allocate(byteLength: number, options?: AllocateOptions): Region;
  static allocate(byteLength: number, options: AllocateOptions = {}): Region {
    isNumber('byteLength', byteLength, 1, 2 ** 43);
    isOptions('Region.allocate', options, ['shared', 'hugePages']);
    const shared = option(options.shared, (value) => isBoolean('shared', value)) ?? false;
    const hugePages = option(options.hugePages, (value) => isBoolean('hugePages', value)) ?? false;
    requireTracking();
    const page = capabilities().hostPageSize;
    const size = Math.ceil(byteLength / page) * page;
    if (hugePages && shared) throw new TypeError('hugePages cannot be had for shared memory: V8 allocates it');
    if (hugePages && capabilities().reportsDroppedHuge === false) {
      throw new TidemarkError('TIDEMARK_KERNEL_UNSUPPORTED', 'this kernel does not report a dropped huge page', {
        hint: 'leave hugePages out, or use a newer kernel',
      });
    }
    let buffer: ArrayBufferLike;
    try {
      // N-API cannot wrap native memory as a SharedArrayBuffer; V8 aligns to pages what may grow.
      buffer = shared ? new SharedArrayBuffer(size, { maxByteLength: size }) : addon().allocate(size, hugePages);
    } catch (cause) {
      throw new RangeError(`${size} bytes of memory could not be had`, { cause });
    }
    return new Region({ buffer: () => buffer, byteOffset: 0, byteLength: size }, !hugePages);
  }

  /**
   * Memory that exists: a `WebAssembly.Memory` or a part of one, an `ArrayBuffer` or `SharedArrayBuffer` made with `maxByteLength`, or a view
   * of any of these that begins and ends at a page. Without a `byteLength` the region grows with its source.
   * @throws {TidemarkError} `TIDEMARK_UNALIGNED` for other memory (plain buffers share their pages with the allocator), `TIDEMARK_REGION_BUSY`
   * when a region has it already, `TIDEMARK_KERNEL_UNSUPPORTED`, `TIDEMARK_PERMISSION`
   */
  static of<B extends ArrayBufferLike = ArrayBufferLike>(source: RegionSource, range: RegionRange = {}): Region<B> {
    isOptions('Region.of', range, ['byteOffset', 'byteLength']);
    return new Region(describeSource(source, range)) as Region<B>;
  }

  /**
   * A file on tmpfs (in /dev/shm, or a memfd by its path /proc/self/fd/N), or a part of one, mapped shared: what is written to its `buffer` is in the
   * file. Unmapped when the buffer is collected.
   *
   * Seen are writes to this buffer. Not seen are those by other processes, through other mappings of the file, by write(2) to it, and holes made in it.
   * Who makes the file shorter takes the memory away: what a region finds out is `TIDEMARK_TRACKING_LOST`, what the program touches is SIGBUS.
   * @throws {TidemarkError} `TIDEMARK_KERNEL_UNSUPPORTED` for a file that is not memory (on a disk, hugetlb), `TIDEMARK_NOT_FOUND`, `TIDEMARK_PERMISSION`,
   * `TIDEMARK_UNALIGNED`, `TIDEMARK_NO_SPACE`; a `RangeError` where the file is too short
   */
  static map(path: string, options: MapOptions = {}): Region<ArrayBuffer> {
    return new Region<ArrayBuffer>(describeFile(path, options));
  }

  /** The whole buffer that holds the region; for a `WebAssembly.Memory` the current one. */
  get buffer(): B {
    return this.#source.buffer() as B;
  }

  /** Bytes. */
  get byteLength(): number {
    return this.#byteLength;
  }

  /** Bytes in a page, as page numbers count them: 4,096. */
  get pageSize(): number {
    return PAGE_SIZE;
  }

  /**
   * How many of its bytes are in huge pages (2 MiB) now: they are split as they are written, and by a restore.
   * @throws {TidemarkError} `TIDEMARK_CLOSED`, `TIDEMARK_TRACKING_LOST`
   */
  hugeBytes(): number {
    return translate(() => addon().regionHuge(this.#id, this.view()));
  }

  /**
   * The pages written since they were last armed, `[firstPage, pageCount, ...]`. Changes nothing.
   * @throws {TidemarkError} `TIDEMARK_CLOSED`, `TIDEMARK_TRACKING_LOST`
   */
  dirtyRanges(): Uint32Array {
    this.#open();
    return this.scan(false);
  }

  /**
   * The same, and arms them again, so that the next call tells what was written after this one.
   * @throws {TidemarkError} `TIDEMARK_REGION_BUSY` while a checkpointer has the region, `TIDEMARK_CLOSED`, `TIDEMARK_TRACKING_LOST`
   */
  takeDirtyRanges(): Uint32Array {
    this.#open();
    if (this.#owner !== undefined) {
      throw new TidemarkError(
        'TIDEMARK_REGION_BUSY',
        'a checkpointer has this region: what is taken here would be missing from its next checkpoint',
        { hint: 'use dirtyRanges()' },
      );
    }
    this.lineage = undefined;
    return this.scan(true);
  }

  /** Ends tracking. The memory stays as long as its buffer is referenced. Idempotent. @throws {TidemarkError} `TIDEMARK_REGION_BUSY` */
  close(): void {
    if (this.#closed) return;
    if (this.#owner !== undefined)
      throw new TidemarkError('TIDEMARK_REGION_BUSY', 'a checkpointer has this region', { hint: 'close the checkpointer first' });
    this.#closed = true;
    finalizer.unregister(this);
    addon().regionClose(this.#id);
  }

  // --- for checkpointers ----------------------------------------------------------------------------------

  /** @internal */
  get nativeId(): number {
    return this.#id;
  }

  /** @internal The region's memory as it is now. */
  view(): Uint8Array {
    this.#open();
    return this.#view();
  }

  /** @internal @throws `TIDEMARK_REGION_BUSY`, `TIDEMARK_CLOSED` */
  claim(owner: object): void {
    this.#open();
    if (this.#owner !== undefined)
      throw new TidemarkError('TIDEMARK_REGION_BUSY', 'another checkpointer has this region', { hint: 'close it first' });
    this.#owner = owner;
  }

  /** @internal */
  transferClaim(from: object, to: object): void {
    if (this.#owner === from) this.#owner = to;
  }

  /** @internal */
  release(owner: object): void {
    if (this.#owner === owner) this.#owner = undefined;
  }

  /** @internal A restore that failed half-way has left it with bytes of two states, or pages that were missing were lost. */
  get torn(): boolean {
    return this.#torn;
  }

  /** @internal */
  set torn(value: boolean) {
    this.#torn = value;
    if (value) this.lineage = undefined;
  }

  /** @internal A restore has made all of it what a checkpoint says: from here on only what the kernel reports was written. */
  settle(): void {
    this.#torn = false;
    this.#allDirty = false;
    this.#arrived = NO_RUNS;
  }

  /** @internal Makes pages zero, clean and armed. */
  empty(runs: Uint32Array): void {
    translate(() => addon().regionZero(this.#id, runs));
  }

  /** @internal The pages written since they were last armed; with `rearm` they are armed and no longer remembered. */
  scan(rearm: boolean): Uint32Array {
    this.#follow();
    let runs: Uint32Array;
    try {
      fault('capture.scan');
      runs = addon().regionScan(this.#id, this.#view(), rearm);
    } catch (error) {
      runs = this.#recoverTracking(error, rearm);
    }
    if (this.#allDirty) runs = without(Uint32Array.of(0, this.#byteLength / PAGE_SIZE), this.poisoned());
    else runs = union(runs, this.#arrived);
    if (rearm) {
      this.#pristine = false;
      this.#allDirty = false;
      this.#arrived = NO_RUNS;
    }
    return runs;
  }

  /** @internal The pages with content: all others are zero. */
  populated(): Uint32Array {
    // Looking at a GiB of armed holes one by one takes 25 ms, for they look like pages in swap.
    if (this.#pristine) return this.scan(false);
    return translate(() => addon().regionPopulated(this.#id, this.#view(), 0));
  }

  /** @internal The pages written since they were last armed, and those with content. */
  writtenOrPopulated(): Uint32Array {
    const written = this.scan(false);
    return this.#pristine ? written : union(written, this.populated());
  }

  /** @internal The same as `populated`, for who stores all of it. @throws {TidemarkError} `TIDEMARK_DAMAGED` where some of it cannot be read: it would be stored as zero */
  content(): Uint32Array {
    const poisoned = this.poisoned();
    if (poisoned.length === 0) return this.populated();
    throw new TidemarkError('TIDEMARK_DAMAGED', `${countPages(poisoned)} pages of the region could not be restored`, {
      hint: 'restore a checkpoint that is whole before all of it is stored',
    });
  }

  /** @internal The same pages for who is to read them all: what is missing of them is fetched first, which blocks; what cannot be had is left out, or with `whole` an error. */
  fetched(runs: Uint32Array, whole: boolean): Uint32Array {
    if (!translate(() => addon().regionFetch(this.#id, runs))) return runs;
    return whole ? this.content() : without(runs, this.poisoned());
  }

  /** @internal Settles when what a lazy restore has to fill is there, or cannot be had; whichever checkpointer has begun that. */
  filling: Promise<void> | undefined;

  /** @internal Pages that a lazy restore could not restore, and that cannot be read. */
  poisoned(): Uint32Array {
    return translate(() => addon().regionPoisoned(this.#id, false));
  }

  /** @internal A restore is about to put pages into it. Pages that cannot be read are zero from now on, and count as written. */
  beginFill(): void {
    this.#pristine = false;
    translate(() => addon().regionPoisoned(this.#id, true));
  }

  /** @internal Gives dirty pages back, so that every later scan reports them. Never fails: if the kernel refuses, everything counts as dirty. */
  giveBack(runs: Uint32Array): void {
    this.#pristine = false;
    if (this.#closed || runs.length === 0) return;
    try {
      addon().regionGiveBack(this.#id, this.#view(), runs);
    } catch (cause) {
      this.#allDirty = true;
      warn({ name: 'give-back-failed', message: 'pages could not be given back: all of the region counts as written', cause });
    }
  }

  /** @internal Whether `byteLength` can become larger. */
  get growable(): boolean {
    return this.#source.grow !== undefined && this.#source.byteLength === undefined;
  }

  /** @internal Its length now, with what its source has grown by. */
  currentByteLength(): number {
    this.#open();
    this.#follow();
    return this.#byteLength;
  }

  /** @internal Grows the source so that the region has at least `byteLength` bytes. */
  grow(byteLength: number): void {
    if (byteLength > this.#byteLength) this.#source.grow!(this.#source.byteOffset + byteLength);
    this.#follow();
  }

  #open(): void {
    if (this.#closed) throw new TidemarkError('TIDEMARK_CLOSED', 'the region is closed');
  }

  #view(): Uint8Array {
    const buffer = this.#source.buffer();
    const there = this.#source.available?.() ?? buffer.byteLength;
    if (this.#source.byteOffset + this.#byteLength > there) {
      // What is cut off a file is zero when that grows again, and no scan reports it.
      if (this.#source.available !== undefined) this.#allDirty = true;
      throw new TidemarkError('TIDEMARK_TRACKING_LOST', `the memory of the region has shrunk to ${there} bytes or was detached`, {
        hint: 'memory that is tracked, and the file behind it, must not be transferred or made shorter than the region; make a new region of it',
      });
    }
    return new Uint8Array(buffer, this.#source.byteOffset, this.#byteLength);
  }

  /** The source may have grown since the last look: the new part is tracked from now on, and what has content already counts as written. */
  #follow(): void {
    if (this.#source.byteLength !== undefined) return;
    const grown = this.#source.buffer().byteLength - this.#source.byteOffset;
    if (grown <= this.#byteLength) return;
    if (!isWholePages(grown)) throw unaligned(`the memory has grown by a part of a page, to ${grown} bytes`);
    const before = this.#byteLength;
    this.#byteLength = grown;
    try {
      this.#extend();
    } catch (error) {
      this.#byteLength = before;
      throw error;
    }
    // The kernel tells what of it has content; what was dropped there is zero, and was zero before.
    try {
      const arrived = addon().regionPopulated(this.#id, this.#view(), before / PAGE_SIZE);
      this.#arrived = union(this.#arrived, arrived);
    } catch (error) {
      this.#allDirty = true;
      throw translated(error);
    }
  }

  #extend(): void {
    try {
      addon().regionExtend(this.#id, this.#view());
    } catch (error) {
      if ((error as { code?: string }).code !== 'ERR_MOVED') throw translated(error);
      // V8 moves a WebAssembly.Memory that it could not reserve address space for: other pages, nothing known of them.
      addon().regionClose(this.#id);
      this.#id = openRegion(this.#view());
      finalizer.unregister(this);
      finalizer.register(this, this.#id, this);
      this.#allDirty = true;
      warn({ name: 'memory-moved', message: 'the memory was moved when it grew: all of it counts as written', cause: error });
    }
  }

  /** Any error of a scan means that the dirty set is unknown; EPERM, that part of the range is not tracked any more. */
  #recoverTracking(error: unknown, rearm: boolean): Uint32Array {
    const { code } = error as { code?: string };
    const isKept = code === 'ERR_CLOSED' || code === 'ERR_MOVED' || code === 'ERR_INACCESSIBLE';
    if (isKept || error instanceof TidemarkError) throw translated(error);
    this.#pristine = false;
    this.#allDirty = true;
    warn({ name: 'tracking-reset', message: 'a scan has failed: all of the region counts as written', cause: error });
    translate(() => addon().regionReset(this.#id, this.#view()));
    const lost = countPages(this.poisoned());
    if (lost > 0) this.torn = true;
    if (lost > 0 && rearm) throw lostPages(lost, error);
    return NO_RUNS;
  }
}
