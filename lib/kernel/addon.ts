import { createRequire } from 'node:module';
import { TidemarkError } from '../errors.js';

/** Runs of pages whose versions lie in consecutive slots of a record, field by field. */
export interface RunColumns {
  readonly records: Float64Array;
  readonly firsts: Uint32Array;
  readonly lengths: Uint32Array;
  /** Of the first page. */
  readonly slots: Uint8Array;
}

/** A layer of a page table of a level. */
export interface LayerColumns extends RunColumns {
  readonly kinds: Uint8Array;
  /** Pages of all runs that do not become zero. */
  readonly stored: number;
  /** Those of them that are deltas. */
  readonly deltas: number;
}

/** A list of extents; of each one run or more. */
export interface ExtentColumns extends RunColumns {
  /** Of each extent: the slots it has, and where its runs end. */
  readonly counts: Uint16Array;
  readonly ends: Uint32Array;
  /** Of all together. */
  readonly pageCount: number;
}

/** Of `tableAddRuns`: go on with larger arrays, and the same counters. */
export const NO_ROOM = -1;

/**
 * What versions are added to: the bytes of VersionColumns, then fields of OlderVersions. `counters` goes in and comes out: nodes of the pool in use; pages that only have
 * deltas so far; versions that were added by a call which ran out of room, where the next one goes on (0 else).
 */
export type LoadingColumns = [
  table: Uint8Array,
  pool: Uint8Array,
  first: Uint32Array,
  last: Uint32Array,
  counts: Uint8Array,
  counters: Uint32Array,
];

/**
 * The typed door to the native addon: every verb it has, and nothing else.
 *
 * Conventions that hold for all of them:
 * - Pages are the store's pages of 4 KiB, numbered from the start of the region. Sets of pages are
 *   `Uint32Array`s of runs, `[firstPage, pageCount, ...]`, ascending and not touching.
 * - Regions, rings and locks are ids in process-wide native registries; an id that is unknown or closed
 *   throws an `Error` with code `ERR_CLOSED`. No address crosses this boundary.
 * - `view` is the memory of the region as JavaScript sees it now. Native code compares its address with the
 *   registered one and throws `ERR_MOVED` when they differ (the buffer was detached, transferred or shrunk),
 *   so a stale address is never dereferenced.
 * - A failed system call throws an `Error` with `code` (`'EPERM'`), `errno` and `syscall`
 *   (`'ioctl(PAGEMAP_SCAN)'`). Arguments of a wrong type throw a `TypeError`.
 */
export interface Addon {
  // --- capabilities -------------------------------------------------------------------------------------
  /** Probes by behaviour with throw-away descriptors and mappings; never throws. */
  probe(): RawCapabilities;

  // --- memory -------------------------------------------------------------------------------------------
  /** A private anonymous mapping as an ArrayBuffer; unmapped when it is collected. `hugePages`: 2 MiB aligned, MADV_HUGEPAGE, populated. */
  allocate(byteLength: number, hugePages: boolean): ArrayBuffer;
  /**
   * A part of a file on tmpfs (memfds are such files) mapped shared, as an ArrayBuffer; unmapped when it is collected. `byteLength` 0: to the end. `create`: make it
   * where it is missing, lengthen it where it is too short. ERR_UNTRACKABLE: a file of another kind. ERR_UNALIGNED. RangeError: the file is too short.
   */
  mapFile(path: string, byteOffset: number, byteLength: number, create: boolean): ArrayBuffer;
  /** How many bytes of memory that `mapFile` made its file still has (else the length of `view`): to touch what lies behind is SIGBUS. */
  mappedBytes(view: Uint8Array): number;
  /** For the tests: what programs do to memory behind our back (`MemoryChange`). */
  memoryChange(view: Uint8Array, how: number): void;

