import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { addon } from '../../lib/kernel/addon.js';
import { Userfaultfd } from '../../lib/userfaultfd/index.js';
import { child, HUGE } from './support.js';

const RESERVED = '/proc/sys/vm/nr_hugepages';
const FREE = /HugePages_Free:\s+(\d+)/;
const free = (): number => Number(FREE.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);

/**
 * Huge pages are reserved for these tests and given back. Where that cannot be done (no privilege, no memory that is in one piece), each says what the kernel answers
 * without them, which is less but not nothing.
 */
describe('userfaultfd: hugetlbfs', () => {
  const NEEDED = 4;
  let reservedBefore: string | undefined;
  let available = false;

  before(() => {
    const reserved = readFileSync(RESERVED, 'utf8');
    if (free() < NEEDED) {
      try {
        writeFileSync(RESERVED, String(Number(reserved) + NEEDED));
        reservedBefore = reserved;
      } catch (error) {
        console.log(`    (no huge pages: ${RESERVED} ${(error as NodeJS.ErrnoException).code})`);
      }
    }
    available = free() >= NEEDED;
    if (!available)
      console.log(`    (no huge pages: ${free()} of ${NEEDED} are free, what the kernel answers without them is tested)`);
  });
  after(() => {
    if (reservedBefore !== undefined) writeFileSync(RESERVED, reservedBefore);
  });

  /** Without huge pages: the features are there, and the memory is not. */
  function without(...features: ('MISSING_HUGETLBFS' | 'MINOR_HUGETLBFS' | 'WP_HUGETLBFS_SHMEM')[]): void {
    const uffd = Userfaultfd.open({ features });
    assert.deepEqual(uffd.features, features);
    uffd.close();
    assert.throws(() => addon().uffdMapTwice(NEEDED * HUGE, true), { code: 'ENOMEM', syscall: 'mmap' });
  }

  it('MISSING_HUGETLBFS: events are about huge pages, which UFFDIO_COPY fills and UFFDIO_ZEROPAGE does not', async () => {
    if (!available) return without('MISSING_HUGETLBFS');
    const found = await child(async ({ addon, Userfaultfd, nextFault, plain, pool, codeOf, HUGE, PAGE }) => {
      const [one, two] = addon()
        .uffdMapTwice(2 * HUGE, true)
        .map((buffer) => new Uint8Array(buffer)) as [Uint8Array, Uint8Array];
      const uffd = Userfaultfd.open({ features: ['MISSING_HUGETLBFS'] });
      const registration = uffd.register(one, { modes: ['missing'] });
      const reading = pool.read(one, HUGE + 5 * PAGE);
      const event = plain(await nextFault(uffd));
      const small = codeOf(() => registration.copy(HUGE, new Uint8Array(PAGE)));
      const zero = registration.zeropage(HUGE, HUGE);
      const copied = registration.copy(HUGE, new Uint8Array(HUGE).fill(7));
      return {
        ioctls: registration.ioctls,
        pageSize: registration.pageSize,
        event,
        small,
        zero,
        copied,
        read: await reading,
        other: two[HUGE],
      };
    });
    assert.deepEqual(found, {
      ioctls: ['WAKE', 'COPY', 'POISON'],
      pageSize: HUGE,
      event: { type: 'pagefault', byteOffset: HUGE, byteLength: HUGE, write: false, wp: false, minor: false },
      small: 'RangeError',
      zero: { byteLength: 0, error: 'EINVAL' },
      copied: { byteLength: HUGE, error: null },
      read: 7,
      other: 7,
    });
  });

  it('MINOR_HUGETLBFS: a huge page that the file has and the mapping has not', async () => {
    if (!available) return without('MINOR_HUGETLBFS');
    const found = await child(async ({ addon, Userfaultfd, nextFault, plain, pool, HUGE }) => {
      const [one, two] = addon()
        .uffdMapTwice(HUGE, true)
        .map((buffer) => new Uint8Array(buffer)) as [Uint8Array, Uint8Array];
      two.fill(3);
      const uffd = Userfaultfd.open({ features: ['MINOR_HUGETLBFS'] });
      const registration = uffd.register(one, { modes: ['minor'] });
      const reading = pool.read(one, 5);
      const event = plain(await nextFault(uffd));
      two[5] = 8;
      const continued = registration.continue(0, HUGE);
      return { ioctls: registration.ioctls, event, continued, read: await reading };
    });
    assert.deepEqual(found, {
      ioctls: ['WAKE', 'COPY', 'CONTINUE', 'POISON'],
      event: { type: 'pagefault', byteOffset: 0, byteLength: HUGE, write: false, wp: false, minor: true },
      continued: { byteLength: HUGE, error: null },
      read: 8,
    });
  });

  it('WP_HUGETLBFS_SHMEM: huge pages can be protected', async () => {
    if (!available) return without('WP_HUGETLBFS_SHMEM');
    const found = await child(async ({ addon, Userfaultfd, nextFault, plain, pool, HUGE }) => {
      const [one, two] = addon()
        .uffdMapTwice(HUGE, true)
        .map((buffer) => new Uint8Array(buffer)) as [Uint8Array, Uint8Array];
      one.fill(1);
      const uffd = Userfaultfd.open({ features: ['WP_HUGETLBFS_SHMEM'] });
      const registration = uffd.register(one, { modes: ['wp'] });
      const protect = registration.writeProtect(0, HUGE);
      const writing = pool.write(one, 17, 2);
      const event = plain(await nextFault(uffd));
      const before = two[17];
      registration.writeProtect(0, HUGE, { wp: false });
      return { ioctls: registration.ioctls, protect, event, before, written: await writing, after: two[17] };
    });
    assert.deepEqual(found, {
      ioctls: ['WAKE', 'COPY', 'WRITEPROTECT', 'POISON'],
      protect: { byteLength: HUGE, error: null },
      event: { type: 'pagefault', byteOffset: 0, byteLength: HUGE, write: true, wp: true, minor: false },
      before: 1,
      written: 2,
      after: 2,
    });
  });

  it('poisons huge pages that are missing at the end, and leaves the others', async () => {
    if (!available) return without('MISSING_HUGETLBFS');
    const found = await child(async ({ addon, Userfaultfd, kernelReads, HUGE }) => {
      const [one] = addon().uffdMapTwice(2 * HUGE, true);
      const view = new Uint8Array(one);
      const uffd = Userfaultfd.open({ features: ['MISSING_HUGETLBFS'], whenClosed: 'poison' });
      uffd.register(view, { modes: ['missing'] }).copy(0, new Uint8Array(HUGE).fill(7));
      uffd.close();
      return [kernelReads(view, 5), view[0], kernelReads(view, HUGE + 5)];
    });
    assert.deepEqual(found, ['', 7, 'EFAULT']);
  });
});
