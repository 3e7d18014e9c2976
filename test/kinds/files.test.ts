import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { capabilities, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { inChild } from '../support/in-child.js';
import { assert, assertSame, copyOf, outcome, PAGE, range, stamp, withCheckpointer } from '../support/kit.js';
import { endKinds, tmpfsPath } from './kinds.js';
import { HUGETLB, memfd } from './memfd.js';

const TMPFS = 0x01021994;

/** The error has this code and says this. */
const refused = (code: string, message: RegExp) => (error: unknown) => {
  const { code: found, message: text, hint } = error as { code?: string; message: string; hint?: string };
  assert.equal(found, code, text);
  assert.match(text, message);
  return code !== 'TIDEMARK_KERNEL_UNSUPPORTED' || /tmpfs/.test(hint!);
};

/** Bytes that the file takes. */
const taken = (path: string): number => statSync(path).blocks * 512;

describe('files that are mapped', () => {
  const folder = storeFolders();
  const paths: string[] = [];
  function newPath(): string {
    const path = tmpfsPath();
    paths.push(path);
    return path;
  }
  function newFile(byteLength: number): string {
    const path = newPath();
    writeFileSync(path, '');
    truncateSync(path, byteLength);
    return path;
  }
  afterEach(() => {
    for (const path of paths.splice(0)) rmSync(path, { recursive: true, force: true });
  });
  after(endKinds);

  it('are made and lengthened only when that is asked for, and never made shorter', () => {
    const path = newPath();
    assert.throws(() => Region.map(path), refused('TIDEMARK_NOT_FOUND', /create/));
    assert.throws(() => Region.map(path, { byteLength: PAGE }), refused('TIDEMARK_NOT_FOUND', /create/));
    assert.throws(() => Region.map(path, { create: true }), TypeError);
    Region.map(path, { create: true, byteLength: 4 * PAGE }).close();
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(statSync(path).size, 4 * PAGE);
    assert.throws(() => Region.map(path, { byteLength: 5 * PAGE }), RangeError);
    assert.throws(() => Region.map(path, { byteOffset: 4 * PAGE }), RangeError);
    assert.throws(() => Region.map(path, { byteOffset: 2 * PAGE, byteLength: 3 * PAGE }), RangeError);
    Region.map(path, { create: true, byteOffset: PAGE, byteLength: 2 * PAGE }).close();
    assert.equal(statSync(path).size, 4 * PAGE);
    Region.map(path, { create: true, byteOffset: 2 * PAGE, byteLength: 4 * PAGE }).close();
    assert.equal(statSync(path).size, 6 * PAGE);
    assert.throws(() => Region.map(join(path, 'x'), { create: true, byteLength: PAGE }), refused('TIDEMARK_NOT_FOUND', /folder/));
    assert.throws(
      () => Region.map('/dev/shm/no-such-folder/x', { create: true, byteLength: PAGE }),
      refused('TIDEMARK_NOT_FOUND', /folder/),
    );
    const link = newPath();
    symlinkSync('/dev/shm/no-such-folder/x', link);
    assert.throws(() => Region.map(link, { create: true, byteLength: PAGE }), refused('TIDEMARK_NOT_FOUND', /folder/));
  });

  it('are mapped whole, or in parts of whole pages', () => {
    const path = newFile(6 * PAGE);
    const whole = Region.map(path);
    assert.equal(whole.byteLength, 6 * PAGE);
    assert.equal(whole.buffer.byteLength, 6 * PAGE);
    const part = Region.map(path, { byteOffset: 2 * PAGE, byteLength: 3 * PAGE });
    const rest = Region.map(path, { byteOffset: 5 * PAGE });
    assert.deepEqual([part.byteLength, rest.byteLength], [3 * PAGE, PAGE]);
    new Uint8Array(part.buffer)[PAGE] = 7;
    assert.deepEqual([...part.dirtyRanges()], [1, 1]);
    assert.equal(new Uint8Array(whole.buffer)[3 * PAGE], 7);
    assert.equal(readFileSync(path)[3 * PAGE], 7);
    for (const region of [whole, part, rest]) region.close();
    for (const options of [{ byteOffset: 100 }, { byteLength: 100 }, { byteLength: PAGE + 1 }])
      assert.throws(() => Region.map(path, options), refused('TIDEMARK_UNALIGNED', /multiples/));
    truncateSync(path, 6 * PAGE - 1);
    assert.throws(() => Region.map(path), refused('TIDEMARK_UNALIGNED', /does not end at a page/));
    truncateSync(path, 0);
    assert.throws(() => Region.map(path), RangeError);
  });

  it('must be memory: others are refused with the reason, and none is made there', async () => {
    const disk = [tmpdir(), fileURLToPath(new URL('.', import.meta.url)), homedir(), '/var/tmp'].find((path) => {
      return statfsSync(path).type !== TMPFS;
    });
    if (disk !== undefined) {
      const path = join(disk, `tidemark-test-${process.pid}`);
      assert.throws(
        () => Region.map(path, { create: true, byteLength: PAGE }),
        refused('TIDEMARK_KERNEL_UNSUPPORTED', / is on /),
      );
      assert.ok(!existsSync(path));
      writeFileSync(path, new Uint8Array(PAGE));
      paths.push(path);
      assert.throws(() => Region.map(path), refused('TIDEMARK_KERNEL_UNSUPPORTED', / is on /));
    }
    const huge = await memfd(2 << 20, HUGETLB);
    if (huge !== undefined) {
      assert.throws(() => Region.map(`/proc/self/fd/${huge}`), refused('TIDEMARK_KERNEL_UNSUPPORTED', /hugetlb/));
      closeSync(huge);
    }
    const inside = newPath();
    mkdirSync(inside);
    for (const path of [inside, '/dev/zero', '/dev/null'])
      assert.throws(() => Region.map(path), refused('TIDEMARK_KERNEL_UNSUPPORTED', /not a file/));
    const pipe = newPath();
    spawnSync('mkfifo', [pipe]);
    assert.throws(() => Region.map(pipe), refused('TIDEMARK_KERNEL_UNSUPPORTED', /not a file/));
  });

  it('must be writable', async () => {
    const path = newFile(PAGE);
    const code = await inChild(
      {},
      async ({ Region, fs, outcome }, path) => {
        // Everything that root alone may open is open by then.
        Region.allocate(1).close();
        if (process.getuid!() !== 0) fs.chmodSync(path, 0o400);
        else process.setuid!(65534);
        return outcome((async () => Region.map(path))());
      },
      path,
    );
    assert.equal(code, 'TIDEMARK_PERMISSION');
  });

  it('are written by others without being seen, until the page is written here too', () => {
    const path = newFile(8 * PAGE);
    const region = Region.map(path);
    const other = Region.map(path);
    const bytes = new Uint8Array(region.buffer);
    const fd = openSync(path, 'r+');
    new Uint8Array(other.buffer)[PAGE] = 1;
    writeSync(fd, Uint8Array.of(2), 0, 1, 2 * PAGE);
    assert.deepEqual([bytes[PAGE], bytes[2 * PAGE]], [1, 2]);
    assert.deepEqual([...region.dirtyRanges()], []);
    assert.deepEqual([...other.dirtyRanges()], [1, 1]);
    bytes[2 * PAGE + 1] = 3;
    assert.deepEqual([...region.takeDirtyRanges()], [2, 1]);
    closeSync(fd);
    for (const one of [region, other]) one.close();
  });

  it('that others make shorter are lost memory, and wholly written when they are long enough again', async () => {
    const path = newFile(64 * PAGE);
    const region = Region.map(path);
    const lost = refused('TIDEMARK_TRACKING_LOST', /shrunk to 131072 bytes/);
    await withCheckpointer(folder(), { regions: { r: region } }, async (c) => {
      stamp(region, range(0, 64), 1);
      await c.checkpoint();
      stamp(region, [3], 2);
      truncateSync(path, 32 * PAGE);
      assert.throws(() => region.dirtyRanges(), lost);
      assert.throws(() => region.hugeBytes(), lost);
      await assert.rejects(c.checkpoint(), lost);
      await assert.rejects(c.restore(), lost);
      truncateSync(path, 64 * PAGE);
      assert.deepEqual([...region.dirtyRanges()], [0, 64]);
      const model = copyOf(region);
      const { pages, zeroPages, unchangedPages } = (await c.checkpoint()).regions.r!;
      assert.deepEqual([pages, zeroPages, unchangedPages], [1, 32, 31]);
      stamp(region, [40], 3);
      assert.deepEqual([...region.dirtyRanges()], [40, 1]);
      await c.restore();
      assertSame(region, model);
    });
    region.close();
  });

  it('that are shorter end who touches what is missing, while what asks the region is told', async () => {
    const ends = inChild(
      {},
      async ({ Region, fs, report, PAGE }, path) => {
        const region = Region.map(path);
        fs.truncateSync(path, PAGE);
        try {
          region.takeDirtyRanges();
        } catch (error) {
          report((error as { code?: string }).code);
        }
        new Uint8Array(region.buffer)[2 * PAGE] = 1;
      },
      newFile(4 * PAGE),
    );
    await assert.rejects(ends, /signal SIGBUS/);
  });

  it('take memory only for what is in them: a checkpoint, a restore and pages that become zero leave holes', async () => {
    const path = newPath();
    const store = folder();
    const pages = 2 ** 18;
    const region = Region.map(path, { create: true, byteLength: pages * PAGE });
    assert.ok(taken(path) <= PAGE, 'the page at which it was lengthened');
    await withCheckpointer(store, { regions: { r: region }, durability: 'relaxed' }, async (c) => {
      stamp(region, [5, 6, 100_000], 1);
      const first = await c.checkpoint();
      assert.equal(first.regions.r!.pages, 3);
      assert.ok(taken(path) <= 4 * PAGE);
      stamp(region, range(200_000, 1000), 2);
      await c.restore(first.id);
      assert.ok(taken(path) <= 4 * PAGE, 'holes again');
      await c.checkpoint();
    });
    region.close();
    const other = newPath();
    const fresh = Region.map(other, { create: true, byteLength: pages * PAGE });
    await withCheckpointer(store, { regions: { r: fresh }, durability: 'relaxed' }, async (c) => {
      await c.restore();
      assert.ok(taken(other) <= 4 * PAGE);
      assertSame(new Uint8Array(fresh.buffer, 0, 8 * PAGE), new Uint8Array(region.buffer, 0, 8 * PAGE));
      stamp(fresh, [7], 3);
      assert.equal((await c.checkpoint()).regions.r!.pages, 1);
    });
    fresh.close();
  });

  it('that were reserved, or hold what nobody has mapped, are restored into', async () => {
    const store = folder();
    const source = Region.allocate(1024 * PAGE);
    stamp(source, range(0, 700), 1);
    const model = copyOf(source);
    await withCheckpointer(store, { regions: { r: source }, durability: 'relaxed' }, (c) => c.checkpoint());
    for (const content of ['reserved', 'written']) {
      const path = newPath();
      if (content === 'written') writeFileSync(path, new Uint8Array(1024 * PAGE).fill(9));
      else
        spawnSync('python3', [
          '-c',
          `import os; os.posix_fallocate(os.open("${path}", os.O_RDWR | os.O_CREAT), 0, ${1024 * PAGE})`,
        ]);
      assert.equal(taken(path), 1024 * PAGE);
      const region = Region.map(path);
      assert.deepEqual([...region.populated()], content === 'written' ? [0, 1024] : []);
      await withCheckpointer(store, { regions: { r: region }, durability: 'relaxed' }, async (c) => {
        const { filledPages, zeroedPages } = (await c.restore(1)).stats();
        assert.deepEqual([filledPages, zeroedPages], [700, content === 'written' ? 324 : 0]);
        assertSame(region, model, content);
        stamp(region, [1, 900], 2);
        assert.equal((await c.checkpoint()).regions.r!.pages, 2);
      });
      assertSame(readFileSync(path), copyOf(region));
      region.close();
    }
    source.close();
  });

  it('are unmapped when their buffer is collected, and stay as long as it is not', async () => {
    const path = newPath();
    const counts = await inChild(
      { flags: ['--expose-gc'] },
      async ({ Region, fs, PAGE }, path) => {
        const mappings = () => fs.readFileSync('/proc/self/maps', 'latin1').split(path).length - 1;
        const descriptors = () => fs.readdirSync('/proc/self/fd').length;
        let region: Region | undefined = Region.map(path, { create: true, byteLength: 4 * PAGE });
        let buffer: ArrayBufferLike | undefined = region.buffer;
        region.close();
        region = undefined;
        const collect = async () => {
          for (let k = 0; k < 5; k++) {
            (globalThis as unknown as { gc(): void }).gc();
            await new Promise((resolve) => setTimeout(resolve, 10));
          }
        };
        await collect();
        const before = [mappings(), buffer.byteLength, descriptors()] as [number, number, number];
        buffer = undefined;
        await collect();
        return [before[0], before[1], mappings(), before[2] - descriptors()];
      },
      path,
    );
    assert.deepEqual(counts, [1, 4 * PAGE, 0, 1]);
  });

  it('are a capability, found by trying', () => {
    assert.equal(capabilities().tracksShared, true);
    assert.ok(capabilities().features.includes('WP_HUGETLBFS_SHMEM'));
  });

  it('outlive the process that mapped them, and are not what a store holds', async () => {
    const path = newPath();
    const store = folder();
    await inChild(
      {},
      async ({ Region, stamp, withCheckpointer, crash, PAGE }, path, store) => {
        const region = Region.map(path, { create: true, byteLength: 8 * PAGE });
        await withCheckpointer(store, { regions: { r: region } }, async (c) => {
          stamp(region, [0, 1], 1);
          await c.checkpoint();
          stamp(region, [1, 2], 2);
          await crash(true);
        });
      },
      path,
      store,
    );
    const region = Region.map(path);
    const left = copyOf(region);
    await withCheckpointer(store, { regions: { r: region } }, async (c) => {
      assert.equal(await outcome(c.checkpoint()), 'TIDEMARK_NOT_RESTORED');
      await c.restore();
      assert.notEqual(Buffer.compare(left, copyOf(region)), 0);
      const expected = new Uint8Array(8 * PAGE);
      stamp(expected, [0, 1], 1);
      assertSame(region, expected);
      stamp(region, [3], 3);
      assert.equal((await c.checkpoint()).regions.r!.pages, 1);
      assertSame(readFileSync(path), copyOf(region));
    });
    region.close();
  });
});
