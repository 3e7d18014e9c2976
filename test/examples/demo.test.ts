import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { cli, example, start, systemSqlite, temporaryFolder } from './support.js';

describe('examples: demo', () => {
  const folder = temporaryFolder();
  const demo = (store: string) =>
    start(
      process.execPath,
      [
        example('demo.js'),
        '--store',
        'demo-store',
        '--transactions',
        '400',
        '--every',
        '100',
        '--kills',
        '3',
        '--sandboxes',
        '12',
      ],
      {
        cwd: dirname(store),
      },
    );

  it('shows the examples, and commands that work', async () => {
    const store = folder.path('demo-store');
    const { code, stdout, stderr } = await demo(store);
    assert.equal(code, 0, stderr);
    for (const expected of [
      /^checkpoint +transactions +database pages +dirty pages +stored bytes +blocked ms$/m,
      /^ +1 +100 +\d+ +\d+ +\d+ +\d+\.\d\d$/m,
      /^restored checkpoint 2: 200 transactions$/m,
      /^ +4 +400 +\d+ +\d+ +\d+ +\d+\.\d\d$/m,
      /^4 checkpoints, each checked by a SQLite that never saw it before: integrity_check ok/m,
      /^ +kill +when +restored from +taken up to +acknowledged +found after +in flight$/m,
      /^ +3 +\d+ ms after /m,
      /^\d+ checkpoints in the store, all whole/m,
      /^3 kills, \d of them in the middle of checkpoints: nothing that was acknowledged is missing, nothing is torn\.$/m,
      /^restored: the program goes on after step \d+$/m,
      /^\d+ checkpoints, the memory of each the same to the byte as in a run that was never interrupted\.$/m,
      /^ +kill +when +restored +acknowledged +rolled back +forked +in flight +found +further$/m,
      /^3 kills, \d of them in the middle of checkpoints: every sandbox came back, exact to the byte, at its last acknowledged/m,
    ])
      assert.match(stdout, expected);

    const commands = stdout.split('\n').filter((line) => /^ {2}(npx tidemark|sqlite3) /.test(line));
    assert.equal(commands.length, 8);
    const said = new Map<string, string>();
    for (const line of commands) {
      const [, program, rest] = /^ {2}(npx tidemark|sqlite3) (.*)$/.exec(line) ?? [];
      if (program === 'sqlite3' && !systemSqlite) continue;
      const command = program === 'sqlite3' ? `sqlite3 ${rest}` : `"$NODE" "$CLI" ${rest}`;
      const result = await start('sh', ['-c', command], { cwd: dirname(store), env: { NODE: process.execPath, CLI: cli } });
      assert.equal(result.code, 0, `${line}: ${result.stderr}`);
      const about = rest?.includes('-sandboxes') ? 'sandboxes ' : '';
      said.set(program === 'sqlite3' ? program : about + (rest?.split(' ')[0] ?? ''), result.stdout);
    }
    assert.equal(said.get('log')?.trim().split('\n').length, 4);
    assert.match(said.get('show') ?? '', /"transactions": 300/);
    assert.equal(said.get('sandboxes log')?.trim().split('\n').length, 10);
    assert.match(said.get('sandboxes show') ?? '', /"history": \[/);
    const made = await readdir(dirname(store));
    for (const name of ['demo-store-3.sqlite', 'demo-store-sandboxes-f0.bin']) assert.ok(made.includes(name), name);
    if (systemSqlite) assert.deepEqual(said.get('sqlite3')?.trim().split('\n'), ['ok', '300']);
  }).timeout(120_000);

  it('removes a store that is in its way, and nothing else', async () => {
    const store = folder.path('demo-store');
    await mkdir(store);
    await writeFile(join(store, 'thesis.txt'), 'the only copy');
    const refused = await demo(store);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /is not a store of tidemark/);
    assert.deepEqual(await readdir(store), ['thesis.txt']);
  });
});
