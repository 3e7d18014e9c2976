import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Checkpointer, Region, type RegionSource } from '../../lib/index.js';
import { code, GrowableShared, Memory, PAGE, ResizableBuffer, WASM_PAGE } from './support.js';

interface Growing {
  source: RegionSource;
  buffer(): ArrayBufferLike;
  grow(pages: number): void;
}

const KINDS: [string, () => Growing][] = [
  ...[false, true].map((shared): [string, () => Growing] => [
    `a ${shared ? 'shared ' : ''}WebAssembly.Memory`,
    () => {
      const memory = new Memory({ initial: 1, maximum: 16, shared });
      return { source: memory, buffer: () => memory.buffer, grow: (pages) => void memory.grow(pages) };
    },
  ]),
  [
    'a growable SharedArrayBuffer',
    () => {
      const source = new GrowableShared(WASM_PAGE, { maxByteLength: 16 * WASM_PAGE });
      return { source, buffer: () => source, grow: (pages) => source.grow(source.byteLength + pages * WASM_PAGE) };
    },
  ],
  [
    'a resizable ArrayBuffer',
    () => {
      const source = new ResizableBuffer(WASM_PAGE, { maxByteLength: 16 * WASM_PAGE });
      return { source, buffer: () => source, grow: (pages) => source.resize(source.byteLength + pages * WASM_PAGE) };
    },
  ],
];

describe('region: growing between checkpoints', () => {
  for (const [what, make] of KINDS) {
    it(`${what} is stored and restored with the size it had`, async () => {
      const folder = mkdtempSync(join(tmpdir(), 'tidemark-growth-'));
      try {
        const path = join(folder, 'store');
        const growing = make();
        const region = Region.of(growing.source);
        const expected: Buffer[] = [];
        let checkpointer = await Checkpointer.open(path, { regions: { memory: region } });
        for (let k = 1; k <= 5; k++) {
          const view = new Uint8Array(growing.buffer());
          view[k * PAGE] = k;
          view.fill(k, view.length - 2 * PAGE);
          const taken = await checkpointer.checkpoint();
          assert.equal(taken.regions.memory!.byteLength, view.length);
          expected.push(Buffer.from(view));
          growing.grow(k % 3);
        }
        const check = (buffer: ArrayBufferLike, id: number, where: string) => {
          const bytes = Buffer.from(buffer);
          const stored = expected[id - 1]!;
          assert.ok(bytes.subarray(0, stored.length).equals(stored), `${id} ${where}`);
          assert.ok(
            bytes.subarray(stored.length).every((byte) => byte === 0),
            `${id} ${where}: the tail is zero`,
          );
        };
        for (const id of [2, 5, 1, 4]) {
          await checkpointer.restore(id);
          check(growing.buffer(), id, 'in place');
        }
        const after = await checkpointer.checkpoint();
        assert.equal(after.regions.memory!.pages, 0, 'nothing was written since the restore');
        await checkpointer.close();
        region.close();
        const fresh = make();
        const other = Region.of(fresh.source);
        checkpointer = await Checkpointer.open(path, { regions: { memory: other } });
        for (const id of [1, 5, 3]) {
          await checkpointer.restore(id);
          check(fresh.buffer(), id, 'in fresh memory');
        }
        await checkpointer.close();
        other.close();
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });
  }

  it('fails a checkpoint of memory that was detached, and a fixed region does not grow', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'tidemark-growth-'));
    try {
      const memory = new Memory({ initial: 1, maximum: 4 });
      const region = Region.of(new Uint8Array(memory.buffer));
      const checkpointer = await Checkpointer.open(join(folder, 'store'), { regions: { memory: region } });
      await checkpointer.checkpoint();
      memory.grow(1);
      await assert.rejects(checkpointer.checkpoint(), code('TIDEMARK_TRACKING_LOST'));
      await assert.rejects(checkpointer.restore(), code('TIDEMARK_TRACKING_LOST'));
      await checkpointer.close();
      region.close();
      const small = Region.allocate(PAGE);
      const other = await Checkpointer.open(join(folder, 'store'), { regions: { memory: small } });
      await assert.rejects(other.restore(), code('TIDEMARK_REGION_MISMATCH'));
      await other.close();
      small.close();
      const limited = Region.of(new ResizableBuffer(PAGE, { maxByteLength: 2 * PAGE }));
      const third = await Checkpointer.open(join(folder, 'store'), { regions: { memory: limited } });
      await assert.rejects(third.restore(), code('TIDEMARK_REGION_MISMATCH'));
      await third.close();
      limited.close();
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
