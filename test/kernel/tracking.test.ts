import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { addon, PAGE_SIZE } from '../../lib/kernel/addon.js';
import { code, Memory, peek, random, scan, toRuns, tracked, withRegion } from './support.js';

/** Whether reading a hole maps the shared zero page, which is not resident memory. Kernels of some virtual machines map a page of its own. */
function readsMapZeroPage(): boolean {
  const residentKiB = () => Number(/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))?.[1]);
  const pages = 16384;
  const view = new Uint8Array(addon().allocate(pages * PAGE_SIZE, false));
  const before = residentKiB();
  for (let page = 0; page < pages; page++) assert.equal(view[page * PAGE_SIZE], 0);
  return residentKiB() - before < (pages * PAGE_SIZE) / 2 / 1024;
}

describe('kernel: tracking', () => {
  it('reports nothing at first, then exactly the pages that were written', () => {
    withRegion(64, (id, view) => {
      assert.deepEqual(scan(id, view), []);
      view[5 * PAGE_SIZE] = 1;
      view[7 * PAGE_SIZE - 1] = 1;
      view[63 * PAGE_SIZE + 17] = 1;
      assert.deepEqual(peek(id, view), [5, 2, 63, 1]);
      assert.deepEqual(peek(id, view), [5, 2, 63, 1], 'a peek changes nothing');
      assert.deepEqual(scan(id, view), [5, 2, 63, 1]);
      assert.deepEqual(scan(id, view), []);
      view[5 * PAGE_SIZE] = 1;
      assert.deepEqual(scan(id, view), [5, 1], 'the same value again is a write, too');
    });
  });

  it('does not report reads', () => {
    withRegion(16, (id, view) => {
      assert.equal(
        view.reduce((sum, byte) => sum + byte, 0),
        0,
      );
      assert.deepEqual(scan(id, view), []);
      view[3 * PAGE_SIZE] = 1;
      assert.deepEqual(scan(id, view), [3, 1]);
    });
  });

  it('clears what was written before it was opened', () => {
    const view = new Uint8Array(addon().allocate(8 * PAGE_SIZE, false)).fill(1);
    const id = addon().regionOpen(view);
    assert.deepEqual(scan(id, view), []);
    addon().regionClose(id);
    const again = addon().regionOpen(view);
    assert.notEqual(again, id);
    assert.deepEqual(scan(again, view), []);
    view[0] = 2;
    assert.deepEqual(scan(again, view), [0, 1]);
    addon().regionClose(again);
  });

  it('finds 20,000 scattered pages: more than the result vector holds, several times over', () => {
    const pages = 131072;
    withRegion(pages, (id, view) => {
      const below = random(7);
      for (let round = 0; round < 3; round++) {
        const written = new Set<number>();
        while (written.size < 20000) written.add(below(pages));
        for (const page of written) view[page * PAGE_SIZE + (page % PAGE_SIZE)] = round + 1;
        const expected = [...toRuns([...written].sort((a, b) => a - b))];
        assert.deepEqual(peek(id, view), expected);
        assert.deepEqual(scan(id, view), expected);
        assert.deepEqual(scan(id, view), []);
      }
    });
  });

  it('finds numbers of runs at the edges of the result vector', () => {
    withRegion(16400, (id, view) => {
      for (const runs of [511, 512, 513, 1024, 4095, 4096, 4097, 8192]) {
        const written = Array.from({ length: runs }, (_, k) => 2 * k);
        for (const page of written) view[page * PAGE_SIZE] = 1;
        assert.deepEqual(peek(id, view), [...toRuns(written)]);
        assert.deepEqual(scan(id, view), [...toRuns(written)]);
        assert.deepEqual(scan(id, view), []);
      }
    });
  });

  it('reports stores of the kernel: read(2) into the memory', () => {
    const folder = mkdtempSync(join(tmpdir(), 'tidemark-'));
    try {
      const path = join(folder, 'data');
      writeFileSync(path, new Uint8Array(10000).fill(9));
      withRegion(16, (id, view) => {
        view.fill(1, 0, 8 * PAGE_SIZE);
        scan(id, view);
        const file = openSync(path, 'r');
        // Present pages and holes.
        assert.equal(readSync(file, view, 6 * PAGE_SIZE, 10000, 0), 10000);
        closeSync(file);
        assert.deepEqual(scan(id, view), [6, 3]);
        assert.equal(view[8 * PAGE_SIZE], 9);
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('reports pages that were dropped: a resizable buffer that shrinks and grows again', () => {
    // V8 drops the pages with madvise when it shrinks the buffer.
    const buffer = new (
      ArrayBuffer as unknown as new (
        length: number,
        options: object,
      ) => ArrayBuffer & { resize(length: number): void }
    )(16 * PAGE_SIZE, { maxByteLength: 16 * PAGE_SIZE });
    new Uint8Array(buffer).fill(1);
    const id = addon().regionOpen(new Uint8Array(buffer));
    assert.deepEqual(scan(id, new Uint8Array(buffer)), []);
    buffer.resize(8 * PAGE_SIZE);
    assert.throws(() => addon().regionScan(id, new Uint8Array(buffer), true), code('ERR_MOVED'));
    buffer.resize(16 * PAGE_SIZE);
    const view = new Uint8Array(buffer);
    // Where the kernel replaced the mapping tracking is lost, and says so.
    let result: number[] | string;
    try {
      result = scan(id, view);
    } catch (error) {
      result = (error as NodeJS.ErrnoException).code as string;
    }
    if (result === 'EPERM') {
      addon().regionReset(id, view);
      assert.deepEqual(scan(id, view), []);
      view[0] = 1;
      assert.deepEqual(scan(id, view), [0, 1]);
    } else {
      assert.deepEqual(result, [8, 8]);
    }
    assert.equal(view[9 * PAGE_SIZE], 0);
    addon().regionClose(id);
  });

  it('gives back pages and holes, so that every later scan reports them', () => {
    withRegion(256, (id, view) => {
      view.fill(1, 0, 32 * PAGE_SIZE);
      scan(id, view);
      addon().regionGiveBack(id, view, Uint32Array.of(3, 2, 30, 4, 200, 1, 255, 1));
      assert.deepEqual(peek(id, view), [3, 2, 30, 4, 200, 1, 255, 1]);
      assert.deepEqual(scan(id, view), [3, 2, 30, 4, 200, 1, 255, 1]);
      assert.deepEqual(scan(id, view), []);
      assert.equal(view[3 * PAGE_SIZE], 1);
      addon().regionGiveBack(id, view, new Uint32Array());
      assert.deepEqual(scan(id, view), []);
    });
  });

  it('tells the pages that have content from those that are zero', () => {
    // Reading maps the shared zero page: no content.
    const read = readsMapZeroPage() ? [] : [2000, 1];
    withRegion(4096, (id, view) => {
      assert.deepEqual([...addon().regionPopulated(id, view, 0)], []);
      view.fill(1, 100 * PAGE_SIZE, 110 * PAGE_SIZE);
      view[4095 * PAGE_SIZE] = 1;
      assert.equal(view[2000 * PAGE_SIZE], 0);
      scan(id, view);
      assert.deepEqual([...addon().regionPopulated(id, view, 0)], [100, 10, ...read, 4095, 1]);
      assert.deepEqual([...addon().regionPopulated(id, view, 105)], [105, 5, ...read, 4095, 1]);
      assert.deepEqual([...addon().regionPopulated(id, view, 4095)], [4095, 1]);
      assert.deepEqual([...addon().regionPopulated(id, view, 4096)], []);
      assert.throws(() => addon().regionPopulated(id, view, 4097), RangeError);
      assert.deepEqual(scan(id, view), []);
    });
  });

  it('follows a WebAssembly.Memory that grows', () => {
    const memory = new Memory({ initial: 1, maximum: 64 });
    let view = new Uint8Array(memory.buffer);
    const id = addon().regionOpen(view);
    view[0] = 1;
    memory.grow(3);
    assert.throws(() => addon().regionScan(id, view, true), code('ERR_MOVED'), 'the old view is detached');
    view = new Uint8Array(memory.buffer);
    view[100000] = 1;
    assert.deepEqual(peek(id, view), [0, 1], 'what is new is not tracked yet');
    addon().regionExtend(id, view);
    addon().regionExtend(id, view);
    assert.deepEqual([...addon().regionPopulated(id, view, 16)], [24, 1]);
    assert.deepEqual(scan(id, view), [0, 1]);
    view[65535] = 1;
    view[65536] = 1;
    view[view.length - 1] = 1;
    assert.deepEqual(scan(id, view), [15, 2, 63, 1]);
    memory.grow(60);
    view = new Uint8Array(memory.buffer);
    addon().regionExtend(id, view);
    assert.deepEqual(scan(id, view), []);
    assert.throws(() => addon().regionOpen(view.subarray(0, 65536)), code('EBUSY'));
    addon().regionClose(id);
  });

  it('follows shared memory of WebAssembly and a growable SharedArrayBuffer', () => {
    const memory = new Memory({ initial: 1, maximum: 4, shared: true });
    const id = addon().regionOpen(new Uint8Array(memory.buffer));
    memory.grow(1);
    const view = new Uint8Array(memory.buffer);
    addon().regionExtend(id, view);
    view[70000] = 1;
    assert.deepEqual(scan(id, view), [17, 1]);
    addon().regionClose(id);

    const shared = new (SharedArrayBuffer as unknown as new (length: number, options: object) => SharedArrayBuffer)(
      8 * PAGE_SIZE,
      { maxByteLength: 8 * PAGE_SIZE },
    );
    const bytes = new Uint8Array(shared);
    const other = addon().regionOpen(bytes);
    bytes[PAGE_SIZE] = 1;
    assert.deepEqual(scan(other, bytes), [1, 1]);
    addon().regionClose(other);
  });

  it('notices that memory is detached, elsewhere or too short', () => {
    withRegion(8, (id, view) => {
      const other = new Uint8Array(addon().allocate(8 * PAGE_SIZE, false));
      for (const wrong of [
        other,
        view.subarray(PAGE_SIZE),
        view.subarray(0, 7 * PAGE_SIZE),
        view.subarray(0, 0),
        new Uint8Array(0),
      ]) {
        assert.throws(() => addon().regionScan(id, wrong, false), code('ERR_MOVED'));
        assert.throws(() => addon().regionPopulated(id, wrong, 0), code('ERR_MOVED'));
        assert.throws(() => addon().regionHuge(id, wrong), code('ERR_MOVED'));
        assert.throws(() => addon().regionGiveBack(id, wrong, new Uint32Array()), code('ERR_MOVED'));
        assert.throws(() => addon().regionReset(id, wrong), code('ERR_MOVED'));
        assert.throws(() => addon().regionExtend(id, wrong), code('ERR_MOVED'));
        assert.throws(
          () =>
            addon().copyPages(
              id,
              wrong,
              new Uint32Array(),
              0,
              new Uint8Array(),
              new Int32Array(),
              new Uint32Array(),
              new Uint32Array(),
              1,
            ),
          code('ERR_MOVED'),
        );
      }
    });
  });

  it('starts over with reset', () => {
    withRegion(32, (id, view) => {
      view[PAGE_SIZE] = 1;
      addon().regionReset(id, view);
      assert.deepEqual(scan(id, view), []);
      view[2 * PAGE_SIZE] = 1;
      assert.deepEqual(scan(id, view), [2, 1]);
      assert.equal(view[PAGE_SIZE], 1);
      assert.throws(() => addon().regionOpen(view), code('EBUSY'));
    });
  });

  it('refuses memory that is tracked already, with what the kernel says', () => {
    withRegion(32, (id, view) => {
      for (const part of [view, view.subarray(16 * PAGE_SIZE)]) {
        assert.throws(
          () => addon().regionOpen(part),
          (error: NodeJS.ErrnoException) =>
            error.code === 'EBUSY' && error.errno === -16 && error.syscall === 'ioctl(UFFDIO_REGISTER)',
        );
      }
      view[0] = 1;
      assert.deepEqual(scan(id, view), [0, 1], 'the first registration is as it was');
    });
  });

  it('tracks parts of one buffer on their own', () => {
    const view = new Uint8Array(addon().allocate(32 * PAGE_SIZE, false));
    const low = view.subarray(0, 16 * PAGE_SIZE);
    const high = view.subarray(16 * PAGE_SIZE);
    const a = addon().regionOpen(low);
    const b = addon().regionOpen(high);
    view[15 * PAGE_SIZE] = 1;
    view[16 * PAGE_SIZE] = 1;
    assert.deepEqual(scan(a, low), [15, 1]);
    assert.deepEqual(scan(b, high), [0, 1]);
    addon().regionClose(a);
    view[17 * PAGE_SIZE] = 1;
    assert.deepEqual(scan(b, high), [1, 1]);
    addon().regionClose(b);
  });

  it('keeps huge pages exact', () => {
    const { id, view } = tracked(2048, true);
    view[700 * PAGE_SIZE] = 1;
    assert.deepEqual(scan(id, view), [700, 1]);
    addon().regionZero(id, Uint32Array.of(512, 512));
    assert.deepEqual(scan(id, view), []);
    addon().regionGiveBack(id, view, Uint32Array.of(1536, 512));
    assert.deepEqual(scan(id, view), [1536, 512]);
    addon().regionClose(id);
  });

  it('wants whole pages', () => {
    const view = new Uint8Array(addon().allocate(4 * PAGE_SIZE, false));
    for (const wrong of [
      view.subarray(1),
      view.subarray(0, PAGE_SIZE + 1),
      view.subarray(0, 100),
      view.subarray(0, 0),
      // (One that begins where its buffer does may be at the start of a page by chance.)
      new Uint8Array(PAGE_SIZE + 1).subarray(1),
      new Uint8Array(0),
    ]) {
      assert.throws(() => addon().regionOpen(wrong), code('ERR_UNALIGNED'));
    }
  });

  it('is closed once and for all', () => {
    const { id, view } = tracked(4);
    addon().regionClose(id);
    addon().regionClose(id);
    addon().regionClose(4294967295);
    for (const use of [
      () => addon().regionScan(id, view, true),
      () => addon().regionExtend(id, view),
      () => addon().regionReset(id, view),
      () => addon().regionPopulated(id, view, 0),
      () => addon().regionHuge(id, view),
      () => addon().regionGiveBack(id, view, new Uint32Array()),
      () => addon().regionFill(id, new Uint8Array(), new Uint32Array()),
      () => addon().regionZero(id, new Uint32Array()),
      () =>
        addon().copyPages(
          id,
          view,
          new Uint32Array(),
          0,
          new Uint8Array(),
          new Int32Array(),
          new Uint32Array(),
          new Uint32Array(),
          1,
        ),
    ]) {
      assert.throws(use, code('ERR_CLOSED'));
    }
  });
});
