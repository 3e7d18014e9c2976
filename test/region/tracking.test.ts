import assert from 'node:assert/strict';
import { closeSync, openSync, readSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { Region } from '../../lib/index.js';
import { code, dirty, GrowableShared, Memory, PAGE, ResizableBuffer, take, touch, withRegion } from './support.js';

describe('region: tracking', () => {
  it('dirtyRanges changes nothing, takeDirtyRanges arms again', () => {
    withRegion(Region.allocate(64 * PAGE), (region) => {
      for (const page of [3, 4, 5, 60]) touch(region, 0, page);
      for (let times = 0; times < 3; times++) assert.deepEqual(dirty(region), [3, 3, 60, 1]);
      touch(region, 0, 6);
      assert.deepEqual(take(region), [3, 4, 60, 1]);
      assert.deepEqual(take(region), []);
      touch(region, 0, 4);
      touch(region, 0, 4, 2);
      assert.deepEqual(take(region), [4, 1]);
      assert.equal(new Uint8Array(region.buffer)[60 * PAGE + 17], 1, 'the memory itself is untouched');
    });
  });

  it('reports a write of the same bytes, and no reads', () => {
    withRegion(Region.allocate(8 * PAGE), (region) => {
      const view = new Uint8Array(region.buffer);
      view[0] = 7;
      take(region);
      assert.equal(view[0], 7);
      assert.equal(view[5 * PAGE], 0);
      assert.deepEqual(dirty(region), []);
      view[0] = 7;
      assert.deepEqual(dirty(region), [0, 1]);
    });
  });

  it('sees what the kernel and other threads write', async () => {
    const region = Region.allocate(64 * PAGE, { shared: true });
    const fd = openSync('/dev/zero', 'r');
    try {
      take(region);
      readSync(fd, new Uint8Array(region.buffer), 9 * PAGE, 2 * PAGE, null);
      assert.deepEqual(take(region), [9, 2]);
      const worker = new Worker(
        'const { workerData } = require("node:worker_threads"); new Uint8Array(workerData)[30 * 4096] = 1;',
        { eval: true, workerData: region.buffer },
      );
      await new Promise((resolve) => worker.once('exit', resolve));
      assert.deepEqual(take(region), [30, 1]);
    } finally {
      closeSync(fd);
      region.close();
    }
  });

  it('gives TIDEMARK_CLOSED after close, which can be repeated; the memory stays', () => {
    const region = Region.allocate(4 * PAGE);
    touch(region, 0, 1, 9);
    region.close();
    region.close();
    assert.throws(() => region.dirtyRanges(), code('TIDEMARK_CLOSED'));
    assert.throws(() => region.takeDirtyRanges(), code('TIDEMARK_CLOSED'));
    assert.equal(new Uint8Array(region.buffer)[PAGE + 17], 9);
    touch(region, 0, 1, 8);
    assert.equal(region.byteLength, 4 * PAGE);
  });

  it('gives TIDEMARK_REGION_BUSY for memory that another region has, whole or in part', () => {
    const memory = new Memory({ initial: 2, maximum: 4 });
    const first = Region.of(memory, { byteOffset: 4 * PAGE, byteLength: 8 * PAGE });
    for (const [byteOffset, pages] of [
      [4, 8],
      [0, 32],
      [0, 5],
      [11, 4],
      [6, 1],
    ] as const)
      assert.throws(
        () => Region.of(memory, { byteOffset: byteOffset * PAGE, byteLength: pages * PAGE }),
        code('TIDEMARK_REGION_BUSY'),
      );
    const beside = Region.of(memory, { byteOffset: 12 * PAGE, byteLength: PAGE });
    touch(first, 4 * PAGE, 7);
    assert.deepEqual(dirty(first), [7, 1], 'the one that has it goes on');
    first.close();
    const again = Region.of(memory, { byteLength: 12 * PAGE });
    again.close();
    beside.close();
    const allocated = Region.allocate(4 * PAGE);
    assert.throws(() => Region.of(new Uint8Array(allocated.buffer, 0, PAGE)), code('TIDEMARK_REGION_BUSY'));
    allocated.close();
  });

  it('gives TIDEMARK_TRACKING_LOST for a buffer that was transferred, and tracks it for its new owner', () => {
    const buffer = new ResizableBuffer(16 * PAGE, { maxByteLength: 16 * PAGE });
    const region = Region.of(buffer);
    touch(region, 0, 2);
    const moved = structuredClone(buffer, { transfer: [buffer] });
    assert.equal(buffer.byteLength, 0);
    for (const use of [() => region.dirtyRanges(), () => region.takeDirtyRanges()])
      assert.throws(use, code('TIDEMARK_TRACKING_LOST'));
    // The new owner writes into what is still mapped there.
    new Uint8Array(moved).fill(3);
    assert.throws(() => region.dirtyRanges(), code('TIDEMARK_TRACKING_LOST'));
    region.close();
    withRegion(Region.of(moved), (again) => {
      take(again);
      touch(again, 0, 5);
      assert.deepEqual(take(again), [5, 1]);
    });
  });

  it('gives TIDEMARK_TRACKING_LOST for a view whose WebAssembly.Memory has grown', () => {
    const memory = new Memory({ initial: 1, maximum: 4 });
    const region = Region.of(new Uint8Array(memory.buffer, 0, 4 * PAGE));
    memory.grow(1);
    assert.throws(() => region.dirtyRanges(), code('TIDEMARK_TRACKING_LOST'));
    region.close();
    Region.of(memory).close();
  });

  it('gives TIDEMARK_TRACKING_LOST for a buffer that was made smaller, and loses no write when it is large again', () => {
    const buffer = new ResizableBuffer(16 * PAGE, { maxByteLength: 16 * PAGE });
    withRegion(Region.of(buffer), (region) => {
      take(region);
      touch(region, 0, 1);
      buffer.resize(4 * PAGE);
      assert.throws(() => region.dirtyRanges(), code('TIDEMARK_TRACKING_LOST'));
      assert.throws(() => region.takeDirtyRanges(), code('TIDEMARK_TRACKING_LOST'));
      buffer.resize(16 * PAGE);
      touch(region, 0, 12);
      const runs = take(region);
      const found = new Set(runs.flatMap((first, k) => (k % 2 ? [] : Array.from({ length: runs[k + 1]! }, (_, j) => first + j))));
      assert.ok(found.has(1) && found.has(12), `found ${[...found]}`);
      touch(region, 0, 3);
      assert.deepEqual(take(region), [3, 1]);
    });
  });

  it('keeps many regions apart', () => {
    const regions = Array.from({ length: 200 }, (_, k) =>
      Region.of(new GrowableShared((k + 1) * PAGE, { maxByteLength: 300 * PAGE })),
    );
    for (const [k, region] of regions.entries()) touch(region, 0, k);
    for (const [k, region] of regions.entries()) assert.deepEqual(take(region), [k, 1]);
    for (const region of regions) region.close();
  });
});