  // --- region: tracking ---------------------------------------------------------------------------------
  /** Registers `view` for write-protection with a userfaultfd of its own and arms all of it. EBUSY: tracked already. ERR_UNALIGNED. */
  regionOpen(view: Uint8Array): number;
  /** The memory grew in place to `view`: registers and arms what is new. */
  regionExtend(id: number, view: Uint8Array): void;
  /** Starts over after EPERM from a scan: unregisters, registers and arms everything. All pages count as dirty afterwards. */
  regionReset(id: number, view: Uint8Array): void;
  /** Ends tracking; waits for operations of other threads on it. Idempotent. Closed by itself when the environment that opened it ends. */
  regionClose(id: number): void;
  /** The pages written since they were armed; `rearm` arms them again in the same step. Any error means that the dirty set is unknown. */
  regionScan(id: number, view: Uint8Array, rearm: boolean): Uint32Array;
  /** The pages from `fromPage` on that have content of their own (present or swapped); the others are zero. */
  regionPopulated(id: number, view: Uint8Array, fromPage: number): Uint32Array;
  /** How many bytes of it are in huge pages. */
  regionHuge(id: number, view: Uint8Array): number;
  /** Takes the protection off, so that every later scan reports these pages: gives dirty bits back. */
  regionGiveBack(id: number, view: Uint8Array, runs: Uint32Array): void;

  // --- region: content ----------------------------------------------------------------------------------
  /**
   * Copies dirty pages into staging, several threads at once, one segment of up to `SEGMENT_PAGES` dirty pages each.
   * Dirty pages are numbered in the order of `runs`; the copy starts with number `skip` and goes on until all
   * `segments` are used. Segment `segments[k]` starts at `segments[k] * SEGMENT_STRIDE` in `staging`; its pages are
   * packed from `SEGMENT_HEADROOM` on. Pages that are all zero are not copied. For the k-th segment,
   * `counts[2k]` is the number of pages copied, `counts[2k+1]` the number of zero pages, `pages[k * SEGMENT_PAGES ...]`
   * holds the numbers of the copied pages from the front, ascending, followed by the zero ones, ascending.
   * Returns how many dirty pages were consumed.
   */
  copyPages(
    id: number,
    view: Uint8Array,
    runs: Uint32Array,
    skip: number,
    staging: Uint8Array,
    segments: Int32Array,
    pages: Uint32Array,
    counts: Uint32Array,
    threads: number,
  ): number;
  /**
   * Puts `pages` (ascending) into the region, page k from `source[k * 4096]`: UFFDIO_COPY with MODE_WP (present, clean, armed
   * in one step); a page that is present already is written through the kernel, armed at once, and given back if somebody else wrote to it in between. From any thread.
   */
  regionFill(id: number, source: Uint8Array, pages: Uint32Array): void;
  /** Makes these pages zero, clean and armed. From any thread. */
  regionZero(id: number, runs: Uint32Array): void;

  // --- region: lazy restore -----------------------------------------------------------------------------
  /**
   * Makes pages missing: they are dropped, and filled when they are touched. `onFaults` is called in this environment when faults wait that nobody was told of.
   * All of the region is clean and armed when it returns. When this environment ends, what is missing is poisoned. `userFaults`: faults of the kernel need
   * not come. Returns a number for the other verbs, which throw ERR_NOT_LAZY once the region is closed or has become lazy again. Throws ERR_SHARED, ERR_USER_MODE.
   */
  regionBecomeLazy(id: number, runs: Uint32Array, userFaults: boolean, onFaults: () => void): number;
  /** `onFaults` is not called any more, and what is missing is poisoned. In the environment that called `regionBecomeLazy`. Idempotent. */
  regionEndServing(lazy: number): void;
  /** Missing pages that were touched, each told once. */
  regionFaults(lazy: number): Uint32Array;
  /** Missing pages, ascending from `fromPage` on, and from the start where there is none; up to `most`. */
  regionMissing(lazy: number, fromPage: number, most: number): Uint32Array;
  /** Those of the pages (numbers) that are missing. */
  regionStillMissing(lazy: number, pages: Uint32Array): Uint32Array;
  /** Pages that are likely to be touched, in that order; what `regionTouched` gives begins with them. */
  regionExpect(lazy: number, pages: Uint32Array): void;
  /** Pages that were missing when they were touched, in that order, none twice; up to `most`. */
  regionTouched(lazy: number, most: number): Uint32Array;
  /**
   * Fills those of `pages` (ascending) that are missing, page k from `source[k * 4096]`, and puts their shadows in place before (`shadows` 0: none; `table`, `crcs`, `depths` as in
   * `shadowPut`). Returns how many. From any thread.
   */
  regionSupply(
    lazy: number,
    source: Uint8Array,
    pages: Uint32Array,
    byFault: boolean,
    shadows: number,
    table: number,
    crcs: Uint32Array,
    depths: Uint8Array,
  ): number;
  /** Those of the pages (runs) that are missing: who touches them gets SIGBUS, or EFAULT from a system call. */
  regionPoison(lazy: number, pages: Uint32Array): void;
  regionResidence(lazy: number): ResidenceStats;
  /** Waits, natively, until those of the pages (runs) of a region that are missing are there or poisoned; false where none was. Never in the thread that serves it. */
  regionFetch(id: number, pages: Uint32Array): boolean;
  /** The pages of a region that are poisoned, runs; with `drop` they are dropped, and are zero then. None where it never was lazy. */
  regionPoisoned(id: number, drop: boolean): Uint32Array;
  /** The process ends with this code: who touches a page that was poisoned because the thread that serves it has ended first ends it so, and not by SIGBUS. */
  exiting(code: number): void;

