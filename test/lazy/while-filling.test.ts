import assert from 'node:assert/strict';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { describeWithKernelFaults } from '../support/kernel-faults.js';
import { assertSame, hashOf, makeSample, restoredFresh, sampleMemory } from '../support/kit.js';

/** Nothing is filled ahead: every page waits until it is touched. What is looked for is a hang. */
const HELD = { faults: 'lazy.hold:1:1000000', limitMs: 30_000 };
/** The same, for a while. */
const HELD_SOON = { ...HELD, faults: 'lazy.hold:1:10' };

describeWithKernelFaults('while a lazy restore is filling', () => {
  const folder = storeFolders();
  let path: string;
  beforeEach(async () => {
    path = folder();
    await makeSample(path);
  });

  it('a checkpoint is exact, forces nothing in, and is restored with what was missing then', async () => {
    const taken = await inChild(
      HELD,
      async (kit, path) => {
        const { c, region, bytes, missing } = await kit.sampleRestoring(path);
        kit.edit(region, [7, 110, 2999], 5);
        kit.stamp(region, 4000, 5);
        bytes.fill(0, 500 * kit.PAGE, 501 * kit.PAGE);
        const first = await c.checkpoint();
        const idle = await c.checkpoint();
        return kit.crash({
          pages: first.regions.r!.pages,
          zeroPages: first.regions.r!.zeroPages,
          kind: first.kind,
          idle: idle.regions.r!.pages,
          missing: missing(),
        });
      },
      path,
    );
    assert.deepEqual([taken.kind, taken.pages, taken.zeroPages, taken.idle], ['incremental', 4, 1, 0]);
    assert.ok(taken.missing > 3000 - 6 * 16, `${taken.missing} pages are missing still`);
    const model = sampleMemory();
    const { edit, stamp, PAGE } = await import('../support/kit.js');
    edit(model, [7, 110, 2999], 5);
    stamp(model, 4000, 5);
    model.fill(0, 500 * PAGE, 501 * PAGE);
    assertSame(await restoredFresh(path), model);
  });

  it('reads and writes of files by all threads of libuv’s pool at once, zlib and sockets have the right bytes', async () => {
    const result = await inChild(
      HELD,
      async (kit, path) => {
        const { deflate, inflateSync } = await import('node:zlib');
        const net = await import('node:net');
        const { promisify } = await import('node:util');
        const { bytes, missing } = await kit.sampleRestoring(path);
        const model = kit.sampleMemory();
        const page = (memory: Uint8Array, first: number, count: number) =>
          memory.subarray(first * kit.PAGE, (first + count) * kit.PAGE);
        const same = (found: Uint8Array, first: number, count: number) => Buffer.compare(found, page(model, first, count)) === 0;
        const file = `${path}-file`;
        const handle = await kit.fs.promises.open(file, 'w+');
        const all = Array.from({ length: 16 }, (_, k) => k);
        // Sixteen writes at once of pages that are missing: all four threads wait.
        await Promise.all(all.map((k) => handle.write(page(bytes, k * 40, 2), 0, 2 * kit.PAGE, k * 2 * kit.PAGE)));
        const written = await kit.fs.promises.readFile(file);
        const wrote = all.every((k) => same(page(written, k * 2, 2), k * 40, 2));
        // And reads into them: what is around stays.
        await Promise.all(all.map((k) => handle.read(page(bytes, 1000 + k * 40, 1), 10, 100, k * 2 * kit.PAGE)));
        for (const k of all) page(model, 1000 + k * 40, 1).set(page(model, k * 40, 1).subarray(0, 100), 10);
        await handle.close();
        const zipped = same(inflateSync(await promisify(deflate)(page(bytes, 1800, 30))), 1800, 30);
        const got: Buffer[] = [];
        await new Promise<void>((resolve) => {
          const server = net.createServer((socket) => {
            socket.on('data', (chunk: Buffer) => got.push(chunk));
            socket.on('end', () => server.close(() => resolve()));
            socket.on('end', () => socket.end());
          });
          server.listen(0, () => net.connect((server.address() as { port: number }).port).end(page(bytes, 1900, 20)));
        });
        const sent = same(Buffer.concat(got), 1900, 20);
        const left = missing();
        return kit.crash({ wrote, zipped, sent, left, whole: Buffer.compare(bytes, model) });
      },
      path,
    );
    assert.deepEqual({ ...result, left: result.left > 1000 }, { wrote: true, zipped: true, sent: true, left: true, whole: 0 });
  });

  it('workers read, write, and use Atomics on pages that are not there', async () => {
    const result = await inChild(
      HELD,
      async (kit, path) => {
        const { Worker } = await import('node:worker_threads');
        const shared = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE, { shared: true });
        const { bytes, missing } = await kit.sampleRestoring(path, shared);
        const code = `const { workerData: { buffer, k }, parentPort } = require('node:worker_threads');
          const bytes = new Uint8Array(buffer), words = new Int32Array(buffer);
          let sum = 0;
          for (let page = k; page < 2000; page += 40) { sum = (sum + bytes[page * 4096 + 1]) >>> 0; bytes[page * 4096 + 2] = k; }
          const word = (2100 + k * 60) * 1024;
          const how = Atomics.wait(words, word, 0x7fffffff, 5000) + Atomics.notify(words, word + 20 * 1024);
          Atomics.add(words, word + 40 * 1024, 1);
          parentPort.postMessage({ sum, how });`;
        const workers = [0, 1, 2, 3].map(
          (k) =>
            new Promise<{ sum: number; how: string }>((resolve, reject) => {
              const worker = new Worker(code, { eval: true, execArgv: [], workerData: { buffer: shared.buffer, k } });
              worker.on('message', resolve).on('error', reject);
            }),
        );
        const answers = await Promise.all(workers);
        const left = missing();
        const model = kit.sampleMemory();
        const words = new Int32Array(model.buffer);
        const sums = [0, 1, 2, 3].map((k) => {
          let sum = 0;
          for (let page = k; page < 2000; page += 40) {
            sum += model[page * 4096 + 1]!;
            model[page * 4096 + 2] = k;
          }
          words[(2100 + k * 60 + 40) * 1024]! += 1;
          return sum;
        });
        const right = answers.every(({ sum, how }, k) => sum === sums[k] && how === 'not-equal0');
        return kit.crash({ right, left, whole: Buffer.compare(bytes, model) });
      },
      path,
    );
    assert.deepEqual({ ...result, left: result.left > 100 }, { right: true, left: true, whole: 0 });
  });

  it('pages that are dropped are zero and stay so, also in the next checkpoint', async () => {
    const result = await inChild(
      HELD_SOON,
      async (kit, path) => {
        const Resizable = ArrayBuffer as unknown as new (
          length: number,
          options: { maxByteLength: number },
        ) => ArrayBuffer & { resize(byteLength: number): void };
        const byteLength = kit.SAMPLE_PAGES * kit.PAGE;
        const buffer = new Resizable(byteLength, { maxByteLength: byteLength });
        const { c, bytes, restoration } = await kit.sampleRestoring(path, kit.Region.of(buffer));
        const seen = bytes[600 * kit.PAGE];
        // V8 drops what lies behind the new end: pages that were filled, and pages that are missing.
        buffer.resize(500 * kit.PAGE);
        buffer.resize(byteLength);
        const model = kit.sampleMemory().fill(0, 500 * kit.PAGE);
        const first = Buffer.compare(new Uint8Array(buffer).subarray(0, 700 * kit.PAGE), model.subarray(0, 700 * kit.PAGE));
        await restoration.done;
        const whole = Buffer.compare(new Uint8Array(buffer), model);
        const { regions } = await c.checkpoint();
        await c.close();
        return { seen: seen !== 0, first, whole, zeroPages: regions.r!.zeroPages, hash: kit.hashOf(new Uint8Array(buffer)) };
      },
      path,
    );
    assert.deepEqual({ ...result, hash: '' }, { seen: true, first: 0, whole: 0, zeroPages: 2500, hash: '' });
    assert.equal(hashOf(await restoredFresh(path)), result.hash);
  });

  it('a WebAssembly.Memory grows', async () => {
    const other = folder();
    const result = await inChild(
      HELD_SOON,
      async (kit, path) => {
        interface WasmMemory {
          buffer: ArrayBuffer;
          grow(pages: number): number;
        }
        const { Memory } = (
          globalThis as unknown as { WebAssembly: { Memory: new (options: { initial: number; maximum: number }) => WasmMemory } }
        ).WebAssembly;
        const [first, memory] = [new Memory({ initial: 16, maximum: 256 }), new Memory({ initial: 16, maximum: 256 })];
        const one = kit.Region.of(first as never);
        kit.stamp(one, kit.range(0, 200), 3);
        await kit.withCheckpointer(path, { regions: { r: one } }, (c) => c.checkpoint());
        const { c, missing, restoration } = await kit.sampleRestoring(path, kit.Region.of(memory as never));
        memory.grow(100);
        const left = missing();
        const bytes = new Uint8Array(memory.buffer);
        bytes[300 * kit.PAGE] = 9;
        const same = Buffer.compare(bytes.subarray(0, 256 * kit.PAGE), new Uint8Array(first.buffer));
        const { regions } = await c.checkpoint();
        await restoration.done;
        await c.close();
        return { left, same, pages: regions.r!.pages, behind: bytes[400 * kit.PAGE] };
      },
      other,
    );
    assert.deepEqual({ ...result, left: result.left > 150 }, { left: true, same: 0, pages: 1, behind: 0 });
  });

  it('a page that was filled ahead, written and captured before its fault is answered is not taken for damaged', async () => {
    const result = await inChild(
      { faults: 'lazy.late:1:1000000', limitMs: 30_000 },
      async (kit, path) => {
        const store = await kit.CheckpointStore.open(path);
        const done: string[] = [];
        for (let round = 0; round < 60; round++) {
          const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
          await kit.withCheckpointer(store, { regions: { r: region } }, async (c) => {
            const restoration = await c.restore(1, { lazy: true });
            const bytes = kit.bytesOf(region);
            const taken: Promise<string>[] = [];
            for (let k = 0; k < 12; k++) {
              bytes[(((round * 12 + k) * 1009) % 3000) * kit.PAGE]! ^= 1;
              const controller = new AbortController();
              taken.push(kit.outcome(c.checkpoint({ durability: 'relaxed', signal: controller.signal })));
              if (k % 3 === 0) await new Promise(setImmediate);
              if (k % 4 === 0) controller.abort();
            }
            done.push(await kit.outcome(restoration.done));
            await Promise.all(taken);
          });
          region.close();
        }
        await store.close();
        return [...new Set(done)];
      },
      path,
    );
    assert.deepEqual(result, ['ok']);
  });

  it('close() waits until everything is there', async () => {
    const result = await inChild(
      HELD_SOON,
      async (kit, path) => {
        const { c, bytes, missing } = await kit.sampleRestoring(path);
        const before = missing();
        await c.close();
        return { before, after: missing(), whole: Buffer.compare(bytes, kit.sampleMemory()) };
      },
      path,
    );
    assert.deepEqual({ ...result, before: result.before > 2900 }, { before: true, after: 0, whole: 0 });
  });

  it('a restore of another checkpoint follows', async () => {
    const result = await inChild(
      HELD_SOON,
      async (kit, path) => {
        const { c, region, bytes } = await kit.sampleRestoring(path);
        kit.edit(region, 120, 9);
        const { inPlace } = (await c.restore(1)).stats();
        const model = new Uint8Array(kit.SAMPLE_PAGES * kit.PAGE);
        kit.stamp(model, kit.range(0, kit.SAMPLE_STORED), 1);
        await c.close();
        return { inPlace, whole: Buffer.compare(bytes, model) };
      },
      path,
    );
    assert.deepEqual(result, { inPlace: true, whole: 0 });
  });

  it('a capture of everything, for another checkpointer, has what is missing too', async () => {
    const other = folder();
    const result = await inChild(
      HELD,
      async (kit, path, other) => {
        const { c, missing } = await kit.sampleRestoring(path);
        const before = missing();
        const d = await kit.Checkpointer.open(other, { regions: { r: c.detach('r') } });
        const { kind, regions } = await d.checkpoint();
        await d.close();
        return kit.crash({ before, kind, pages: regions.r!.pages });
      },
      path,
      other,
    );
    assert.deepEqual({ ...result, before: result.before > 2900 }, { before: true, kind: 'full', pages: 3000 });
    assertSame(await restoredFresh(other), sampleMemory());
  });
});
