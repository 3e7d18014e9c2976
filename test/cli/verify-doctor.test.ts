import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AS_NOBODY, asRoot, whyPrivileged } from '../support/nobody.js';
import { expectExit, failure, MAIN, makeStore, remove, result, start, temporaryFolder, tidemark } from './support.js';

describe('the tool: verify and doctor', () => {
  let folder: string;
  let store: string;
  before(async () => {
    folder = temporaryFolder();
    store = join(folder, 'store');
    await makeStore(store);
  });
  after(() => remove(folder));

  it('finds nothing wrong with a good store, and says what it did not read', async () => {
    const { text, stderr } = await expectExit(0, 'verify', store);
    assert.match(text, /^4 checkpoints, \d+ extents, 27 pages, .*: no damage found\n/);
    assert.match(text, /not read; --read-data does that\n$/);
    assert.equal(stderr, '');
    assert.match((await expectExit(0, 'verify', store, '--read-data')).text, /every page was decompressed/);
  });

  it('reports as JSON', async () => {
    const report = JSON.parse((await expectExit(0, 'verify', store, '--json')).text);
    assert.deepEqual(Object.keys(report), ['store', 'ok', 'readData', 'checkpoints', 'extents', 'pages', 'bytes', 'problems']);
    assert.deepEqual([report.store, report.ok, report.readData, report.checkpoints, report.pages], [store, true, false, 4, 27]);
    assert.deepEqual(report.problems, []);
    assert.equal(JSON.parse((await expectExit(0, 'verify', store, '--json', '--read-data')).text).readData, true);
  });

  it('exits with 12 and names what is damaged', async () => {
    const own = mkdtempSync(join(folder, 'damage-'));
    const damaged = join(own, 'damaged');
    cpSync(store, damaged, { recursive: true });
    // The first page of heap, whose noise is stored as it is, begins with what makeStore wrote.
    flip(damaged, noiseOf(1));
    for (const more of [[], ['--read-data']]) {
      const report = JSON.parse((await expectExit(12, 'verify', damaged, '--json', ...more)).text);
      assert.equal(report.ok, false);
      const [problem] = report.problems;
      assert.deepEqual(Object.keys(problem), ['code', 'message', 'checkpoint', 'region', 'attachment', 'pages']);
      assert.deepEqual([problem.checkpoint, problem.region, problem.attachment], [1, 'heap', null]);
      assert.equal(problem.code, 'TIDEMARK_DAMAGED');
      assert.deepEqual(problem.pages, [0, 20]);
      assert.doesNotMatch(problem.message, /tidemark verify/);
    }
    const { text } = await expectExit(12, 'verify', damaged);
    assert.match(text, /^TIDEMARK_DAMAGED {2}checkpoint 1, region heap, pages 0-19: .*\n/);
    assert.match(text, /: 1 problem\n/);
    const out = join(own, 'out');
    const error = failure(await tidemark('restore', damaged, 'main', '-o', out, '--json'));
    assert.deepEqual([error.code, error.exitCode], ['TIDEMARK_DAMAGED', 12]);
    assert.ok(!readdirSync(own).includes('out'));
    await expectExit(0, 'restore', damaged, 'side', '-o', out);
  });

  it('exits with 12 when the log is gone', async () => {
    const broken = join(folder, 'broken');
    cpSync(store, broken, { recursive: true });
    remove(join(broken, 'log'));
    assert.equal(failure(await tidemark('verify', broken, '--json')).exitCode, 12);
  });

  it('says that memory can be tracked here', async () => {
    const { text, stderr } = await expectExit(0, 'doctor');
    assert.match(text, /memory can be tracked here\n$/);
    for (const part of ['kernel', 'userfaultfd by', 'vm.max_map_count', 'RLIMIT_NOFILE', 'zstd', process.versions.node])
      assert.ok(text.includes(part), part);
    assert.equal(stderr, '');
  });

  it('diagnoses as JSON, with a store', async () => {
    const before = readdirSync(join(store, 'log')).sort();
    const found = JSON.parse((await expectExit(0, 'doctor', store, '--json')).text);
    assert.deepEqual(Object.keys(found), ['tracking', 'problems', 'remedies', 'capabilities', 'versions', 'limits', 'store']);
    assert.equal(found.tracking, true);
    assert.equal(found.capabilities.tracking, true);
    assert.match(found.versions.zstd, /^1\.\d+\.\d+$/);
    assert.deepEqual(Object.keys(found.limits), ['openFiles', 'maxMapCount', 'unprivilegedUserfaultfd', 'memory']);
    assert.ok(found.limits.maxMapCount > 0);
    assert.deepEqual(Object.keys(found.store), ['path', 'format', 'uuid', 'accessible', 'owner', 'freeBytes', 'usable']);
    assert.deepEqual([found.store.format, found.store.owner, found.store.usable], [1, null, true]);
    assert.deepEqual(readdirSync(join(store, 'log')).sort(), before, 'it changes nothing');
    assert.equal(failure(await tidemark('doctor', folder, '--json')).exitCode, 10);
    assert.equal(failure(await tidemark('doctor', join(folder, 'nope'), '--json')).exitCode, 10);
  });

  it('says to a user without privileges what works, what does not, and what to do', async () => {
    const people = await result(
      start([...AS_NOBODY, process.execPath][0]!, [...AS_NOBODY, process.execPath, MAIN, 'doctor'].slice(1)),
    );
    assert.equal(people.code, 0, people.stderr);
    const text = people.stdout.toString();
    assert.match(text, /memory can be tracked here\n$/);
    if (whyPrivileged() !== undefined) return assert.match(text, /serves faults from inside the kernel +yes\n/);
    assert.match(text, /userfaultfd by +userfaultfd\(2\), faults of user mode only\n/);
    assert.match(text, /serves faults from inside the kernel +no; only a lazy restore needs it\n/);
    for (const remedy of [
      'lazy: true',
      'udev rule',
      '--device /dev/userfaultfd',
      'CAP_SYS_PTRACE',
      'vm.unprivileged_userfaultfd=1',
      "lazy: 'user-faults'",
    ])
      assert.ok(text.split('what to do\n')[1]!.includes(remedy), remedy);
  });

  asRoot('to become another user', () => {
    // The filter knows the number of the system call.
    if (process.arch !== 'x64') return;
    it('finds a device that was passed where userfaultfd is forbidden', async () => {
      const done = await result(start('python3', ['-c', FORBID, process.execPath, MAIN, 'doctor', '--json']));
      assert.equal(done.code, 0, done.stderr);
      const { descriptor, tracking, kernelFaults } = JSON.parse(done.stdout.toString()).capabilities;
      assert.deepEqual([descriptor, tracking, kernelFaults], ['device', true, true]);
    });

    it('exits with 13 and says what to do where userfaultfd is forbidden', async () => {
      const done = await result(start('setpriv', [...FORBIDDEN, 'doctor', '--json']));
      assert.equal(done.code, 13, done.stderr);
      const found = JSON.parse(done.stdout.toString());
      assert.deepEqual([found.tracking, found.capabilities.descriptor], [false, '']);
      assert.match(found.problems[0], /EACCES.*EPERM/);
      assert.match(found.remedies.join('\n'), /--device \/dev\/userfaultfd/);
      const people = await result(start('setpriv', [...FORBIDDEN, 'doctor']));
      assert.match(people.stdout.toString(), /what to do\n {2}- .*\n(?:.*\n)*memory cannot be tracked here\n$/);
    });
  });
});