  // --- staging ring -------------------------------------------------------------------------------------
  /** Bookkeeping for `segments` staging segments (the memory itself is a SharedArrayBuffer that TypeScript makes). */
  ringCreate(segments: number): number;
  /** This environment serves the ring: when it ends, for whatever reason, waiters get ERR_DEAD at once. */
  ringJoin(id: number): void;
  /**
   * Up to `want` free segments, lowest first (they are warm), at least one; waits natively while there is none. Throws ERR_DEAD
   * when a thread that joined has ended, ERR_STALLED when nothing was released for `stallMs`.
   */
  ringAcquire(id: number, want: number, stallMs: number): Int32Array;
  ringRelease(id: number, segments: Int32Array): void;
  /** How many segments are free. */
  ringFree(id: number): number;
  /** True while somebody waits in `ringAcquire`. */
  ringStarved(id: number): boolean;
  ringClose(id: number): void;

  // --- shadows ------------------------------------------------------------------------------------------
  /** Copies of captured pages, `byteLength` of them at most, in one sparse mapping; `docs/architecture.md` says how they are used. */
  shadowsCreate(byteLength: number): number;
  /** This environment encodes with them: when it ends, who waits for its jobs gets ERR_DEAD. */
  shadowsJoin(shadows: number): void;
  /** Bytes in use. */
  shadowsUsed(shadows: number): number;
  /** Idempotent; jobs that are under way end as they may. */
  shadowsClose(shadows: number): void;
  /** A table for a region of a checkpointer. Its first generation is 0. */
  shadowOpen(shadows: number): number;
  shadowClose(shadows: number, table: number): void;
  /** Drops what checkpoints from `sequence` on have written (0: everything) and begins a new generation, whose number it returns: jobs of older ones neither use nor leave shadows. */
  shadowFail(shadows: number, table: number, sequence: number): number;
  /** Drops what one checkpoint of this generation has written, or will. */
  shadowDrop(shadows: number, table: number, sequence: number): void;
  shadowForget(shadows: number, table: number, runs: Uint32Array): void;
  /** Restored pages: `bytes` packed, with their CRC32Cs and how many deltas each is away from its full version. */
  shadowPut(shadows: number, table: number, pages: Uint32Array, bytes: Uint8Array, crcs: Uint32Array, depths: Uint8Array): void;
  /**
   * Waits for the job's turn, then compares the pages of a segment with their shadows and puts them in their place. `job`: `[table, generation,
   * turn, sequence, mode, maxDepth, maxWords]`, mode 0 written, 1 whole, 2 ahead (`ShadowMode`). Pages that are to be stored full are packed at the start of `bytes`, deltas in
   * `deltas`; `kinds` says what became of each (0 full, 1 delta, 2 unchanged), `crcs` its CRC32C, `bases` that of the shadow it was compared with (0: none).
   * Throws ERR_DEAD when a thread that has an earlier job has ended, ERR_CLOSED.
   */
  shadowEncode(
    shadows: number,
    job: Uint32Array,
    pages: Uint32Array,
    zeros: Uint32Array,
    bytes: Uint8Array,
    deltas: Uint8Array,
    kinds: Uint8Array,
    crcs: Uint32Array,
    bases: Uint32Array,
  ): void;
  /** Waits for the turn of a job that cannot be done, and ends it: jobs behind it wait for that. */
  shadowSkip(shadows: number, job: Uint32Array): void;
  /** For the tests: changes a byte in every shadow of a table. */
  shadowCorrupt(shadows: number, table: number): void;

