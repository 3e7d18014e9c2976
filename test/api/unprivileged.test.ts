import assert from 'node:assert/strict';
import { inChild } from '../support/in-child.js';
import { AS_NOBODY, openFolders, whyPrivileged } from '../support/nobody.js';

const NOBODY = { wrapper: [...AS_NOBODY], limitMs: 30_000 };
/** Nothing is filled ahead: what is missing stays so until it is touched. */
const HELD = { ...NOBODY, faults: 'lazy.hold:1:1000000' };
const HELD_SOON = { ...NOBODY, faults: 'lazy.hold:1:10' };

describe('a user without privileges', () => {
  const folder = openFolders();
  const privileged = whyPrivileged();

  it('has tracking, checkpoints, eager restores, in place too', async () => {
    const result = await inChild(
      NOBODY,
      async (kit, path) => {
        await kit.makeSample(path);
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
        const c = await kit.Checkpointer.open(path, { regions: { r: region } });
        await c.restore();
        const fresh = Buffer.compare(kit.bytesOf(region), kit.sampleMemory());
        kit.edit(region, [3, 120, 4000], 5);
        const file = kit.fs.openSync('/dev/zero', 'r');
        kit.fs.readSync(file, kit.bytesOf(region), 2500 * kit.PAGE, kit.PAGE, null);
        const { pages, zeroPages } = (await c.checkpoint()).regions.r!;
        kit.edit(region, [4, 121], 6);
        const { inPlace, filledPages } = (await c.restore(2)).stats();
        const back = Buffer.compare(kit.bytesOf(region), kit.sampleMemory());
        const idle = (await c.checkpoint()).regions.r!.pages;
        await c.close();
        return { uid: process.getuid!() === 0, fresh, pages, zeroPages, inPlace, filledPages, back, idle };
      },
      folder(),
    );
    assert.deepEqual(result, {
      uid: false,
      fresh: 0,
      pages: 3,
      zeroPages: 1,
      inPlace: true,
      filledPages: 5,
      back: 0,
      idle: 0,
    });
  });

  if (privileged !== undefined) {
    it(`may serve faults of the kernel on this system (${privileged}): what he lacks elsewhere is not tested`, async () => {
      const found = await inChild(NOBODY, async (kit) => kit.capabilities().kernelFaults);
      assert.equal(found, true);
    });
    return;
  }

  it('really cannot serve faults of the kernel', async () => {
    const found = await inChild(NOBODY, async (kit) => {
      const open = (): string => {
        try {
          return String(kit.fs.openSync('/dev/userfaultfd', 'r+'));
        } catch (error) {
          return (error as { code: string }).code;
        }
      };
      const { descriptor, kernelFaults, tracking } = kit.capabilities();
      const sysctl = kit.fs.readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'utf8').trim();
      return { descriptor, kernelFaults, tracking, open: open(), sysctl };
    });
    assert.ok(['EACCES', 'EPERM', 'ENOENT'].includes(found.open), found.open);
    assert.deepEqual(
      { ...found, open: '' },
      { descriptor: 'syscall-user-mode', kernelFaults: false, tracking: true, open: '', sysctl: '0' },
    );
  });

  it('is told what to do where a lazy restore needs them, and the memory is as it was', async () => {
    const result = await inChild(
      NOBODY,
      async (kit, path) => {
        await kit.makeSample(path);
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
        const c = await kit.Checkpointer.open(path, { regions: { r: region } });
        kit.stamp(region, 9, 9);
        const before = kit.hashOf(region);
        const error = await c.restore(undefined, { lazy: true }).then(
          () => ({ code: 'ok', hint: '', retryable: false }),
          ({ code, hint, retryable }: { code: string; hint: string; retryable: boolean }) => ({ code, hint, retryable }),
        );
        const same = kit.hashOf(region) === before;
        await c.restore();
        await c.close();
        return { ...error, same, whole: Buffer.compare(kit.bytesOf(region), kit.sampleMemory()) };
      },
      folder(),
    );
    for (const remedy of [
      '/dev/userfaultfd',
      '--device',
      'CAP_SYS_PTRACE',
      'vm.unprivileged_userfaultfd=1',
      'user-faults',
      'ensureResident',
    ])
      assert.ok(result.hint.includes(remedy), `${remedy} in: ${result.hint}`);
    assert.deepEqual({ ...result, hint: '' }, { code: 'TIDEMARK_PERMISSION', hint: '', retryable: false, same: true, whole: 0 });
  });

  it('with faults of user mode reads and writes what is missing from JavaScript, in every thread', async () => {
    const result = await inChild(
      HELD,
      async (kit, path) => {
        const { Worker } = await import('node:worker_threads');
        await kit.makeSample(path);
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE, { shared: true });
        const c = await kit.Checkpointer.open(path, { regions: { r: region } });
        const restoration = await c.restore(undefined, { lazy: 'user-faults' });
        const bytes = kit.bytesOf(region);
        const model = kit.sampleMemory();
        kit.edit(region, [5, 110, 4000], 7);
        kit.edit(model, [5, 110, 4000], 7);
        const code = `const { workerData } = require('node:worker_threads'); new Uint8Array(workerData)[700 * 4096 + 7] = 7;`;
        const worker = new Worker(code, { eval: true, execArgv: [], workerData: region.buffer });
        await new Promise((resolve) => worker.once('exit', resolve));
        model[700 * kit.PAGE + 7] = 7;
        const left = restoration.stats().lazy!.missingPages;
        const first = await c.checkpoint();
        const whole = Buffer.compare(bytes, model);
        return kit.crash({
          left: left > 2800,
          faults: restoration.stats().lazy!.faults > 100,
          pages: first.regions.r!.pages,
          whole,
        });
      },
      folder(),
    );
    assert.deepEqual(result, { left: true, faults: true, pages: 4, whole: 0 });
  });

  it('gets EFAULT from system calls on what is missing, and not after ensureResident()', async () => {
    const result = await inChild(
      HELD,
      async (kit, path) => {
        await kit.makeSample(path);
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
        const c = await kit.Checkpointer.open(path, { regions: { r: region } });
        const restoration = await c.restore(undefined, { lazy: 'user-faults' });
        const bytes = kit.bytesOf(region);
        kit.fs.writeFileSync(`${path}-file`, new Uint8Array(kit.PAGE));
        const file = await kit.fs.promises.open(`${path}-file`, 'r+');
        const write = (page: number) => kit.outcome(file.write(bytes, page * kit.PAGE, kit.PAGE, 0));
        const read = (page: number) => kit.outcome(file.read(bytes, page * kit.PAGE, kit.PAGE, 0));
        // A page that is stored, as a delta, and one of zeros.
        const pages = [1000, 120, 3500];
        const before = [];
        for (const page of pages) before.push(await write(page));
        before.push(await read(1500));
        for (const page of pages) await restoration.ensureResident('r', page * kit.PAGE + 5, 1);
        const after = [];
        for (const page of pages) after.push(await write(page));
        const same = kit.fs.readFileSync(`${path}-file`).every((byte) => byte === 0);
        // What the kernel writes into them is in the next checkpoint.
        await restoration.ensureResident('r', 1500 * kit.PAGE, kit.PAGE);
        after.push(await read(1500));
        const { pages: taken, zeroPages } = (await c.checkpoint()).regions.r!;
        await file.close();
        return kit.crash({ before, after, same, taken, zeroPages });
      },
      folder(),
    );
    assert.deepEqual(result, {
      before: ['EFAULT', 'EFAULT', 'EFAULT', 'EFAULT'],
      after: ['ok', 'ok', 'ok', 'ok'],
      same: true,
      taken: 0,
      zeroPages: 1,
    });
  });

  it('needs ensureResident() for pages of zeros when all else is there, too', async () => {
    const result = await inChild(
      HELD_SOON,
      async (kit, path) => {
        await kit.makeSample(path);
        const region = kit.Region.allocate(kit.SAMPLE_PAGES * kit.PAGE);
        const c = await kit.Checkpointer.open(path, { regions: { r: region } });
        const restoration = await c.restore(undefined, { lazy: 'user-faults' });
        await restoration.done;
        const bytes = kit.bytesOf(region);
        const whole = Buffer.compare(bytes.subarray(0, 3000 * kit.PAGE), kit.sampleMemory().subarray(0, 3000 * kit.PAGE));
        const file = await kit.fs.promises.open(`${path}-file`, 'w+');
        const write = (page: number) => kit.outcome(file.write(bytes, page * kit.PAGE, 4 * kit.PAGE, 0));
        const codes = [await write(2990), await write(3600)];
        await restoration.ensureResident('r', 3600 * kit.PAGE, 4 * kit.PAGE);
        codes.push(await write(3600));
        const idle = (await c.checkpoint()).regions.r!;
        // An eager restore that follows leaves that as it is.
        kit.edit(region, 9, 9);
        const again = await c.restore();
        codes.push(await write(3700));
        await again.ensureResident('r', 3700 * kit.PAGE, 4 * kit.PAGE);
        codes.push(await write(3700));
        const back = Buffer.compare(bytes, kit.sampleMemory());
        await file.close();
        await c.close();
        return { whole, codes, idle: [idle.pages, idle.zeroPages, idle.unchangedPages], back };
      },
      folder(),
    );
    assert.deepEqual(result, { whole: 0, codes: ['ok', 'EFAULT', 'ok', 'EFAULT', 'ok'], idle: [0, 0, 0], back: 0 });
  });
});
