import assert from 'node:assert/strict';
import { addon } from '../../lib/kernel/addon.js';
import { child, filled, opened, PAGE, shared } from './support.js';

const done = (pages: number) => ({ byteLength: pages * PAGE, error: null });
const stopped = (pages: number, error: string) => ({ byteLength: pages * PAGE, error });

describe('userfaultfd: ioctls', () => {
  it('UFFDIO_COPY: fills missing pages and wakes who waits; MODE_DONTWAKE does not, UFFDIO_WAKE does', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, filled, waits, PAGE }) => {
      const { uffd, view, registration } = opened(4, ['missing']);
      const toucher = new Toucher(view);
      let reading = toucher.read(PAGE + 7);
      const { byteOffset } = await nextFault(uffd);
      const copied = registration.copy(byteOffset, filled(5));
      const read = await reading;
      reading = toucher.read(2 * PAGE);
      await nextFault(uffd);
      const quiet = registration.copy(2 * PAGE, filled(6), { dontWake: true });
      const asleep = await waits(reading);
      const woken = registration.wake(2 * PAGE, PAGE);
      return { byteOffset, copied, read, quiet, asleep, woken, second: await reading };
    });
    assert.deepEqual(found, {
      byteOffset: PAGE,
      copied: done(1),
      read: 5,
      quiet: done(1),
      asleep: true,
      woken: done(1),
      second: 6,
    });
  });

  it('UFFDIO_COPY: MODE_WP protects in the same step, and needs a registration for that', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, filled, PAGE }) => {
      const { uffd, view, registration } = opened(2, ['missing', 'wp']);
      registration.copy(0, filled(5), { wp: true });
      registration.copy(PAGE, filled(5));
      const toucher = new Toucher(view);
      const free = await toucher.write(PAGE, 8);
      const writing = toucher.write(0, 9);
      const { wp, write } = await nextFault(uffd);
      const before = view[0];
      registration.writeProtect(0, PAGE, { wp: false });
      return {
        free,
        wp,
        write,
        before,
        after: await writing,
        without: opened(1, ['missing']).registration.copy(0, filled(1), { wp: true }),
      };
    });
    assert.deepEqual(found, { free: 8, wp: true, write: true, before: 5, after: 9, without: stopped(0, 'EINVAL') });
  });

  it('UFFDIO_COPY: says how far it came, and the next call why', () => {
    const { uffd, view, registration } = opened(8, ['missing']);
    assert.deepEqual(registration.copy(2 * PAGE, filled(1)), done(1));
    assert.deepEqual(registration.copy(0, filled(2, 4)), stopped(2, 'EAGAIN'));
    assert.deepEqual(registration.copy(2 * PAGE, filled(2, 2)), stopped(0, 'EEXIST'));
    assert.deepEqual(registration.copy(3 * PAGE, filled(2)), done(1));
    assert.deepEqual(
      [0, 1, 2, 3].map((page) => view[page * PAGE]),
      [2, 2, 1, 2],
    );
    uffd.close();
  });

  it('UFFDIO_COPY: takes a source of any alignment, also from the same registration', () => {
    const { uffd, view, registration } = opened(3, ['missing']);
    const source = new Uint8Array(PAGE + 13).map((_, k) => k % 251).subarray(13);
    assert.deepEqual(registration.copy(0, source), done(1));
    assert.deepEqual(registration.copy(PAGE, view.subarray(0, PAGE)), done(1));
    assert.deepEqual(view.slice(0, PAGE), source);
    assert.deepEqual(view.slice(PAGE, 2 * PAGE), source);
    uffd.close();
  });

  it('UFFDIO_ZEROPAGE: makes missing pages zero; MODE_DONTWAKE; says how far it came', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, filled, waits, PAGE }) => {
      const { uffd, view, registration } = opened(8, ['missing']);
      const toucher = new Toucher(view);
      let reading = toucher.read(0);
      await nextFault(uffd);
      const zeroed = registration.zeropage(0, PAGE);
      const read = await reading;
      reading = toucher.read(PAGE);
      await nextFault(uffd);
      registration.zeropage(PAGE, PAGE, { dontWake: true });
      const asleep = await waits(reading);
      registration.wake(PAGE, PAGE);
      const second = await reading;
      registration.copy(4 * PAGE, filled(1));
      return {
        zeroed,
        read,
        asleep,
        second,
        partial: registration.zeropage(2 * PAGE, 4 * PAGE),
        why: registration.zeropage(4 * PAGE, 2 * PAGE),
      };
    });
    assert.deepEqual(found, {
      zeroed: done(1),
      read: 0,
      asleep: true,
      second: 0,
      partial: stopped(2, 'EAGAIN'),
      why: stopped(0, 'EEXIST'),
    });
  });

  it('UFFDIO_MOVE: moves pages and leaves zeros; MODE_DONTWAKE; MODE_ALLOW_SRC_HOLES', async () => {
    const found = await child(async ({ opened, shared, Toucher, nextFault, waits, PAGE }) => {
      const { uffd, view, registration } = opened(8, ['missing'], { features: ['MOVE'] });
      const source = shared(8).fill(3);
      const toucher = new Toucher(view);
      let reading = toucher.read(0);
      await nextFault(uffd);
      const moved = registration.move(0, source.subarray(0, 2 * PAGE));
      const read = await reading;
      const left = source[0];
      reading = toucher.read(2 * PAGE);
      await nextFault(uffd);
      registration.move(2 * PAGE, source.subarray(2 * PAGE, 3 * PAGE), { dontWake: true });
      const asleep = await waits(reading);
      registration.wake(2 * PAGE, PAGE);
      // Its first three pages are holes now, but for the one that was read.
      const second = await reading;
      const holes = registration.move(3 * PAGE, source.subarray(PAGE, 2 * PAGE));
      const allowed = registration.move(3 * PAGE, source.subarray(2 * PAGE, 4 * PAGE), { allowSrcHoles: true });
      const filled = view[4 * PAGE];
      const still = toucher.read(3 * PAGE);
      const { byteOffset } = await nextFault(uffd);
      const exists = registration.move(0, source.subarray(4 * PAGE, 5 * PAGE));
      uffd.close();
      return { moved, read, left, asleep, second, holes, allowed, filled, byteOffset, exists, still: await still };
    });
    assert.deepEqual(found, {
      moved: done(2),
      read: 3,
      left: 0,
      asleep: true,
      second: 3,
      holes: stopped(0, 'ENOENT'),
      allowed: done(2),
      filled: 3,
      byteOffset: 3 * PAGE,
      exists: stopped(0, 'EEXIST'),
      still: 0,
    });
  });

  it('UFFDIO_MOVE: refuses what is not a page of private memory', () => {
    const { uffd, registration } = opened(2, ['missing']);
    assert.deepEqual(
      registration.move(
        0,
        shared(2)
          .fill(1)
          .subarray(5, PAGE + 5),
      ),
      stopped(0, 'EINVAL'),
    );
    const [file] = addon().uffdMapTwice(PAGE, false);
    assert.deepEqual(registration.move(0, new Uint8Array(file).fill(1)), stopped(0, 'EINVAL'));
    uffd.close();
  });

  it('UFFDIO_MOVE: refuses pages that a child shares', async () => {
    const found = await child(async ({ inherited, addon, filled, nextFault, next, reaped, shared, PAGE }) => {
      const { uffd, view, registration } = inherited(2, ['missing'], { features: ['EVENT_FORK'], forks: 'keep' });
      registration.copy(0, filled(5));
      // The child waits for a page, and shares the other.
      const pid = addon().uffdFork(view.subarray(PAGE));
      const event = await next(uffd);
      const theirs = event.type === 'fork' ? event.child! : uffd;
      await nextFault(theirs);
      const target = uffd.register(shared(1), { modes: ['missing'] });
      const shares = target.move(0, view.subarray(0, PAGE));
      theirs.close();
      return { shares, status: await reaped(pid), kept: view[0] };
    });
    assert.deepEqual(found, { shares: stopped(0, 'EBUSY'), status: 0, kept: 5 });
  });

  it('UFFDIO_WRITEPROTECT: MODE_WP protects, without it takes off and wakes; MODE_DONTWAKE does not wake', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, waits, PAGE }) => {
      const { uffd, view, registration } = opened(4, ['wp']);
      view.fill(1);
      const protect = registration.writeProtect(0, 2 * PAGE);
      const toucher = new Toucher(view);
      const free = await toucher.write(2 * PAGE, 2);
      let writing = toucher.write(0, 2);
      const { wp, byteOffset } = await nextFault(uffd);
      const off = registration.writeProtect(0, PAGE, { wp: false });
      const first = await writing;
      writing = toucher.write(PAGE, 3);
      await nextFault(uffd);
      registration.writeProtect(PAGE, PAGE, { wp: false, dontWake: true });
      const asleep = await waits(writing);
      registration.wake(PAGE, PAGE);
      const second = await writing;
      // It makes no sense, says the kernel.
      return {
        protect,
        free,
        wp,
        byteOffset,
        off,
        first,
        asleep,
        second,
        both: registration.writeProtect(0, PAGE, { dontWake: true }),
      };
    });
    assert.deepEqual(found, {
      protect: done(2),
      free: 2,
      wp: true,
      byteOffset: 0,
      off: done(1),
      first: 2,
      asleep: true,
      second: 3,
      both: stopped(0, 'EINVAL'),
    });
    const { uffd, registration } = opened(1, ['missing']);
    assert.deepEqual(registration.writeProtect(0, PAGE), stopped(0, 'ENOENT'));
    uffd.close();
  });

  it('UFFDIO_POISON: EFAULT for system calls, SIGBUS for programs, for good; MODE_DONTWAKE', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, kernelReads, waits, PAGE }) => {
      const { uffd, view, registration } = opened(8, ['missing'], { features: ['POISON'] });
      const toucher = new Toucher(view);
      let reading = toucher.kernel(0);
      await nextFault(uffd);
      const poisoned = registration.poison(0, PAGE);
      const first = await reading;
      reading = toucher.kernel(PAGE);
      await nextFault(uffd);
      registration.poison(PAGE, PAGE, { dontWake: true });
      const asleep = await waits(reading);
      registration.wake(PAGE, PAGE);
      const second = await reading;
      registration.zeropage(4 * PAGE, PAGE);
      const partial = registration.poison(2 * PAGE, 4 * PAGE);
      const why = registration.poison(4 * PAGE, 2 * PAGE);
      uffd.close();
      return { poisoned, first, asleep, second, partial, why, after: [0, 2, 4].map((page) => kernelReads(view, page * PAGE)) };
    });
    assert.deepEqual(found, {
      poisoned: done(1),
      first: 'EFAULT',
      asleep: true,
      second: 'EFAULT',
      partial: stopped(2, 'EAGAIN'),
      why: stopped(0, 'EEXIST'),
      after: ['EFAULT', 'EFAULT', ''],
    });
    const killed = child(async ({ opened, PAGE }) => {
      const { view, registration } = opened(1, ['missing'], { features: ['POISON'] });
      registration.poison(0, PAGE);
      return view[0];
    });
    await assert.rejects(killed, /signal SIGBUS/);
  });

  it('asks the kernel once: EAGAIN comes back where the mappings of the process are changing', async () => {
    const found = await child(async ({ shared, filled, addon, Dropper, pause, PAGE }) => {
      // Nobody reads the events of this one, so whoever drops memory stays in the middle of it.
      const { id } = addon().uffdOpen(true, false, 1 << 3, false, false);
      const view = shared(4);
      const { range } = addon().uffdRegister(id, view, 1);
      const before = addon().uffdCopy(id, range, view, 0, filled(1), 0);
      const dropper = new Dropper(view);
      const dropped = dropper.drop();
      await pause(300);
      const again = [
        addon().uffdCopy(id, range, view, PAGE, filled(1), 0),
        addon().uffdZeropage(id, range, view, PAGE, PAGE, 0),
        addon().uffdPoison(id, range, view, PAGE, PAGE, 0),
        addon().uffdMove(id, range, view, PAGE, shared(1).fill(1), 0),
      ];
      addon().uffdClose(id);
      return { before, again, dropped: await dropped };
    });
    assert.deepEqual(found, { before: done(1), again: Array(4).fill(stopped(0, 'EAGAIN')), dropped: 'dropped' });
  });

  it('POISON and MOVE need not be asked for', () => {
    const { uffd, registration } = opened(2, ['missing']);
    assert.deepEqual(uffd.features, []);
    assert.deepEqual(registration.move(0, shared(1).fill(1)), done(1));
    assert.deepEqual(registration.poison(PAGE, PAGE), done(1));
    uffd.close();
  });
});
