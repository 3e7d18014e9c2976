import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { blocksOf, documentFolder, runBlock } from './run-blocks.js';

describe('docs: README.md', () => {
  const [counter, more, ...others] = blocksOf('README.md').filter(({ language }) => language === 'js');
  let folder = '';
  before(async () => {
    folder = await documentFolder();
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it('the first program goes on after kill -9 where it was', async () => {
    const stepOf = (line: string) => Number(/^step (\d+) is checkpoint \1: \d+ of 256 pages stored$/.exec(line)?.[1]);
    let first = 0;
    const killed = await runBlock(counter!, folder, {
      killAt: (line) => {
        first = stepOf(line);
        return first >= 20;
      },
    });
    assert.equal(killed.signal, 'SIGKILL', killed.stderr);
    const lines: string[] = [];
    const again = await runBlock(counter!, folder, { killAt: (line) => lines.push(line) === 2 });
    assert.equal(again.signal, 'SIGKILL', again.stderr);
    // Checkpoints whose line did not get through may have been made.
    assert.ok(stepOf(lines[0]!) > first, `${lines[0]} after step ${first}`);
    assert.equal(stepOf(lines[1]!), stepOf(lines[0]!) + 1);
  });

  it('the second one prints what is said', async () => {
    rmSync(join(folder, 'vm-store'), { recursive: true, force: true });
    const { code, stdout, stderr } = await runBlock(more!, folder);
    assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
    assert.equal(stdout, more!.prints);
    assert.equal(others.length, 0);
  });
});
