import assert from 'node:assert/strict';
import { child, PAGE } from './support.js';

const done = (pages: number) => ({ byteLength: pages * PAGE, error: null });

describe('userfaultfd: shared memory', () => {
  it('MISSING_SHMEM: missing pages of a memfd are events, and what is copied there is in the other mapping, too', async () => {
    const found = await child(async ({ addon, Userfaultfd, nextFault, plain, pool, filled, PAGE }) => {
      const [one, two] = addon()
        .uffdMapTwice(4 * PAGE, false)
        .map((buffer) => new Uint8Array(buffer)) as [Uint8Array, Uint8Array];
      const uffd = Userfaultfd.open({ features: ['MISSING_SHMEM'] });
      const registration = uffd.register(one, { modes: ['missing'] });
      const reading = pool.read(one, PAGE + 3);
      const event = plain(await nextFault(uffd));
      const copied = registration.copy(PAGE, filled(7));
      const read = await reading;
      // It is in the file already.
      two[2 * PAGE] = 9;
      const present = [registration.copy(2 * PAGE, filled(7)), one[2 * PAGE]];
      const zero = [registration.zeropage(3 * PAGE, PAGE), one[3 * PAGE]];
      return { ioctls: registration.ioctls, event, copied, read, other: two[PAGE], present, zero };
    });
    assert.deepEqual(found, {
      ioctls: ['WAKE', 'COPY', 'ZEROPAGE', 'MOVE', 'POISON'],
      event: { type: 'pagefault', byteOffset: PAGE, byteLength: PAGE, write: false, wp: false, minor: false },
      copied: done(1),
      read: 7,
      other: 7,
      present: [{ byteLength: 0, error: 'EEXIST' }, 9],
      zero: [done(1), 0],
    });
  });

  it('MINOR_SHMEM, MODE_MINOR, UFFDIO_CONTINUE: a page that the file has and the mapping has not; MODE_DONTWAKE', async () => {
    const found = await child(async ({ addon, Userfaultfd, nextFault, plain, pool, waits, PAGE }) => {
      const [one, two] = addon()
        .uffdMapTwice(8 * PAGE, false)
        .map((buffer) => new Uint8Array(buffer)) as [Uint8Array, Uint8Array];
      two.fill(3, 0, 4 * PAGE);
      const uffd = Userfaultfd.open({ features: ['MINOR_SHMEM'] });
      const registration = uffd.register(one, { modes: ['minor'] });
      let reading = pool.read(one, PAGE + 1);
      const event = plain(await nextFault(uffd));
      // This is what it is for: the page is put in order before the mapping gets it.
      two[PAGE + 1] = 8;
      const continued = registration.continue(PAGE, PAGE);
      const read = await reading;
      reading = pool.read(one, 2 * PAGE);
      await nextFault(uffd);
      registration.continue(2 * PAGE, PAGE, { dontWake: true });
      const asleep = await waits(reading);
      registration.wake(2 * PAGE, PAGE);
      const second = await reading;
      const partial = registration.continue(0, 3 * PAGE);
      const why = registration.continue(PAGE, PAGE);
      const nothing = registration.continue(4 * PAGE, PAGE);
      return {
        modes: registration.modes,
        ioctls: registration.ioctls,
        event,
        continued,
        read,
        asleep,
        second,
        partial,
        why,
        nothing,
      };
    });
    assert.deepEqual(found, {
      modes: ['minor'],
      ioctls: ['WAKE', 'COPY', 'ZEROPAGE', 'MOVE', 'CONTINUE', 'POISON'],
      event: { type: 'pagefault', byteOffset: PAGE, byteLength: PAGE, write: false, wp: false, minor: true },
      continued: done(1),
      read: 8,
      asleep: true,
      second: 3,
      partial: { byteLength: PAGE, error: 'EAGAIN' },
      why: { byteLength: 0, error: 'EEXIST' },
      // The file has no such page.
      nothing: { byteLength: 0, error: 'EFAULT' },
    });
  });

  it('UFFDIO_CONTINUE: MODE_WP maps the page protected', async () => {
    const found = await child(async ({ addon, Userfaultfd, nextFault, pool, PAGE }) => {
      const [one, two] = addon()
        .uffdMapTwice(2 * PAGE, false)
        .map((buffer) => new Uint8Array(buffer)) as [Uint8Array, Uint8Array];
      two.fill(3);
      const uffd = Userfaultfd.open({ features: ['MINOR_SHMEM', 'WP_HUGETLBFS_SHMEM'] });
      const registration = uffd.register(one, { modes: ['minor', 'wp'] });
      const continued = registration.continue(0, PAGE, { wp: true });
      registration.continue(PAGE, PAGE);
      const free = await pool.write(one, PAGE, 5);
      const writing = pool.write(one, 0, 6);
      const { wp } = await nextFault(uffd);
      const before = two[0];
      registration.writeProtect(0, PAGE, { wp: false });
      return { continued, free, wp, before, written: await writing, after: two[0] };
    });
    assert.deepEqual(found, { continued: done(1), free: 5, wp: true, before: 3, written: 6, after: 6 });
  });

  it('WP_HUGETLBFS_SHMEM: pages of shared memory can be protected', async () => {
    const found = await child(async ({ addon, Userfaultfd, nextFault, plain, pool, PAGE }) => {
      const [one, two] = addon()
        .uffdMapTwice(2 * PAGE, false)
        .map((buffer) => new Uint8Array(buffer)) as [Uint8Array, Uint8Array];
      one.fill(1);
      const uffd = Userfaultfd.open({ features: ['WP_HUGETLBFS_SHMEM'] });
      const registration = uffd.register(one, { modes: ['wp'] });
      const protect = registration.writeProtect(0, PAGE);
      const writing = pool.write(one, 17, 2);
      const event = plain(await nextFault(uffd));
      const before = two[17];
      registration.writeProtect(0, PAGE, { wp: false });
      return { ioctls: registration.ioctls, protect, event, before, written: await writing, after: two[17] };
    });
    assert.deepEqual(found, {
      ioctls: ['WAKE', 'COPY', 'ZEROPAGE', 'MOVE', 'WRITEPROTECT', 'POISON'],
      protect: done(1),
      event: { type: 'pagefault', byteOffset: 0, byteLength: PAGE, write: true, wp: true, minor: false },
      before: 1,
      written: 2,
      after: 2,
    });
  });
});