  // --- assembling restored pages ------------------------------------------------------------------------
  /** Copies pages of a region to places in staging: place p is page p % 256 of segment `segments[p >> 8]`. From any thread. */
  regionRead(id: number, pages: Uint32Array, places: Uint32Array, staging: Uint8Array, segments: Int32Array): void;
  /** Copies the pages packed in `source` to their places, or with `combine` XORs them over what is there. From any thread. */
  assemblePages(source: Uint8Array, combine: boolean, places: Uint32Array, staging: Uint8Array, segments: Int32Array): void;

  // --- checksums ----------------------------------------------------------------------------------------
  /** CRC32C (Castagnoli, reflected, initial and final xor 0xffffffff); `crc` continues an earlier one. */
  crc32c(bytes: Uint8Array, crc?: number): number;
  /** The CRC32C of each 4 KiB page of `bytes` into `out`. */
  crc32cPages(bytes: Uint8Array, out: Uint32Array): void;
  /** Sum modulo 2^64 of mix64(region, page, crc) over the pages given; docs/format.md defines it. */
  stateSum(region: number, pages: Uint32Array, crcs: Uint32Array): bigint;
  /** The same over all stored pages of a page table. */
  tableSum(region: number, table: Uint8Array): bigint;

  // --- loops over page tables: a thread that has just started runs them slowly in JavaScript --------------
  /**
   * The list of extents that begins at `offset`, up to the CRC32Cs of its pages, which begin at `next`: there are 4 bytes for each. A string says why there cannot be a list.
   * Bounded by the bytes there are, whatever they claim.
   */
  decodeExtents(bytes: Uint8Array, offset: number, pageCount: number): (ExtentColumns & { next: number }) | string;
  /** A layer of so many runs, likewise. */
  decodeLayer(bytes: Uint8Array, offset: number, runs: number, mayBeZero: boolean): (LayerColumns & { next: number }) | string;
  /**
   * Adds versions to a page table that is filled from the newest checkpoint to the oldest, where a page has none yet, or deltas only. `crcs`: 4 bytes for each page that does not become zero, in a row; empty: older versions have none. Pages behind
   * the table are passed over. The page that would have more deltas than there may be, or NO_ROOM; undefined: all is well.
   */
  tableAddRuns(
    ...args: [
      ...LoadingColumns,
      levels: number,
      kinds: Uint8Array,
      records: Float64Array,
      firsts: Uint32Array,
      lengths: Uint32Array,
      slots: Uint8Array,
      crcs: Uint8Array,
    ]
  ): number | undefined;
  /** The stored pages of a page table, as runs. */
  tableStored(table: Uint8Array): Uint32Array;
  /** The pages of which two page tables do not have the same version, as runs. */
  tableDifferences(a: Uint8Array, b: Uint8Array): Uint32Array;
  /** `words[index]` for each index. */
  pick(words: Uint32Array, indices: Uint32Array): Uint32Array;

  // --- libraries ------------------------------------------------------------------------------------------
  /** Keeps loaded libraries whose path contains `part` in the process for good (dlopen(3), RTLD_NODELETE); how many. */
  keepLoaded(part: string): number;

  // --- the store's own lock -----------------------------------------------------------------------------
  /** flock(2) on `folder`/lock plus the process-wide registry by device and inode. Throws ERR_LOCKED_HERE or ERR_LOCKED_ELSEWHERE. Given up when the environment ends. */
  storeLock(folder: string): number;
  storeUnlock(id: number): void;
  /** fdatasync(2) on every `*.log` file in `folder`, then fsync of the folder; the number of files. A file that vanishes meanwhile is in a synced table. Blocks. */
  syncLogs(folder: string): number;

