import assert from 'node:assert/strict';
import { closeSync, openSync, readSync } from 'node:fs';
import { addon, MemoryChange } from '../../lib/kernel/addon.js';
import { capabilities } from '../../lib/kernel/capabilities.js';
import { PAGE, range } from '../support/kit.js';
import type { Kind, Made } from './kinds.js';

/** Fresh memory of a kind that is being scanned. */
export class Scanned {
  readonly kind: Kind;
  readonly pages: number;
  readonly #made: Made;

  constructor(kind: Kind, made: Made, pages: number) {
    this.kind = kind;
    this.#made = made;
    this.pages = pages;
  }

  get bytes(): Uint8Array {
    return this.#made.bytes();
  }

  /** Writes a byte of each page. */
  touch(...pages: number[]): void {
    const { bytes } = this;
    for (const page of pages) bytes[page * PAGE + (page % PAGE)]! += 1;
  }

  /** Reads a byte of each page. */
  read(first: number, count: number): number {
    const { bytes } = this;
    let sum = 0;
    for (let page = first; page < first + count; page++) sum += bytes[page * PAGE + 5]!;
    return sum;
  }

  change(how: MemoryChange, first: number, count: number): void {
    addon().memoryChange(this.bytes.subarray(first * PAGE, (first + count) * PAGE), how);
  }

  giveBack(...runs: number[]): void {
    this.#made.region.giveBack(Uint32Array.from(runs));
  }

  empty(...runs: number[]): void {
    this.#made.region.empty(Uint32Array.from(runs));
  }

  get hugeBytes(): number {
    return this.#made.region.hugeBytes();
  }

