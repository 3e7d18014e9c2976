import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Checkpointer, Engine, Region } from '../../lib/index.js';
import { damageExtent } from '../support/log-files.js';
import { asRoot } from '../support/nobody.js';
import { expectExit, failure, noise, PAGE, remove, temporaryFolder, tidemark } from './support.js';

const BIG = (3 << 20) + 5;

/**
 * Two checkpoints of a region `heap`: the first with attachments `big`, `none` (empty), `heap` and `zero.bin` (zeros), the second without.
 */
async function makeStore(path: string): Promise<Record<string, Buffer>> {
  const engine = new Engine({ workers: 1 });
  const heap = Region.allocate(2 * PAGE);
  const words = Buffer.alloc(BIG + 3);
  noise(words, 5);
  const attachments = {
    big: words.subarray(0, BIG),
    none: Buffer.alloc(0),
    heap: Buffer.from('{"a":1}\n'),
    'zero.bin': Buffer.alloc(40 * PAGE),
  };
  const main = await Checkpointer.open(path, { regions: { heap }, engine });
  await main.checkpoint({ attachments, lengths: { heap: 5000 } });
  await main.checkpoint({ label: 'bare' });
  await main.close();
  heap.close();
  await engine.close();
  return attachments;
}

describe('the tool: attachments', () => {
  let folder: string;
  let store: string;
  let made: Record<string, Buffer>;
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
  const FILES = ['big.attachment', 'heap.attachment', 'heap.bin', 'metadata.json', 'none.attachment', 'zero.bin.attachment'];

  it('are shown by name', async () => {
    const { text } = await expectExit(0, 'show', store, '1');
    assert.match(text, /attachments\n {2}big {2}3,145,733 bytes\n {2}none {2}0 bytes\n {2}heap {2}8 bytes\n/);
    const json = JSON.parse((await expectExit(0, 'show', store, '1', '--json')).text);
    const expected = Object.entries(made).map(([name, bytes]) => {
      return [name, { byteLength: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') }];
    });
    assert.deepEqual(json.attachments, Object.fromEntries(expected));
    assert.doesNotMatch((await expectExit(0, 'show', store, 'bare')).text, /attachments/);
  });

  it('are written beside the regions, metadata.json last', async () => {
    const { stderr } = await restore(0, '1', '-o', out);
    assert.deepEqual(readdirSync(out).sort(), FILES);
    for (const [name, bytes] of Object.entries(made)) {
      const file = join(out, `${name}.attachment`);
      assert.equal(readFileSync(file).compare(bytes), 0, name);
      assert.equal(statSync(file).mode & 0o777, 0o600);
    }
    assert.equal(statSync(join(out, 'heap.bin')).size, 5000);
    assert.ok(statSync(join(out, 'zero.bin.attachment')).blocks === 0, 'zeros are holes');
    assert.match(stderr, /wrote .*big\.attachment: 3145733 bytes, attachment big of checkpoint 1\n/);
    assert.match(stderr, /metadata\.json: \d+ bytes, about the checkpoint\n$/);
    await restore(1, 'bare', '-o', out);
    await restore(0, 'bare', '-o', out, '--force');
    assert.deepEqual(readdirSync(out).sort(), FILES);
    const fresh = join(out, 'bare');
    await restore(0, 'bare', '-o', fresh);
    assert.deepEqual(readdirSync(fresh).sort(), ['heap.bin', 'metadata.json']);
  });

  it('are written one at a time, to a file or to stdout', async () => {
    for (const name of ['big', 'heap']) {
      const file = join(out, name);
      const { text, stderr } = await restore(0, '1', '--attachment', name, '--output', file);
      assert.equal(readFileSync(file).compare(made[name]!), 0, name);
      assert.deepEqual([text, stderr], ['', `wrote ${file}: ${made[name]!.length} bytes, attachment ${name} of checkpoint 1\n`]);
    }
    for (const name of ['big', 'none']) {
      const done = await tidemark('restore', store, '1', '-a', name, '-o', '-');
      assert.deepEqual([done.code, done.stderr, done.stdout.compare(made[name]!)], [0, '', 0], name);
    }
    assert.deepEqual(readdirSync(out).sort(), ['big', 'heap']);
    await restore(1, '1', '-a', 'heap', '-o', join(out, 'big'));
    await restore(0, '1', '-a', 'heap', '-o', join(out, 'big'), '-f');
    assert.deepEqual(readFileSync(join(out, 'big')), made.heap);
  });

  it('are told with --dry-run and --json', async () => {
    const { files } = JSON.parse((await restore(0, '1', '-o', join(out, 'all'), '--json')).text);
    const about = ({ region, attachment, byteLength }: Record<string, unknown>) => [region, attachment, byteLength];
    assert.deepEqual(files.slice(0, -1).map(about), [
      ['heap', null, 5000],
      ...Object.entries(made).map(([name, bytes]) => [null, name, bytes.length]),
    ]);
    const { size } = statSync(join(out, 'all', 'metadata.json'));
    assert.deepEqual(about(files.at(-1)), [null, null, size]);
    const dry = JSON.parse((await restore(0, '1', '-a', 'big', '-o', '-', '--dry-run', '--json')).text);
    assert.deepEqual(dry.files, [{ path: '-', region: null, attachment: 'big', byteLength: BIG }]);
    const { text } = await restore(0, '1', '-o', join(out, 'dry'), '--dry-run');
    assert.match(text, /^would write .*dry\/none\.attachment: 0 bytes, attachment none of checkpoint 1$/m);
    assert.deepEqual(readdirSync(out), ['all']);
  });

  it('that are not there end it with 10, and nothing is written', async () => {
    const file = join(out, 'x');
    const error = failure(await tidemark('restore', store, '1', '-a', 'stack', '-o', file, '--json'));
    assert.deepEqual([error.code, error.exitCode, error.hint], ['TIDEMARK_NOT_FOUND', 10, 'it has big, none, heap, zero.bin']);
    const bare = failure(await tidemark('restore', store, 'bare', '-a', 'big', '-o', '-', '--json'));
    assert.deepEqual([bare.code, bare.hint], ['TIDEMARK_NOT_FOUND', 'it has none']);
    await restore(10, '1', '-a', 'toString', '-o', file);
    await restore(10, '1', '-r', 'big', '-o', file);
    assert.deepEqual(readdirSync(out), []);
  });

  it('exclude --region; names are checked', async () => {
    const file = join(out, 'x');
    await restore(2, '1', '-a', 'big', '-r', 'heap', '-o', file);
    await restore(2, '1', '-a', 'a b', '-o', file);
    await restore(2, '1', '-a', 'big');
    await restore(2, '1', '-o', '-');
    assert.deepEqual(readdirSync(out), []);
  });

  asRoot('to mount a small file system', () => {
    it('count when space is short', async () => {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tidemark-test', out]);
      try {
        // Before anything is written, not when the disk is full.
        for (const args of [
          ['-a', 'big', '-o', join(out, 'big')],
          ['-o', join(out, 'all')],
        ]) {
          const error = failure(await tidemark('restore', store, '1', ...args, '--json'));
          assert.deepEqual([error.code, error.exitCode], ['TIDEMARK_NO_SPACE', 14]);
          assert.match(error.message, /has 1048576 bytes free/);
        }
        assert.deepEqual(readdirSync(out), []);
        await restore(0, '1', '-a', 'heap', '-o', join(out, 'heap'));
      } finally {
        execFileSync('umount', [out]);
      }
    });
  });

  it('that are damaged end it with 12, name them, and leave no file; the others are written', async () => {
    const own = join(out, 'store');
    const engine = new Engine({ workers: 1 });
    const heap = Region.allocate(2 * PAGE);
    const words = new Uint8Array(3 * PAGE);
    noise(words, 6);
    const main = await Checkpointer.open(own, { regions: { heap }, engine });
    await main.checkpoint({ attachments: { good: words.subarray(0, 10), bad: words } });
    await main.close();
    heap.close();
    await engine.close();
    await damageExtent(own, 1);
    const file = join(out, 'x');
    const error = failure(await tidemark('restore', own, '1', '-a', 'bad', '-o', file, '--json'));
    assert.deepEqual([error.code, error.exitCode], ['TIDEMARK_DAMAGED', 12]);
    assert.match(error.message, /^attachment bad: /);
    await expectExit(12, 'restore', own, '1', '-o', join(out, 'all'));
    assert.deepEqual(readdirSync(out), ['store']);
    await expectExit(0, 'restore', own, '1', '-a', 'good', '-o', file);
    assert.deepEqual(readFileSync(file), Buffer.from(words.subarray(0, 10)));
    await expectExit(0, 'restore', own, '1', '-r', 'heap', '-o', join(out, 'heap'));

    const { text } = await expectExit(12, 'verify', own);
    assert.match(text, /^TIDEMARK_DAMAGED {2}checkpoint 1, attachment bad, pages 0-2: record \d+: /);
    const { problems } = JSON.parse((await expectExit(12, 'verify', own, '--json')).text);
    assert.deepEqual(
      problems.map(({ region, attachment, pages }: Record<string, unknown>) => ({ region, attachment, pages })),
      [{ region: null, attachment: 'bad', pages: [0, 3] }],
    );
  });

  it('do not follow one another: a file that is in the way stops all', async () => {
    writeFileSync(join(out, 'none.attachment'), 'mine');
    await restore(1, '1', '-o', out);
    assert.deepEqual(readdirSync(out), ['none.attachment']);
    await restore(0, '1', '-o', out, '--force');
    assert.deepEqual(readdirSync(out).sort(), FILES);
    assert.equal(statSync(join(out, 'none.attachment')).size, 0);
  });
});
