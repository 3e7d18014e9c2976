import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { addon } from '../../lib/kernel/addon.js';
import { addonPath, code, Helper } from './support.js';

describe('kernel: store lock', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'tidemark-'));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  const elsewhere = (path: string): string =>
    execFileSync(
      process.execPath,
      [
        '-e',
        `try { require(${JSON.stringify(addonPath)}).storeLock(process.argv[1]); console.log('locked') } catch (error) { console.log(error.code) }`,
        path,
      ],
      { encoding: 'utf8' },
    ).trim();

  it('has one owner, by whatever path', () => {
    const id = addon().storeLock(folder);
    assert.equal(statSync(join(folder, 'lock')).mode & 0o777, 0o600);
    const link = `${folder}-link`;
    symlinkSync(folder, link);
    try {
      for (const path of [folder, `${folder}/`, `${folder}/../${folder.split('/').at(-1)}`, link]) {
        assert.throws(() => addon().storeLock(path), code('ERR_LOCKED_HERE'));
        assert.equal(elsewhere(path), 'ERR_LOCKED_ELSEWHERE');
      }
    } finally {
      rmSync(link);
    }
    addon().storeUnlock(id);
    addon().storeUnlock(id);
    assert.equal(elsewhere(folder), 'locked');
    const again = addon().storeLock(folder);
    assert.notEqual(again, id);
    addon().storeUnlock(id);
    assert.throws(() => addon().storeLock(folder), code('ERR_LOCKED_HERE'), 'an old id does not unlock');
    addon().storeUnlock(again);
  });

  it('follows the folder, not its name', () => {
    const inner = join(folder, 'a');
    mkdirSync(inner);
    const id = addon().storeLock(inner);
    renameSync(inner, join(folder, 'b'));
    mkdirSync(inner);
    const other = addon().storeLock(inner);
    assert.throws(() => addon().storeLock(join(folder, 'b')), code('ERR_LOCKED_HERE'));
    addon().storeUnlock(id);
    addon().storeUnlock(other);
  });

  it('is held against and by other processes, and ends with them', async () => {
    const child = spawn(
      process.execPath,
      [
        '-e',
        `require(${JSON.stringify(addonPath)}).storeLock(process.argv[1]); console.log('locked'); setInterval(() => {}, 1000)`,
        folder,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    await once(child.stdout, 'data');
    assert.throws(() => addon().storeLock(folder), code('ERR_LOCKED_ELSEWHERE'));
    child.kill('SIGKILL');
    await once(child, 'exit');
    addon().storeUnlock(addon().storeLock(folder));
  });

  it('is given up when the worker that has it ends', async () => {
    for (const how of ['terminate', 'end'] as const) {
      const helper = new Helper(
        `addon.storeLock(workerData); parentPort.postMessage('locked'); parentPort.on('message', () => parentPort.close());`,
        folder,
      );
      await helper.next();
      assert.throws(() => addon().storeLock(folder), code('ERR_LOCKED_HERE'));
      if (how === 'terminate') await helper.worker.terminate();
      else helper.worker.postMessage('end');
      await helper.exited;
      addon().storeUnlock(addon().storeLock(folder));
    }
  });

  it('can be unlocked by another thread', async () => {
    const helper = new Helper(
      `parentPort.postMessage(addon.storeLock(workerData)); parentPort.on('message', () => parentPort.close());`,
      folder,
    );
    addon().storeUnlock((await helper.next()) as number);
    const id = addon().storeLock(folder);
    helper.worker.postMessage('end');
    await helper.exited;
    assert.throws(() => addon().storeLock(folder), code('ERR_LOCKED_HERE'), 'the end of the former owner changes nothing');
    addon().storeUnlock(id);
  });

  it('says what is wrong with the folder', () => {
    assert.throws(
      () => addon().storeLock(join(folder, 'missing')),
      (error: NodeJS.ErrnoException) =>
        error.code === 'ENOENT' && error.errno === -2 && error.syscall === 'open' && error.path === join(folder, 'missing'),
    );
    writeFileSync(join(folder, 'file'), '');
    assert.throws(() => addon().storeLock(join(folder, 'file')), code('ENOTDIR'));
    mkdirSync(join(folder, 'odd', 'lock'), { recursive: true });
    assert.throws(() => addon().storeLock(join(folder, 'odd')), code('EISDIR'));
    rmSync(join(folder, 'odd', 'lock'), { recursive: true });
    addon().storeUnlock(addon().storeLock(join(folder, 'odd')));
  });

  it('syncs the logs', () => {
    assert.equal(addon().syncLogs(folder), 0);
    for (const name of ['000001.log', '2.log', '3.ldb', '.log', 'log', 'x.log.old']) writeFileSync(join(folder, name), 'x');
    assert.equal(addon().syncLogs(folder), 2);
    symlinkSync('gone', join(folder, '4.log'));
    assert.equal(addon().syncLogs(folder), 2, 'a file that is not there any more');
    assert.throws(() => addon().syncLogs(join(folder, 'missing')), code('ENOENT'));
  });
});