  // --- userfaultfd: the low-level door (lib/userfaultfd) ------------------------------------------------------
  /** A descriptor from /dev/userfaultfd or userfaultfd(2), with UFFDIO_API done. `features`: UFFD_FEATURE_* bits. Closed by itself when the environment ends. */
  uffdOpen(device: boolean, userModeOnly: boolean, features: number, keepForks: boolean, poisonAtClose: boolean): UffdOpened;
  /** The same answer from a throw-away descriptor; `id` is 0. */
  uffdOffered(device: boolean, userModeOnly: boolean): UffdOpened;
  /** Ends all registrations; waits for operations of other threads. Idempotent. */
  uffdClose(id: number): void;
  /** UFFDIO_REGISTER. The same memory again keeps its range; other memory that overlaps one is a RangeError. ERR_UNALIGNED. */
  uffdRegister(id: number, view: Uint8Array, mode: number): UffdRange;
  uffdUnregister(id: number, range: number, view: Uint8Array): void;
  /** The memory of the range is gone: the kernel is not asked. */
  uffdForget(id: number, range: number): void;
  /** All ranges; of a fork's object, those of its parent. */
  uffdRanges(id: number): UffdRange[];
  /**
   * The ioctls on parts of a range, one call to the kernel each, never repeated. `view` is the range's memory (an empty one for a fork's object, whose memory is in another process).
   * A RangeError outside the range or its pages, ERR_MOVED; what the kernel refuses is a value.
   */
  uffdWake(id: number, range: number, view: Uint8Array, byteOffset: number, byteLength: number, mode: 0): UffdOutcome;
  uffdCopy(id: number, range: number, view: Uint8Array, byteOffset: number, source: Uint8Array, mode: number): UffdOutcome;
  uffdMove(id: number, range: number, view: Uint8Array, byteOffset: number, source: Uint8Array, mode: number): UffdOutcome;
  uffdZeropage(id: number, range: number, view: Uint8Array, byteOffset: number, byteLength: number, mode: number): UffdOutcome;
  uffdWriteProtect(
    id: number,
    range: number,
    view: Uint8Array,
    byteOffset: number,
    byteLength: number,
    mode: number,
  ): UffdOutcome;
  uffdContinue(id: number, range: number, view: Uint8Array, byteOffset: number, byteLength: number, mode: number): UffdOutcome;
  uffdPoison(id: number, range: number, view: Uint8Array, byteOffset: number, byteLength: number, mode: number): UffdOutcome;
  /** Starts the thread that reads events. `callback` runs when there is something to take; it does not keep the environment alive. Once for an object. */
  uffdListen(id: number, callback: () => void): void;
  uffdKeepAlive(id: number, on: boolean): void;
  /** Events as ten numbers each: type, flags, thread, range (0: none known), byteOffset, byteLength, exact offset, range and offset where it was moved to, object of a fork (0: closed). */
  uffdTake(id: number): Float64Array;
  /** For the tests: a memfd, mapped twice. `hugePages`: of hugetlbfs, 2 MiB. */
  uffdMapTwice(byteLength: number, hugePages: boolean): [ArrayBuffer, ArrayBuffer];
  /** For the tests: mremap(2) of pages to where `to` is, with MREMAP_DONTUNMAP: both stay mapped. */
  uffdRemap(from: Uint8Array, to: Uint8Array): void;
  /** For the tests: maps fresh memory over the view. */
  uffdRenew(view: Uint8Array): void;
  /** For the tests: fork(2); the child reads the first byte of `view` and ends with it as its exit code. Gives its pid. */
  uffdFork(view: Uint8Array): number;
  /** For the tests: the exit code of a child, or its signal as a negative number; undefined while it runs. */
  uffdReap(pid: number): number | undefined;
}

