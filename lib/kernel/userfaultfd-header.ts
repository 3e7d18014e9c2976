/** The names of linux/userfaultfd.h as of Linux 6.8, without their prefixes, and the bits they stand for. */

/** `UFFD_FEATURE_*`, in the order of their bits. */
export const FEATURES = [
  'PAGEFAULT_FLAG_WP',
  'EVENT_FORK',
  'EVENT_REMAP',
  'EVENT_REMOVE',
  'MISSING_HUGETLBFS',
  'MISSING_SHMEM',
  'EVENT_UNMAP',
  'SIGBUS',
  'THREAD_ID',
  'MINOR_HUGETLBFS',
  'MINOR_SHMEM',
  'EXACT_ADDRESS',
  'WP_HUGETLBFS_SHMEM',
  'WP_UNPOPULATED',
  'POISON',
  'WP_ASYNC',
  'MOVE',
] as const;
export type UserfaultfdFeature = (typeof FEATURES)[number];

/** `UFFDIO_*`, by number. */
const IOCTLS = {
  0: 'REGISTER',
  1: 'UNREGISTER',
  2: 'WAKE',
  3: 'COPY',
  4: 'ZEROPAGE',
  5: 'MOVE',
  6: 'WRITEPROTECT',
  7: 'CONTINUE',
  8: 'POISON',
  63: 'API',
} as const;
export type UserfaultfdIoctl = (typeof IOCTLS)[keyof typeof IOCTLS];

/** `UFFDIO_REGISTER_MODE_*`: `'missing'` pages, pages that are write-protected (`'wp'`), pages that only this mapping does not have (`'minor'`). */
export const MODES = ['missing', 'wp', 'minor'] as const;
export type UserfaultfdMode = (typeof MODES)[number];

/** Modes of the ioctls. `DONTWAKE` has one bit in all of them but UFFDIO_WRITEPROTECT. */
export const DONTWAKE = 1;
export const COPY_WP = 2;
export const MOVE_ALLOW_SRC_HOLES = 2;
export const CONTINUE_WP = 2;
export const WRITEPROTECT_WP = 1;
export const WRITEPROTECT_DONTWAKE = 2;

export const EVENT = { PAGEFAULT: 0x12, FORK: 0x13, REMAP: 0x14, REMOVE: 0x15, UNMAP: 0x16 } as const;
export const PAGEFAULT = { WRITE: 1, WP: 2, MINOR: 4 } as const;

/** A set of names as bits, and back. */
export function toBits<T extends string>(names: readonly T[], all: readonly T[]): number {
  let bits = 0;
  for (const name of names) bits |= 1 << all.indexOf(name);
  return bits;
}

export function fromBits<T extends string>(bits: number, all: readonly T[]): readonly T[] {
  return Object.freeze(all.filter((_, bit) => (bits >> bit) & 1));
}

/** What this version has no name for is left out: a kernel that is newer may have more. */
export function featuresOf(bits: readonly number[]): readonly UserfaultfdFeature[] {
  return Object.freeze(bits.flatMap((bit) => FEATURES[bit] ?? []));
}

export function ioctlsOf(bits: readonly number[]): readonly UserfaultfdIoctl[] {
  const known: Readonly<Record<number, UserfaultfdIoctl>> = IOCTLS;
  return Object.freeze(bits.flatMap((bit) => known[bit] ?? []));
}