  get populated(): number[] {
    return [...this.#made.region.populated()];
  }

  /** These runs were written, say a look and the scan that arms; after it none. */
  expect(runs: number[], what?: string): void {
    const { region } = this.#made;
    assert.deepEqual([...region.dirtyRanges()], runs, what);
    assert.deepEqual([...region.takeDirtyRanges()], runs, what);
    assert.deepEqual([...region.dirtyRanges()], [], 'armed again');
  }
}

export interface ScanCase {
  what: string;
  /** Default: 1,024, two huge pages. */
  pages?: number;
  /** Only kinds for which it says so. Default: all. */
  suits?(kind: Kind): boolean;
  run(memory: Scanned): void;
}

const single = (pages: number[]): number[] => pages.flatMap((page) => [page, 1]);
const everyOther = (runs: number): number[] => Array.from({ length: runs }, (_, k) => 2 * k + 1);
const isPrivate = (kind: Kind): boolean => kind.file !== true;
const isFile = (kind: Kind): boolean => kind.file === true;
/** Where huge pages can be had. */
const isHuge = (kind: Kind): boolean => kind.populated === true && capabilities().reportsDroppedHuge === true;
const HUGE = 512;
const HUGE_BYTES = HUGE * PAGE;

/** What a scan that arms must do, whatever the memory is made of; after the kernel's own tests of PAGEMAP_SCAN (tools/testing/selftests/mm/pagemap_ioctl.c). */
export const SCAN_CASES: readonly ScanCase[] = [
  { what: 'nothing written', run: (memory) => memory.expect([]) },
  ...(
    [
      ['the first page', () => [0], () => [0, 1]],
      ['the last page', (pages) => [pages - 1], (pages) => [pages - 1, 1]],
      ['a page in the middle', (pages) => [pages / 2], (pages) => [pages / 2, 1]],
      ['the first and the last page', (pages) => [0, pages - 1], (pages) => [0, 1, pages - 1, 1]],
      ['every page', (pages) => range(0, pages), (pages) => [0, pages]],
      ['every other page', (pages) => everyOther(pages / 2), (pages) => single(everyOther(pages / 2))],
      ['all but one page', (pages) => [...range(0, 77), ...range(78, pages - 78)], (pages) => [0, 77, 78, pages - 78]],
      ['neighbours, which are one run', () => [511, 512, 510, 513], () => [510, 4]],
    ] as [string, (pages: number) => number[], (pages: number) => number[]][]
  ).map(
    ([what, written, runs]): ScanCase => ({
      what,
      run: (memory) => {
        for (let round = 0; round < 2; round++) {
          memory.touch(...written(memory.pages));
          memory.expect(runs(memory.pages), `round ${round}`);
        }
      },
    }),
  ),
  {
    what: 'holes that are read, then some of them written',
    run: (memory) => {
      assert.equal(memory.read(0, memory.pages), 0);
      memory.expect([]);
      memory.touch(0, 100, 1023);
      memory.expect([0, 1, 100, 1, 1023, 1]);
      assert.equal(memory.read(0, memory.pages), 0);
      memory.expect([]);
    },
  },
  {
    what: 'as many runs as the vector of results holds, one less and one more',
    pages: 8200,
    run: (memory) => {
      for (const runs of [4095, 4096, 4097]) {
        memory.touch(...everyOther(runs));
        memory.expect(single(everyOther(runs)), `${runs} runs`);
      }
    },
  },
  {
    what: 'more than 32,768 runs',
    pages: 65_600,
    run: (memory) => {
      memory.touch(...everyOther(32_800));
      memory.expect(single(everyOther(32_800)));
    },
  },
  {
    what: 'stores of the kernel: read(2)',
    run: (memory) => {
      memory.touch(41);
      memory.expect([41, 1]);
      const zero = openSync('/dev/zero', 'r');
      readSync(zero, memory.bytes, 40 * PAGE + 100, 2 * PAGE, null);
      closeSync(zero);
      memory.expect([40, 3]);
    },
  },
  {
    what: 'pages and holes that are given back',
    run: (memory) => {
      memory.touch(10, 11);
      memory.expect([10, 2]);
      memory.giveBack(10, 1, 500, 20);
      memory.expect([10, 1, 500, 20]);
      memory.touch(10, 501);
      memory.expect([10, 1, 501, 1]);
    },
  },
  {
    what: 'a part that is made zero, clean and armed',
    run: (memory) => {
      memory.touch(...range(100, 50));
      memory.empty(110, 10, 140, 30);
      memory.expect([100, 10, 120, 20]);
      assert.equal(
        memory.bytes.subarray(110 * PAGE, 120 * PAGE).findIndex((byte) => byte !== 0),
        -1,
      );
      memory.touch(109, 110, 119, 165);
      memory.expect([109, 2, 119, 1, 165, 1]);
    },
  },
  {
    what: 'protection that is changed, and changed back',
    run: (memory) => {
      memory.touch(3, 4);
      memory.expect([3, 2]);
      memory.touch(5);
      memory.change(MemoryChange.protect, 0, 100);
      memory.expect([5, 1], 'what was written before is not forgotten');
      memory.touch(3, 5, 6, 200);
      memory.expect([3, 1, 5, 2, 200, 1]);
    },
  },
  {
    what: 'dropped pages of private memory: clean, written, holes',
    suits: isPrivate,
    run: (memory) => {
      memory.touch(...range(10, 20));
      memory.expect([10, 20]);
      memory.touch(15, 40);
      memory.change(MemoryChange.drop, 14, 3);
      memory.expect([14, 3, 40, 1], 'they are zero now');
      assert.equal(memory.read(14, 3), 0);
      memory.expect([], 'armed as holes');
      memory.touch(15);
      memory.expect([15, 1]);
      memory.change(MemoryChange.drop, 14, 3);
      assert.equal(memory.read(14, 1), 0);
      memory.touch(16);
      memory.expect([14, 3], 'dropped and read, and dropped and written');
    },
  },
  {
    what: 'pages of a file that are dropped from the page table: their content stays',
    suits: isFile,
    run: (memory) => {
      memory.touch(...range(10, 20));
      memory.expect([10, 20]);
      memory.touch(15);
      memory.change(MemoryChange.drop, 14, 3);
      memory.expect([15, 1], 'what was written is not forgotten, and nothing else is');
      assert.equal(memory.bytes[15 * PAGE + 15], 2);
      memory.expect([], 'read again');
      memory.touch(14, 15);
      memory.expect([14, 2]);
      memory.change(MemoryChange.drop, 0, memory.pages);
      memory.touch(16);
      memory.expect([16, 1]);
    },
  },
  {
    what: 'a hole made in a file: not seen by itself, but every write after it',
    suits: isFile,
    run: (memory) => {
      memory.touch(...range(10, 20));
      memory.expect([10, 20]);
      memory.touch(12);
      memory.change(MemoryChange.remove, 11, 3);
      memory.change(MemoryChange.remove, 20, 1);
      memory.expect([12, 1]);
      assert.deepEqual(memory.populated, [10, 1, 14, 6, 21, 9]);
      assert.equal(memory.read(11, 3), 0);
      memory.expect([]);
      memory.touch(11, 13);
      memory.expect([11, 1, 13, 1]);
    },
  },
  {
    what: 'a child that was forked: private memory is its own, a file is not',
    run: (memory) => {
      memory.touch(...range(10, 10));
      memory.expect([10, 10]);
      memory.touch(12);
      memory.change(MemoryChange.fork, 11, 3);
      memory.expect([12, 1]);
      assert.equal(memory.bytes[13 * PAGE], isFile(memory.kind) ? 77 : 0);
      memory.touch(11, 13, 300);
      memory.expect([11, 1, 13, 1, 300, 1], 'the parent keeps its tracking');
    },
  },
  {
    what: 'making huge pages of it afterwards loses no write',
    run: (memory) => {
      memory.touch(...range(0, memory.pages));
      memory.expect([0, memory.pages]);
      memory.touch(5, 600);
      try {
        memory.change(MemoryChange.collapse, 0, memory.pages);
      } catch (error) {
        assert.match((error as NodeJS.ErrnoException).code!, /EINVAL|EAGAIN|EBUSY|ENOMEM/, 'what is armed cannot be huge');
      }
      memory.expect([5, 1, 600, 1]);
      memory.touch(6, 1023);
      memory.expect([6, 1, 1023, 1]);
    },
  },
  {
    what: 'a first write splits a huge page and is the only one reported',
    suits: isHuge,
    run: (memory) => {
      assert.equal(memory.hugeBytes, 2 * HUGE_BYTES, 'populated before it was armed');
      memory.expect([]);
      assert.equal(memory.hugeBytes, 2 * HUGE_BYTES, 'arming and scanning split nothing');
      memory.touch(77);
      assert.equal(memory.hugeBytes, HUGE_BYTES);
      memory.expect([77, 1]);
      memory.touch(...range(HUGE, HUGE));
      memory.expect([HUGE, HUGE], 'all of one');
      assert.equal(memory.hugeBytes, 0);
    },
  },
  {
    what: 'a huge page that is dropped whole, and a part of one',
    suits: isHuge,
    run: (memory) => {
      memory.change(MemoryChange.drop, 0, HUGE);
      memory.expect([0, HUGE]);
      memory.touch(0, 511, 512);
      memory.expect([0, 1, 511, 2]);
      memory.change(MemoryChange.drop, HUGE + 128, 256);
      memory.expect([HUGE + 128, 256]);
      memory.touch(HUGE + 127, HUGE + 128, HUGE + 384);
      memory.expect([HUGE + 127, 2, HUGE + 384, 1]);
    },
  },
  {
    what: 'a huge page of which half is made zero or given back',
    suits: isHuge,
    run: (memory) => {
      memory.empty(0, 256);
      memory.expect([]);
      memory.giveBack(HUGE + 256, 256);
      memory.expect([HUGE + 256, 256]);
      memory.touch(255, 256, HUGE + 255);
      memory.expect([255, 2, HUGE + 255, 1]);
    },
  },
];
