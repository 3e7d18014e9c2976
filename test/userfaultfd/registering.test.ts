import assert from 'node:assert/strict';
import { addon } from '../../lib/kernel/addon.js';
import { type RegisterOptions, Userfaultfd, type UserfaultfdMode } from '../../lib/userfaultfd/index.js';
import { Memory, resizable } from '../support/memories.js';
import { child, opened, PAGE, shared } from './support.js';

const code = (expected: string) => ({ code: expected });

describe('userfaultfd: registering', () => {
  it('UFFDIO_REGISTER: answers which ioctls the memory takes, by mode', () => {
    const expected: [UserfaultfdMode[], string[]][] = [
      [['missing'], ['WAKE', 'COPY', 'ZEROPAGE', 'MOVE', 'POISON']],
      [['wp'], ['WAKE', 'COPY', 'ZEROPAGE', 'MOVE', 'WRITEPROTECT', 'POISON']],
      [
        ['missing', 'wp'],
        ['WAKE', 'COPY', 'ZEROPAGE', 'MOVE', 'WRITEPROTECT', 'POISON'],
      ],
    ];
    for (const [modes, ioctls] of expected) {
      const { uffd, registration } = opened(4, modes);
      assert.deepEqual([registration.modes, registration.ioctls], [modes, ioctls]);
      assert.deepEqual([registration.byteLength, registration.pageSize], [4 * PAGE, PAGE]);
      assert.equal(registration.userfaultfd, uffd);
      assert.deepEqual(uffd.registrations, [registration]);
      uffd.close();
    }
  });

  it('MODE_MISSING, MODE_WP: each raises its faults and not the other', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, filled, plain, PAGE }) => {
      const results: unknown[] = [];
      for (const modes of [['missing'], ['wp'], ['missing', 'wp']] as const) {
        const { uffd, view, registration } = opened(2, [...modes]);
        const toucher = new Toucher(view);
        const missing: boolean = modes[0] === 'missing';
        if (missing) {
          const writing = toucher.write(0, 1);
          results.push(plain(await nextFault(uffd)));
          registration.copy(0, filled(0));
          await writing;
        } else await toucher.write(0, 1);
        const last = modes.at(-1);
        if (last === 'wp') {
          registration.writeProtect(0, PAGE);
          const writing = toucher.write(0, 2);
          results.push(plain(await nextFault(uffd)));
          registration.writeProtect(0, PAGE, { wp: false });
          await writing;
        } else await toucher.write(0, 2);
        results.push(view[0]);
      }
      return results;
    });
    const event = { type: 'pagefault', byteOffset: 0, byteLength: PAGE, write: true, wp: false, minor: false };
    assert.deepEqual(found, [event, 2, { ...event, wp: true }, 2, event, { ...event, wp: true }, 2]);
  });

  it('UFFDIO_UNREGISTER: who waits goes on, what is missing is zero, and another may have the memory', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, Userfaultfd, codeOf }) => {
      const { uffd, view, registration } = opened(4, ['missing']);
      const toucher = new Toucher(view);
      const reading = toucher.read(0);
      await nextFault(uffd);
      const other = Userfaultfd.open();
      const busy = codeOf(() => other.register(view, { modes: ['missing'] }));
      registration.unregister();
      registration.unregister();
      const read = await reading;
      other.register(view, { modes: ['missing'] }).unregister();
      const closed = codeOf(() => registration.zeropage(0, 4096));
      return { busy, read, closed, left: uffd.registrations.length, second: await toucher.read(4096) };
    });
    assert.deepEqual(found, { busy: 'TIDEMARK_REGION_BUSY', read: 0, closed: 'TIDEMARK_CLOSED', left: 0, second: 0 });
  });

  it('UFFDIO_UNREGISTER: ends MODE_WP and MODE_MINOR as well', async () => {
    const found = await child(async ({ opened, addon, Userfaultfd, Toucher, nextFault, pool, silent, PAGE }) => {
      const { uffd, view, registration } = opened(2, ['wp']);
      view.fill(1);
      registration.writeProtect(0, 2 * PAGE);
      const writing = new Toucher(view).write(0, 2);
      await nextFault(uffd);
      registration.unregister();
      const written = [await writing, await new Toucher(view).write(PAGE, 2)];

      const [one, two] = addon().uffdMapTwice(2 * PAGE, false);
      const mapped = new Uint8Array(one);
      new Uint8Array(two).fill(3);
      const other = Userfaultfd.open();
      const minor = other.register(mapped, { modes: ['minor'] });
      const reading = pool.read(mapped, 0);
      await nextFault(other);
      minor.unregister();
      const read = [await reading, await pool.read(mapped, PAGE)];
      return { written, read, quiet: [await silent(uffd), await silent(other)] };
    });
    assert.deepEqual(found, { written: [2, 2], read: [3, 3], quiet: [true, true] });
  });

  it('wakes who waits for what is no event any more, when other modes replace those of a registration', async () => {
    const found = await child(async ({ opened, Toucher, nextFault }) => {
      const { uffd, view, registration } = opened(2, ['missing']);
      const reading = new Toucher(view).read(0);
      await nextFault(uffd);
      uffd.register(view, { modes: ['wp'] });
      return { read: await reading, modes: registration.modes };
    });
    assert.deepEqual(found, { read: 0, modes: ['wp'] });
  });

  it('takes parts of buffers that may grow and of WebAssembly memory, and follows that when it grows', () => {
    const uffd = Userfaultfd.open();
    const memory = new Memory({ initial: 2, maximum: 8 });
    const part = uffd.register(memory, { modes: ['missing'], byteOffset: 65536, byteLength: 65536 });
    memory.grow(2);
    assert.deepEqual(part.zeropage(0, 65536), { byteLength: 65536, error: null });
    assert.equal(part.bytes.byteOffset, 65536);
    assert.equal(part.bytes[5], 0);
    const whole = uffd.register(resizable(2 * PAGE), { modes: ['wp'] });
    assert.equal(whole.byteLength, 2 * PAGE);
    assert.equal(uffd.register(shared(4).subarray(PAGE, 3 * PAGE), { modes: ['missing'] }).byteLength, 2 * PAGE);
    uffd.close();
  });

  it('gives the same registration for the same memory, with the modes it has now', () => {
    const uffd = Userfaultfd.open();
    const view = shared(4);
    const first = uffd.register(view, { modes: ['missing'] });
    const again = (modes: UserfaultfdMode[]) => {
      assert.equal(uffd.register(view, { modes }), first);
      return first.modes;
    };
    assert.deepEqual(again(['missing', 'wp']), ['missing', 'wp']);
    assert.ok(first.ioctls.includes('WRITEPROTECT'));
    // Nothing can be taken off a range in this way.
    assert.deepEqual(again(['missing']), ['missing', 'wp']);
    assert.deepEqual(first.writeProtect(0, PAGE), { byteLength: PAGE, error: null });
    const second = uffd.register(shared(1), { modes: ['missing'] });
    assert.equal(uffd.register(second.bytes, { modes: ['wp'] }), second);
    assert.deepEqual([second.modes, second.ioctls.includes('WRITEPROTECT')], [['wp'], true]);
    // It is as the kernel has it: nothing is missing there any more.
    assert.equal(second.bytes[0], 0);
    assert.throws(() => uffd.register(view.subarray(PAGE), { modes: ['missing'] }), RangeError);
    uffd.close();
  });

  it('refuses what is outside a registration or its pages before the kernel is asked', () => {
    const { uffd, view, registration } = opened(4, ['missing', 'wp']);
    const source = new Uint8Array(PAGE);
    const outside: [number, number][] = [
      [4 * PAGE, PAGE],
      [3 * PAGE, 2 * PAGE],
      [0, 5 * PAGE],
      [2 ** 52, PAGE],
      [0, 0],
      [1, PAGE],
      [0, PAGE + 1],
      [-PAGE, PAGE],
    ];
    for (const [at, length] of outside) {
      assert.throws(() => registration.zeropage(at, length), RangeError, `${at}, ${length}`);
      for (const verb of ['writeProtect', 'continue', 'poison', 'wake'] as const)
        assert.throws(() => registration[verb](at, length), RangeError, verb);
    }
    for (const verb of ['copy', 'move'] as const) {
      for (const at of [4 * PAGE, 2 ** 52, 5, -PAGE]) assert.throws(() => registration[verb](at, source), RangeError, verb);
      assert.throws(() => registration[verb](0, source.subarray(1)), RangeError);
      assert.throws(() => registration[verb](0, new Uint8Array(0)), RangeError);
      assert.throws(() => registration[verb](0, 'page' as unknown as Uint8Array), TypeError);
    }
    assert.throws(() => registration.copy(0.5, source), TypeError);
    assert.throws(() => registration.copy(0, source, { dontwake: true } as object), TypeError);
    assert.throws(() => registration.copy(0, source, { wp: 1 } as object), TypeError);
    // Nothing of all that has made a page.
    assert.deepEqual(registration.zeropage(0, 4 * PAGE), { byteLength: 4 * PAGE, error: null });
    assert.equal(view.length, 4 * PAGE);
    uffd.close();
  });

  it('is told apart by the native side, too', () => {
    const { uffd, view } = opened(4, ['missing']);
    const id = addon().uffdOpen(true, false, 0, false, false).id;
    const own = shared(1);
    const { range } = addon().uffdRegister(id, own, 1);
    assert.throws(() => addon().uffdZeropage(id, range, view, 0, PAGE, 0), code('ERR_MOVED'));
    assert.throws(() => addon().uffdZeropage(id, range, new Uint8Array(0), 0, PAGE, 0), code('ERR_MOVED'));
    assert.throws(() => addon().uffdZeropage(id, range + 1, view, 0, PAGE, 0), code('ERR_CLOSED'));
    // The kernel would take a COPY by any descriptor into memory that any other has registered.
    const stranger = addon().uffdOpen(true, false, 0, false, false).id;
    assert.throws(() => addon().uffdCopy(stranger, range, own, 0, new Uint8Array(PAGE), 0), code('ERR_CLOSED'));
    addon().uffdClose(stranger);
    for (const [at, length] of [
      [0, 2 * PAGE],
      [PAGE, PAGE],
      [2 ** 52, PAGE],
      [0, 0],
      [8, PAGE],
    ] as const)
      assert.throws(() => addon().uffdZeropage(id, range, own, at, length, 0), RangeError, `${at}, ${length}`);
    assert.deepEqual(addon().uffdZeropage(id, range, own, 0, PAGE, 0), { byteLength: PAGE, error: null });
    addon().uffdClose(id);
    addon().uffdClose(id);
    assert.throws(() => addon().uffdZeropage(id, range, view, 0, PAGE, 0), code('ERR_CLOSED'));
    uffd.close();
  });

  it('refuses memory that was detached or has shrunk, and lets its place be registered again', () => {
    const uffd = Userfaultfd.open();
    const buffer = resizable(4 * PAGE);
    const shrunk = uffd.register(buffer, { modes: ['wp'] });
    buffer.resize(2 * PAGE);
    assert.throws(() => shrunk.writeProtect(0, PAGE), code('TIDEMARK_TRACKING_LOST'));
    assert.throws(() => shrunk.bytes, code('TIDEMARK_TRACKING_LOST'));
    assert.throws(() => shrunk.unregister(), code('TIDEMARK_TRACKING_LOST'));
    const rest = uffd.register(buffer, { modes: ['wp'] });
    assert.deepEqual(rest.writeProtect(0, 2 * PAGE), { byteLength: 2 * PAGE, error: null });
    assert.deepEqual(uffd.registrations, [rest]);

    const source = resizable(2 * PAGE);
    const moved = uffd.register(source, { modes: ['wp'] });
    const elsewhere = structuredClone(source, { transfer: [source] });
    assert.throws(() => moved.writeProtect(0, PAGE), code('TIDEMARK_TRACKING_LOST'));
    assert.equal(elsewhere.byteLength, 2 * PAGE);
    uffd.close();
  });

  it('refuses misuse and what the kernel refuses', () => {
    const uffd = Userfaultfd.open();
    const wrong: object[] = [{}, { modes: 'missing' }, { modes: ['lost'] }, { modes: ['missing'], offset: 0 }];
    for (const options of wrong) assert.throws(() => uffd.register(shared(1), options as RegisterOptions), TypeError);
    assert.throws(() => uffd.register(shared(1), { modes: [] }), RangeError);
    assert.throws(() => uffd.register('memory' as unknown as Uint8Array, { modes: ['missing'] }), TypeError);
    assert.throws(() => uffd.register(shared(1), { modes: ['missing'], byteOffset: 0 }), TypeError);
    assert.throws(() => uffd.register(shared(2).buffer, { modes: ['missing'], byteOffset: 3 * PAGE }), RangeError);
    assert.throws(() => uffd.register(shared(2).subarray(1), { modes: ['missing'] }), code('TIDEMARK_UNALIGNED'));
    assert.throws(() => uffd.register(new Uint8Array(0), { modes: ['missing'] }), code('TIDEMARK_UNALIGNED'));
    // Minor faults are of shared memory only.
    assert.throws(() => uffd.register(shared(1), { modes: ['minor'] }), code('TIDEMARK_KERNEL_UNSUPPORTED'));
    uffd.close();
  });
});
