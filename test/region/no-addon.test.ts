import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** What a program sees that uses tidemark where its addon was never built. */
const PROGRAM = `
import { Checkpointer, CheckpointStore, Region, capabilities } from './dist/lib/index.js';
const report = {};
const note = async (name, use) => {
  try {
    await use();
    report[name] = 'worked';
  } catch (error) {
    report[name] = [error.name, error.code, typeof error.hint, error.cause?.code].join(' ');
  }
};
await note('allocate', () => Region.allocate(4096));
await note('of', () => Region.of(new ArrayBuffer(8)));
await note('capabilities', () => capabilities());
await note('store', () => CheckpointStore.open('./none'));
await note('create', () => CheckpointStore.open('./new', { createIfMissing: true }));
await note('misuse', () => Checkpointer.open('./new', { regions: {} }));
console.log(JSON.stringify(report));
`;

describe('region: without the addon', () => {
  it('the package can be imported, and Region says what is missing', () => {
    const folder = mkdtempSync(join(tmpdir(), 'tidemark-no-addon-'));
    try {
      cpSync(join(root, 'dist', 'lib'), join(folder, 'dist', 'lib'), { recursive: true });
      symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
      writeFileSync(join(folder, 'package.json'), '{"type": "module"}');
      writeFileSync(join(folder, 'program.mjs'), PROGRAM);
      const output = execFileSync(process.execPath, ['program.mjs'], { cwd: folder, encoding: 'utf8', timeout: 30_000 });
      const unsupported = 'TidemarkError TIDEMARK_KERNEL_UNSUPPORTED string MODULE_NOT_FOUND';
      assert.deepEqual(JSON.parse(output), {
        allocate: unsupported,
        of: unsupported,
        capabilities: unsupported,
        store: 'TidemarkError TIDEMARK_NOT_FOUND undefined ',
        create: unsupported,
        misuse: 'TypeError  undefined ',
      });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
