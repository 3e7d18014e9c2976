import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const consumer = join(root, 'test/types/consumer');

describe('the declarations, for a program that has the package installed', () => {
  let folder: string;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'tidemark-types-'));
    cpSync(consumer, folder, { recursive: true });
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', type: 'module' }));
    const modules = join(folder, 'node_modules');
    mkdirSync(join(modules, 'tidemark/dist'), { recursive: true });
    // Copied, not linked: what the declarations need is looked for where the consumer has it.
    cpSync(join(root, 'package.json'), join(modules, 'tidemark/package.json'));
    cpSync(join(root, 'dist/lib'), join(modules, 'tidemark/dist/lib'), { recursive: true });
    for (const name of ['@types', 'undici-types']) symlinkSync(join(root, 'node_modules', name), join(modules, name));
  });

  after(() => rmSync(folder, { recursive: true, force: true }));

  function compile(...flags: string[]): { status: number | null; output: string } {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.json', ...flags],
      { cwd: folder, encoding: 'utf8', timeout: 60_000 },
    );
    return { status, output: stdout + stderr };
  }

  it('take every right use, and refuse every wrong one, with the library checked too', () => {
    assert.deepEqual(compile(), { status: 0, output: '' });
    // Those of Node do not stand this flag.
    assert.deepEqual(compile('--exactOptionalPropertyTypes', '--skipLibCheck'), { status: 0, output: '' });
  });

  it('and the compiler would say so if they did not', () => {
    const file = join(folder, 'consumer.ts');
    const source = readFileSync(file, 'utf8');
    writeFileSync(file, source.replace('lengths: { heap: 1, stack: 2 }', 'lengths: { heap: 1, wrong: 2 }'));
    const { status, output } = compile();
    writeFileSync(file, source);
    assert.notEqual(status, 0);
    assert.match(output, /'wrong' does not exist/);
  });
});
