import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, bytesOf, copyOf, PAGE, range, restoredFresh, stamp, stored } from '../support/kit.js';
import { Memory, resizable } from '../support/memories.js';

describe('an incremental checkpoint', () => {
  const folder = storeFolders();
  let path: string;
  let store: CheckpointStore;
  let checkpointer: Checkpointer<'r'>;
  beforeEach(async () => {
    path = folder();
    store = await CheckpointStore.open(path, { createIfMissing: true });
  });
  afterEach(async () => {
    await checkpointer.close();
    await store.close();
  });
  const open = async (region: Region) => {
    checkpointer = await Checkpointer.open(store, { regions: { r: region } });
  };

  it('stores the pages that were written and no other', async () => {
    const region = Region.allocate(2048 * PAGE);
    await open(region);
    stamp(region, range(0, 2048), 1);
    const full = await checkpointer.checkpoint();
    assert.deepEqual([full.kind, full.regions.r!.pages, full.rawBytes], ['full', 2048, 2048 * PAGE]);
    const pages = [0, 1, 2, 77, 255, 256, 511, 513, 1024, 2047];
    stamp(region, pages, 2);
    const next = await checkpointer.checkpoint();
    assert.deepEqual([next.kind, next.regions.r!.pages, next.regions.r!.zeroPages], ['incremental', pages.length, 0]);
    assert.equal(next.rawBytes, pages.length * PAGE);
    // They do not compress: the pages and little else.
    assert.ok(next.storedBytes > pages.length * PAGE && next.storedBytes < pages.length * PAGE + 4096, `${next.storedBytes}`);
    assertSame(await stored(store, 2), copyOf(region));
  });

  it('of a full region stores nothing that was never written', async () => {
    const region = Region.allocate(4096 * PAGE);
    await open(region);
    stamp(region, [3, 4000], 1);
    const { pages, unchangedPages } = (await checkpointer.checkpoint()).regions.r!;
    assert.deepEqual([pages, unchangedPages], [2, 0]);
    assertSame(await stored(store, 1), copyOf(region));
  });

  it('stores no page when nothing was written', async () => {
    const region = Region.allocate(512 * PAGE);
    await open(region);
    stamp(region, range(0, 512), 1);
    await checkpointer.checkpoint();
    const model = copyOf(region);
    for (let k = 0; k < 20; k++) {
      const idle = await checkpointer.checkpoint();
      const { pages, zeroPages, unchangedPages } = idle.regions.r!;
      assert.deepEqual([pages, zeroPages, unchangedPages, idle.rawBytes], [0, 0, 0, 0]);
      assert.ok(idle.storedBytes < 1024 || idle.id % 16 === 1, `${idle.storedBytes} bytes`);
    }
    assertSame(await stored(store, 21), model);
  });

  it('stores a page once, however often it was written', async () => {
    const region = Region.allocate(64 * PAGE);
    await open(region);
    await checkpointer.checkpoint();
    for (let k = 0; k < 10; k++) stamp(region, 5, k);
    assert.equal((await checkpointer.checkpoint()).regions.r!.pages, 1);
    // One byte is enough.
    bytesOf(region)[6 * PAGE + 4095] = 1;
    assert.equal((await checkpointer.checkpoint()).regions.r!.pages, 1);
    assertSame(await stored(store, 3), copyOf(region));
  });

  it('catches what the kernel writes: a read(2) into the region', async () => {
    const region = Region.allocate(64 * PAGE);
    await open(region);
    stamp(region, range(0, 64), 1);
    await checkpointer.checkpoint();
    const dir = mkdtempSync(join(tmpdir(), 'tidemark-test-'));
    const content = Buffer.alloc(3 * PAGE, 'kernel');
    writeFileSync(join(dir, 'file'), content);
    const file = openSync(join(dir, 'file'), 'r');
    assert.equal(readSync(file, bytesOf(region), 10 * PAGE + 100, content.length, 0), content.length);
    closeSync(file);
    rmSync(dir, { recursive: true });
    // Pages 10 to 13, the last one in part.
    assert.equal((await checkpointer.checkpoint()).regions.r!.pages, 4);
    const bytes = await stored(store, 2);
    assert.equal(Buffer.compare(bytes.subarray(10 * PAGE + 100, 13 * PAGE + 100), content), 0);
    assertSame(bytes, copyOf(region));
  });

  it('brings pages that were zeroed back as zeros', async () => {
    const region = Region.allocate(600 * PAGE);
    await open(region);
    stamp(region, range(0, 600), 1);
    await checkpointer.checkpoint();
    bytesOf(region).fill(0, 20 * PAGE, 320 * PAGE);
    stamp(region, 400, 2);
    const model = copyOf(region);
    const { pages, zeroPages } = (await checkpointer.checkpoint()).regions.r!;
    assert.deepEqual([pages, zeroPages], [1, 300]);
    // Written with the zeros that they held.
    bytesOf(region).fill(0, 20 * PAGE, 30 * PAGE);
    const again = (await checkpointer.checkpoint()).regions.r!;
    assert.deepEqual([again.pages, again.zeroPages, again.unchangedPages], [0, 0, 10]);
    assertSame(await stored(store, 2), model);
    await checkpointer.close();
    await store.close();
    region.close();
    assertSame(await restoredFresh(path), model);
  });

  it('brings pages that were dropped back as zeros', async () => {
    const buffer = resizable(64 * PAGE);
    const region = Region.of(buffer);
    await open(region);
    stamp(region, range(0, 64), 1);
    await checkpointer.checkpoint();
    buffer.resize(16 * PAGE);
    buffer.resize(64 * PAGE);
    stamp(region, 20, 2);
    const model = copyOf(region);
    assert.ok(model.subarray(21 * PAGE).every((byte) => byte === 0));
    const { pages, zeroPages } = (await checkpointer.checkpoint()).regions.r!;
    assert.deepEqual([pages, zeroPages], [1, 47]);
    assertSame(await stored(store, 2), model);
    await checkpointer.close();
    await store.close();
    assertSame(await restoredFresh(path), model);
  });

  it('follows memory that grows: the new part, and only what was written there', async () => {
    const memory = new Memory({ initial: 2, maximum: 64 });
    const region = Region.of(memory);
    await open(region);
    stamp(new Uint8Array(memory.buffer), range(0, 32), 1);
    await checkpointer.checkpoint();
    memory.grow(8);
    stamp(new Uint8Array(memory.buffer), [3, 33, 159], 2);
    const grown = (await checkpointer.checkpoint()).regions.r!;
    assert.deepEqual([grown.byteLength, grown.pages], [10 * 65536, 3]);
    stamp(new Uint8Array(memory.buffer), [4, 34], 3);
    assert.equal((await checkpointer.checkpoint()).regions.r!.pages, 2);
    assertSame(await stored(store, 3), copyOf(new Uint8Array(memory.buffer)));
  });
});