/** As a container's seccomp profile does: EPERM from userfaultfd(2) (323), no privilege and so no /dev/userfaultfd. */
const FORBID = `
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
code = b''.join(struct.pack('HBBI', *op) for op in [
    (0x20, 0, 0, 0), (0x15, 0, 1, 323), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)])
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', 4, ctypes.addressof(buffer)))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
`;

/** The first 16 bytes of what `noise` makes. */
function noiseOf(seed: number): Buffer {
  let state = Math.imul(seed, 0x9e3779b1) >>> 0;
  const words = new Uint32Array(4);
  for (let k = 0; k < 4; k++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[k] = state;
  }
  return Buffer.from(words.buffer);
}

/** Changes one bit where a file of the log holds these bytes. */
function flip(store: string, where: Buffer): void {
  for (const name of readdirSync(join(store, 'log'))) {
    const path = join(store, 'log', name);
    const bytes = readFileSync(path);
    const at = bytes.indexOf(where);
    if (at < 0) continue;
    bytes[at]! ^= 1;
    writeFileSync(path, bytes);
    return;
  }
  assert.fail('no file of the log holds the bytes');
}
/** Another user, who may read the project wherever it is. */
const OTHER_USER = [
  '--reuid=65534',
  '--regid=65534',
  '--clear-groups',
  '--inh-caps=+dac_read_search',
  '--ambient-caps=+dac_read_search',
];
const FORBIDDEN = [...OTHER_USER, 'python3', '-c', FORBID, process.execPath, MAIN];
