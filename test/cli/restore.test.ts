import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, lstatSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { asRoot } from '../support/nobody.js';
import {
  expectExit,
  failure,
  MAIN,
  type Made,
  METADATA,
  makeBigStore,
  makeStore,
  remove,
  result,
  start,
  temporaryFolder,
  tidemark,
} from './support.js';

describe('the tool: restore', () => {
  let folder: string;
  let store: string;
  let made: Made;
  let out: string;
  let number = 0;
  before(async () => {
    folder = temporaryFolder();
    store = join(folder, 'store');
    made = await makeStore(store);
  });
  beforeEach(() => {
    out = join(folder, `out${number++}`);
    mkdirSync(out);
  });
  after(() => remove(folder));

  const restore = (code: number, target: string, ...args: string[]) => expectExit(code, 'restore', store, target, ...args);

  it('writes the length of a region to a file', async () => {
    const file = join(out, 'heap');
    const { text, stderr } = await restore(0, 'half', '--region', 'heap', '--output', file);
    assert.deepEqual(readFileSync(file), made.heap[1]);
    assert.deepEqual(readdirSync(out), ['heap']);
    assert.equal(text, '');
    assert.match(stderr, /^wrote .*heap: 163740 bytes, region heap of checkpoint 2\n$/);
    const stat = statSync(file);
    assert.equal(stat.mode & 0o777, 0o600);
    assert.ok(stat.blocks * 512 < 24 * 4096, `zeros are holes: ${stat.blocks} blocks`);
  });

  it('writes any checkpoint to stdout, and nothing else', async () => {
    for (const [target, expected] of [
      ['1', made.heap[0]],
      ['main~1', made.heap[1]],
      [made.uids[2]!, made.heap[2]],
    ] as const) {
      const done = await tidemark('restore', store, target, '-r', 'heap', '-o', '-');
      assert.deepEqual([done.code, done.stderr], [0, '']);
      assert.deepEqual(done.stdout, expected);
    }
  });

  it('writes what there was at a time', async () => {
    const at = JSON.parse((await expectExit(0, 'show', store, 'half', '--json')).text).createdAt as string;
    for (const [target, expected] of [
      [`half@${at}`, made.heap[1]],
      ['main@2999-01-01', made.heap[2]],
    ] as const) {
      const done = await tidemark('restore', store, target, '-r', 'heap', '-o', '-');
      assert.deepEqual([done.code, done.stderr], [0, ''], target);
      assert.deepEqual(done.stdout, expected);
    }
    const file = join(out, 'none');
    await restore(10, 'main@2001-01-01', '--region', 'heap', '--output', file);
    await restore(2, 'main@2026-02-30', '--region', 'heap', '--output', file);
    assert.deepEqual(readdirSync(out), []);
  });

  it('writes to stdout that is a file', async () => {
    const file = join(out, 'stack');
    const done = await result(
      start('bash', ['-c', '"$0" "$1" restore "$2" main -r stack -o - > "$3"', process.execPath, MAIN, store, file]),
    );
    assert.equal(done.code, 0, done.stderr);
    assert.deepEqual(readFileSync(file), made.stack);
    const full = await result(
      start('bash', ['-c', '"$0" "$1" restore "$2" main -r stack -o - > /dev/full', process.execPath, MAIN, store]),
    );
    assert.equal(full.code, 14, full.stderr);
  });

  it('writes all regions and metadata.json into a folder', async () => {
    const fresh = join(out, 'all');
    for (const target of [fresh, out]) {
      if (target === out) remove(fresh);
      await restore(0, 'main', '--output', target);
      assert.deepEqual(readdirSync(target).sort(), ['heap.bin', 'metadata.json', 'stack.bin']);
      assert.deepEqual(readFileSync(join(target, 'heap.bin')), made.heap[2]);
      assert.deepEqual(readFileSync(join(target, 'stack.bin')), made.stack);
      const metadata = JSON.parse(readFileSync(join(target, 'metadata.json'), 'utf8'));
      assert.equal(metadata.id, 3);
      assert.deepEqual(metadata.metadata, METADATA);
    }
  });

  it('overwrites nothing without --force', async () => {
    const file = join(out, 'heap');
    writeFileSync(file, 'mine');
    const error = failure(await tidemark('restore', store, '1', '-r', 'heap', '-o', file, '--json'));
    assert.deepEqual([error.code, error.exitCode, error.hint], ['EEXIST', 1, '--force overwrites it']);
    await restore(1, '1', '-o', out);
    assert.deepEqual([readFileSync(file, 'utf8'), readdirSync(out)], ['mine', ['heap']]);
    await restore(0, '1', '-r', 'heap', '-o', file, '--force');
    assert.deepEqual(readFileSync(file), made.heap[0]);
    await restore(0, '2', '-o', out, '--force');
    await restore(1, '3', '-o', out);
    await restore(0, '3', '-o', out, '-f');
    assert.deepEqual(readFileSync(join(out, 'heap.bin')), made.heap[2]);
    assert.deepEqual(readdirSync(out).sort(), ['heap', 'heap.bin', 'metadata.json', 'stack.bin']);
  });

  it('follows a link instead of replacing it, and replaces no devices or folders', async () => {
    writeFileSync(join(out, 'real'), 'old');
    symlinkSync('real', join(out, 'link'));
    await restore(1, '1', '-r', 'stack', '-o', join(out, 'link'));
    await restore(0, '1', '-r', 'stack', '-o', join(out, 'link'), '--force');
    assert.ok(lstatSync(join(out, 'link')).isSymbolicLink());
    assert.deepEqual(readFileSync(join(out, 'real')), made.stack);
    execFileSync('mkfifo', [join(out, 'fifo')]);
    await restore(1, '1', '-r', 'stack', '-o', join(out, 'fifo'), '--force');
    assert.ok(lstatSync(join(out, 'fifo')).isFIFO());
    await restore(1, '1', '-r', 'stack', '-o', out, '--force');
    await restore(1, '1', '-o', join(out, 'real'), '--force');
    await restore(1, '1', '-r', 'stack', '-o', join(out, 'missing', 'file'));
    await restore(2, '1', '-o', join(store, 'log'), '--force');
    await restore(2, '1', '-r', 'stack', '-o', join(store, 'x'));
    assert.deepEqual(readdirSync(out).sort(), ['fifo', 'link', 'real']);
  });

  it('says with --dry-run what it would write', async () => {
    const target = join(out, 'all');
    const { text } = await restore(0, 'half', '-o', target, '--dry-run');
    assert.equal(
      text.replace(/\d+ bytes, about/, 'N bytes, about'),
      `would write ${target}/heap.bin: 163740 bytes, region heap of checkpoint 2\nwould write ${target}/stack.bin: 5000 bytes, region stack of checkpoint 2\nwould write ${target}/metadata.json: N bytes, about the checkpoint\n`,
    );
    assert.deepEqual(readdirSync(out), []);
    const json = JSON.parse((await restore(0, 'half', '-o', '-', '-r', 'stack', '--dry-run', '--json')).text);
    assert.deepEqual(json, {
      checkpoint: 2,
      uid: made.uids[1],
      dryRun: true,
      files: [{ path: '-', region: 'stack', attachment: null, byteLength: 5000 }],
    });
    writeFileSync(join(out, 'there'), '');
    await restore(1, 'half', '-o', join(out, 'there'), '-r', 'heap', '--dry-run');
  });

  it('reports with --json what it wrote', async () => {
    const file = join(out, 'stack');
    const json = JSON.parse((await restore(0, '1', '-r', 'stack', '-o', file, '--json')).text);
    assert.deepEqual(json.files, [{ path: file, region: 'stack', attachment: null, byteLength: 5000 }]);
    assert.equal(json.dryRun, false);
  });

  it('exits with 10 for a region or checkpoint that is not there', async () => {
    const error = failure(await tidemark('restore', store, 'side', '-r', 'heap', '-o', join(out, 'x'), '--json'));
    assert.deepEqual([error.code, error.hint], ['TIDEMARK_NOT_FOUND', 'it has stack']);
    await restore(10, '77', '-r', 'heap', '-o', join(out, 'x'));
    assert.deepEqual(readdirSync(out), []);
  });

  asRoot('to mount a small file system', () => {
    describe('on a small disk', () => {
      let disk: string;
      beforeEach(() => {
        disk = out;
        execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=128k', 'tidemark-test', disk]);
      });
      afterEach(() => execFileSync('umount', [disk]));

      it('writes what fits with its holes', async () => {
        await restore(0, '3', '-r', 'heap', '-o', join(disk, 'heap'));
        assert.deepEqual(readFileSync(join(disk, 'heap')), made.heap[2]);
      });

      it('exits with 14 before it writes what does not fit', async () => {
        writeFileSync(join(disk, 'other'), Buffer.alloc(80 * 1024));
        const error = failure(await tidemark('restore', store, '3', '-r', 'heap', '-o', join(disk, 'heap'), '--json'));
        assert.deepEqual([error.code, error.exitCode], ['TIDEMARK_NO_SPACE', 14]);
        assert.match(error.message, /has 49152 bytes free/);
        await restore(14, '3', '-o', join(disk, 'all'));
        assert.deepEqual(readdirSync(disk), ['other']);
      });

      it('exits with 14 and leaves nothing when the disk fills up on the way', async () => {
        execFileSync('mount', ['-o', 'remount,nr_inodes=4', disk]);
        await restore(14, '3', '-o', join(disk, 'all'));
        assert.deepEqual(readdirSync(disk), []);
      });
    });

    it('exits with 13 where it may not write or read', async () => {
      // Not as another user: it may not be allowed to read the project. Root without its right to read everything is one to the store.
      const powerless = ['--bounding-set=-dac_override,-dac_read_search', process.execPath, MAIN];
      const plain = async (...args: string[]) => result(start('setpriv', [...powerless, ...args]));
      chownSync(store, 65534, 65534);
      try {
        const hidden = failure(await plain('log', store, '--json'));
        assert.deepEqual([hidden.code, hidden.exitCode], ['TIDEMARK_PERMISSION', 13]);
        const doctor = await plain('doctor', store, '--json');
        assert.equal(doctor.code, 13);
        assert.equal(JSON.parse(doctor.stdout.toString()).store.accessible, false);
      } finally {
        chownSync(store, 0, 0);
      }
    });
  });

  describe('a big region', () => {
    let big: string;
    before(async () => {
      big = join(folder, 'big');
      await makeBigStore(big, 96 << 20);
    });

    it('goes to a reader that stops early', async () => {
      const script = 'set -o pipefail; "$0" "$1" restore "$2" main -r heap -o - | head -c 5 | wc -c';
      const done = await result(start('bash', ['-c', script, process.execPath, MAIN, big]));
      assert.deepEqual([done.code, done.stdout.toString().trim(), done.stderr], [0, '5', '']);
    });

    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      it(`is interrupted by ${signal}: 130, no files left`, async () => {
        const args = ['restore', big, 'main', '-r', 'heap', '-o', join(out, 'heap'), '--json'];
        const { code, stderr } = await result(start(process.execPath, [...interruptedWithin(out, signal), MAIN, ...args]));
        assert.equal(code, 130, stderr);
        assert.equal(JSON.parse(stderr).code, 'TIDEMARK_ABORTED');
        assert.deepEqual(readdirSync(out), []);
      });
    }

    it('is interrupted while a folder is written: the folder goes too', async () => {
      const target = join(out, 'all');
      const args = ['restore', big, 'main', '-o', target];
      const { code, stderr } = await result(start(process.execPath, [...interruptedWithin(target, 'SIGINT'), MAIN, ...args]));
      assert.equal(code, 130, stderr);
      assert.deepEqual(readdirSync(out), []);
    });

    it('is interrupted while nobody reads stdout', async () => {
      const child = start(process.execPath, [MAIN, 'restore', big, 'main', '-r', 'heap', '-o', '-']);
      const exited = once(child, 'exit');
      await once(child.stdout!, 'readable');
      child.kill('SIGINT');
      assert.deepEqual(await exited, [130, null]);
      child.stdout!.destroy();
    });

    it('can be opened again after all that', async () => {
      await expectExit(0, 'log', big);
    });
  });
});

/**
 * Flags with which the tool gets the signal as soon as something is in the folder that it writes to. It comes from its own thread, between
 * two of its steps: one from another process may come when everything is written.
 */
function interruptedWithin(path: string, signal: NodeJS.Signals): string[] {
  const source = `import { readdirSync } from 'node:fs';
    const filled = () => { try { return readdirSync(${JSON.stringify(path)}).length > 0; } catch { return false; } };
    const look = () => { if (filled()) process.kill(process.pid, '${signal}'); else setImmediate(look).unref(); };
    look();`;
  return ['--import', `data:text/javascript,${encodeURIComponent(source)}`];
}
