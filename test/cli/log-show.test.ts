import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { CheckpointStore, Engine } from '../../lib/index.js';
import {
  expectExit,
  failure,
  HEAP_LENGTH,
  HEAP_PAGES,
  MAIN,
  type Made,
  METADATA,
  makeStore,
  PAGE,
  remove,
  result,
  start,
  temporaryFolder,
  tidemark,
} from './support.js';

const FIELDS =
  'id uid parent kind durable branch label labels createdAt rawBytes storedBytes fingerprint metadata attachments regions timings';

describe('the tool: log and show', () => {
  let folder: string;
  let store: string;
  let made: Made;
  before(async () => {
    folder = temporaryFolder();
    store = join(folder, 'store');
    made = await makeStore(store);
  });
  after(() => remove(folder));

  it('lists newest first, a line each', async () => {
    const { text, stderr } = await expectExit(0, 'log', store);
    const lines = text.trimEnd().split('\n');
    assert.equal(stderr, '');
    assert.equal(lines.length, 4);
    const ids = lines.map((line) => Number(line.trim().split(/\s+/)[0]));
    assert.deepEqual(ids, [4, 3, 2, 1]);
    assert.match(
      lines[2]!,
      new RegExp(
        `^ *2  ${made.uids[1]!.slice(0, 8)}  \\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\dZ  main \\[half\\] +incremental +1 page +\\d.* KiB  durable$`,
      ),
    );
    assert.match(lines[3]!, / main +full +22 pages /);
    assert.equal(new Set(lines.map((line) => line.indexOf('durable'))).size, 1, 'aligned');
  });

  it('filters by branch and limits', async () => {
    const ids = async (...options: string[]) =>
      (await expectExit(0, 'log', store, '--json', ...options)).text
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line).id);
    assert.deepEqual(await ids('--branch', 'main'), [3, 2, 1]);
    assert.deepEqual(await ids('--branch', 'main', '--limit', '2'), [3, 2]);
    assert.deepEqual(await ids('-n', '1'), [4]);
    assert.deepEqual(await ids('--limit', '0'), []);
    assert.equal(failure(await tidemark('log', store, '--branch', 'nope', '--json')).code, 'TIDEMARK_NOT_FOUND');
    const label = failure(await tidemark('log', store, '--branch', 'half', '--json'));
    assert.match(label.message, /half is the label of checkpoint 2, not a branch/);
    assert.equal(label.exitCode, 10);
  });

  it('prints one JSON object a line, the same as show', async () => {
    const { text } = await expectExit(0, 'log', store, '--json');
    const third = text.split('\n')[1]!;
    const checkpoint = JSON.parse(third);
    assert.equal(Object.keys(checkpoint).join(' '), FIELDS);
    assert.equal(checkpoint.uid, made.uids[2]);
    assert.equal(checkpoint.parent, 2);
    assert.equal(checkpoint.label, null);
    assert.equal(checkpoint.fingerprint, 'program 1');
    assert.deepEqual(checkpoint.metadata, METADATA);
    assert.match(checkpoint.createdAt, /^\d{4}-\d\d-\d\dT.*Z$/);
    assert.deepEqual(checkpoint.regions.heap, {
      byteLength: HEAP_PAGES * PAGE,
      length: HEAP_LENGTH,
      pages: 2,
      deltaPages: checkpoint.regions.heap.deltaPages,
      zeroPages: 0,
      unchangedPages: 0,
    });
    assert.deepEqual(Object.keys(checkpoint.timings), ['captureMs', 'encodeMs', 'commitMs', 'totalMs']);
    assert.equal((await expectExit(0, 'show', store, '3', '--json')).text.trimEnd(), third);
  });

  it('shows a checkpoint by every kind of target', async () => {
    const targets: [string, number][] = [
      ['2', 2],
      ['half~1', 1],
      ['side', 4],
      [made.uids[1]!.slice(0, 12), 2],
    ];
    // A store has one owner at a time.
    for (const [target, id] of targets)
      assert.equal(JSON.parse((await expectExit(0, 'show', store, target, '--json')).text).id, id, target);
  });

  it('shows the newest one that was taken by a time', async () => {
    const at = JSON.parse((await expectExit(0, 'show', store, '2', '--json')).text).createdAt as string;
    const shown = async (target: string) => JSON.parse((await expectExit(0, 'show', store, target, '--json')).text).id;
    // 3 may have been taken in the same millisecond.
    assert.equal(await shown(`half@${at}`), 2);
    assert.equal(await shown(`2@${at.replace('Z', '+00:00')}`), 2);
    assert.equal(await shown('main@2999-01-01'), 3);
    assert.equal(await shown('main@2999-01-01 00:00'), 3);
    const { stderr } = await expectExit(10, 'show', store, 'main@2001-01-01T00:00Z');
    assert.match(stderr, /main@2001-01-01T00:00Z is not in the store/);
    for (const target of ['main@2026-02-30', 'main@yesterday', 'main@2026-11-22T25:00', 'main@', 'main~1@2026-11-22'])
      assert.match((await expectExit(2, 'show', store, target)).stderr, /is not a target/, target);
  });

  it('shows labels that were given, moved and forked later', async () => {
    const path = join(mkdtempSync(join(folder, 'named-')), 'store');
    await makeStore(path);
    const engine = new Engine({ workers: 1 });
    const opened = await CheckpointStore.open(path, { engine });
    await opened.label('later', 2);
    await opened.label('moved', 3);
    await opened.label('moved', 1, { move: true });
    await opened.fork(2, 'forked');
    await opened.close();
    await engine.close();
    const lines = (await expectExit(0, 'log', path)).text.trimEnd().split('\n');
    assert.match(lines[2]!, / main \[half\] \[later\] /);
    assert.match(lines[3]!, / main \[moved\] /);
    assert.doesNotMatch(lines[1]!, /\[/);
    const second = JSON.parse((await expectExit(0, 'show', path, 'forked', '--json')).text);
    assert.deepEqual([second.id, second.branch, second.label, second.labels], [2, 'main', 'later', ['half', 'later']]);
    assert.match((await expectExit(0, 'show', path, 'moved')).text, /labels +moved\n/);
    assert.match((await expectExit(0, 'show', path, '3')).text, /labels +-\n/);
    // A branch without a checkpoint of its own is there all the same.
    assert.equal((await expectExit(0, 'log', path, '--branch', 'forked')).text, '');
    const label = failure(await tidemark('log', path, '--branch', 'later', '--json'));
    assert.match(label.message, /later is the label of checkpoint 2, not a branch/);
  });

  it('shows everything to people, without what a terminal could take for a command', async () => {
    const { text } = await expectExit(0, 'show', store, 'main');
    for (const part of ['checkpoint 3', made.uids[2]!, '"program 1"', 'incremental', '163,840', '163,740', '"step": 3'])
      assert.ok(text.includes(part), part);
    assert.match(text, /\\u001b\[31m/);
    assert.match(text, /\\u009b/);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
    assert.doesNotMatch(text, /[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
  });

  it('exits with 10 for what is not there', async () => {
    const { stderr } = await expectExit(10, 'show', store, '99');
    assert.match(stderr, /^tidemark: 99 is not in the store .*\n {2}hint: `tidemark log`/);
    await expectExit(10, 'show', store, 'main~3');
    await expectExit(10, 'show', store, 'deadbeefdead');
    assert.equal(failure(await tidemark('log', join(folder, 'nothing'), '--json')).code, 'TIDEMARK_NOT_FOUND');
    await expectExit(10, 'log', mkdtempSync(join(folder, 'empty-')));
  });

  it('exits with 11 and says who has the store', async () => {
    const engine = new Engine({ workers: 1 });
    const held = await CheckpointStore.open(store, { engine });
    try {
      const { stderr } = await expectExit(11, 'log', store);
      assert.match(stderr, new RegExp(`open in another process \\(pid ${process.pid} on `));
      const error = failure(await tidemark('verify', store, '--json'));
      assert.equal(error.code, 'TIDEMARK_STORE_LOCKED');
      assert.equal(error.exitCode, 11);
      assert.ok(!error.message.includes(error.hint!), 'the hint is said once');
      const doctor = JSON.parse((await expectExit(0, 'doctor', store, '--json')).text);
      assert.match(doctor.store.owner, new RegExp(`^by pid ${process.pid} on `));
    } finally {
      await held.close();
      await engine.close();
    }
  });

  it('ends quietly when nobody reads any more', async () => {
    const child = start('bash', ['-c', 'set -o pipefail; "$0" "$1" log "$2" --json | head -c 1', process.execPath, MAIN, store]);
    const done = await result(child);
    assert.deepEqual([done.code, done.stdout.toString(), done.stderr], [0, '{', '']);
  });

  it('does not mistake a full disk behind stdout for success', async () => {
    const done = await result(start('bash', ['-c', '"$0" "$1" log "$2" > /dev/full', process.execPath, MAIN, store]));
    assert.equal(done.code, 14, done.stderr);
  });
});