export interface UffdOpened {
  id: number;
  /** Numbers of the UFFD_FEATURE_* bits that the kernel has. */
  features: number[];
  /** Numbers of the ioctls. */
  ioctls: number[];
}

export interface UffdRange {
  range: number;
  byteLength: number;
  /** UFFDIO_REGISTER_MODE_* bits that it has now. */
  mode: number;
  pageSize: number;
  ioctls: number[];
}

export interface UffdOutcome {
  /** What is done, from the beginning. */
  byteLength: number;
  /** The name of the errno, null: all is done. */
  error: string | null;
}

/** Faults and pages of a lazy restore since it began; waits in microseconds. */
export interface ResidenceStats {
  missing: number;
  poisoned: number;
  faults: number;
  byFault: number;
  ahead: number;
  worstWait: number;
  /** How many waits were so long: eighths of a doubling, from a microsecond on. */
  waits: Uint32Array;
}

/** What `probe()` found; `lib/kernel/capabilities.ts` turns it into the public, frozen object. */
export interface RawCapabilities {
  kernel: string;
  hostPageSize: number;
  /** How a descriptor could be had: '' when not at all. */
  descriptor: '' | 'device' | 'syscall' | 'syscall-user-mode';
  /** Why not, per way: errno names, '' when it worked or was not tried. */
  deviceError: string;
  syscallError: string;
  userModeError: string;
  /** All feature bits the kernel offers, as UFFD_FEATURE_* bits. */
  features: bigint;
  /** Faults raised inside the kernel can be served (needed for lazy restore later, not for tracking). */
  kernelFaults: boolean;
  pagemapScan: boolean;
  /** Registered, armed, written, scanned: exactly the written page was reported, and none after re-arming. */
  tracksWrites: boolean;
  /** A page dropped with MADV_DONTNEED is reported as written. */
  reportsDropped: boolean;
  /** A whole dropped 2 MiB huge page is reported; false where the kernel has that bug. null: no huge page could be had. */
  reportsDroppedHuge: boolean | null;
  /** UFFDIO_COPY with MODE_WP on a range registered for write-protection only leaves the page clean. */
  fillsArmed: boolean;
  /** UFFDIO_WRITEPROTECT mode 0 makes pages and holes reported again. */
  givesBack: boolean;
  /** The same as `tracksWrites` with a memfd, and a written page that is dropped from the page table stays reported. */
  tracksShared: boolean;
}

/** What `memoryChange` does to whole pages. */
export enum MemoryChange {
  /** MADV_DONTNEED. */
  drop,
  /** MADV_REMOVE. */
  remove,
  /** mprotect: read-only, and back. */
  protect,
  /** A forked child writes to them and ends. */
  fork,
  /** MADV_COLLAPSE: makes huge pages of them. */
  collapse,
}

/** Pages in one staging segment, hence at most in one extent. */
export const SEGMENT_PAGES = 256;
/** Free bytes before the pages of a segment: the extent's header and directory are written there. */
export const SEGMENT_HEADROOM = 4096;
export const SEGMENT_STRIDE = SEGMENT_HEADROOM + SEGMENT_PAGES * 4096;
/** The store's page, whatever the host's. */
export const PAGE_SIZE = 4096;

let loaded: Addon | undefined;

/**
 * Loads the addon the first time it is needed, so that importing tidemark works on any system.
 * @throws {TidemarkError} `TIDEMARK_KERNEL_UNSUPPORTED` when it was not built for this system.
 */
export function addon(): Addon {
  if (loaded === undefined) {
    try {
      loaded = createRequire(import.meta.url)('../../../native/build/Release/tidemark.node') as Addon;
    } catch (cause) {
      throw new TidemarkError(
        'TIDEMARK_KERNEL_UNSUPPORTED',
        `tidemark's native addon could not be loaded on ${process.platform}-${process.arch}`,
        {
          cause,
          hint: 'tidemark runs on Linux; there, `npm rebuild tidemark` compiles the addon (it needs a C++ compiler, make and python3; npm 11.16+ also needs "allowScripts": {"tidemark": true, "zstd-napi": true, "classic-level": true} in your package.json)',
        },
      );
    }
  }
  return loaded;
}
