import { TidemarkError } from '../errors.js';
import { addon, type RawCapabilities } from './addon.js';
import { FEATURES } from './userfaultfd-header.js';

/** What the kernel and the permissions of this process allow, found by trying it, not by version numbers. */
export interface Capabilities {
  readonly kernel: string;
  /** The host's page, in bytes; the store's page is always 4 KiB. */
  readonly hostPageSize: number;
  /** How a userfaultfd is had: `'device'` (/dev/userfaultfd), `'syscall'` (userfaultfd(2)), `'syscall-user-mode'` (for user-mode faults only), or `''`: not at all. */
  readonly descriptor: RawCapabilities['descriptor'];
  /** Names of the `UFFD_FEATURE_*` bits that the kernel offers. */
  readonly features: readonly string[];
  /** Everything that `Region` needs works. */
  readonly tracking: boolean;
  /** Why not, in words; empty when it does. */
  readonly problems: readonly string[];
  readonly pagemapScan: boolean;
  readonly tracksWrites: boolean;
  readonly reportsDropped: boolean;
  /** False on kernels that miss a dropped 2 MiB page (tidemark keeps huge pages away there); null: could not be tried. */
  readonly reportsDroppedHuge: boolean | null;
  readonly fillsArmed: boolean;
  readonly givesBack: boolean;
  /** Shared memory (tmpfs, memfd) is tracked too: `Region.map` works. */
  readonly tracksShared: boolean;
  /** Faults from inside the kernel can be served: a lazy restore needs it, unless faults of user mode are enough for the caller (`lazy: 'user-faults'`). */
  readonly kernelFaults: boolean;
}

let probed: Capabilities | undefined;

/**
 * Probes once and gives the same frozen object ever after.
 * @throws {TidemarkError} `TIDEMARK_KERNEL_UNSUPPORTED` when the addon cannot be loaded
 */
export function capabilities(): Capabilities {
  probed ??= describe(addon().probe());
  return probed;
}

function describe(raw: RawCapabilities): Capabilities {
  const features = FEATURES.filter((_, bit) => (raw.features >> BigInt(bit)) & 1n);
  const problems: string[] = [];
  if (raw.descriptor === '') {
    problems.push(
      `no userfaultfd: /dev/userfaultfd ${raw.deviceError || 'not tried'}, userfaultfd(2) ${raw.syscallError || 'not tried'}, user-mode only ${raw.userModeError || 'not tried'}`,
    );
  } else {
    if (!features.includes('WP_ASYNC')) problems.push('the kernel has no UFFD_FEATURE_WP_ASYNC (Linux 6.7 or newer has)');
    else if (!raw.pagemapScan) problems.push('the kernel has no PAGEMAP_SCAN, or /proc/self/pagemap cannot be opened');
    else {
      if (!raw.tracksWrites) problems.push('a written page was not reported exactly');
      if (!raw.reportsDropped) problems.push('a dropped page was not reported');
      if (!raw.fillsArmed) problems.push('UFFDIO_COPY with MODE_WP does not leave pages clean');
      if (!raw.givesBack) problems.push('UFFDIO_WRITEPROTECT cannot give dirty pages back');
    }
  }
  return Object.freeze({
    kernel: raw.kernel,
    hostPageSize: raw.hostPageSize,
    descriptor: raw.descriptor,
    features: Object.freeze(features),
    tracking: problems.length === 0,
    problems: Object.freeze(problems),
    pagemapScan: raw.pagemapScan,
    tracksWrites: raw.tracksWrites,
    reportsDropped: raw.reportsDropped,
    reportsDroppedHuge: raw.reportsDroppedHuge,
    fillsArmed: raw.fillsArmed,
    givesBack: raw.givesBack,
    tracksShared: raw.tracksShared,
    kernelFaults: raw.kernelFaults,
  });
}

/** @throws {TidemarkError} `TIDEMARK_PERMISSION` or `TIDEMARK_KERNEL_UNSUPPORTED`, with everything that is missing */
export function requireTracking(): void {
  const found = capabilities();
  if (found.tracking) return;
  if (found.descriptor === '') {
    throw new TidemarkError('TIDEMARK_PERMISSION', `memory cannot be tracked here: ${found.problems.join('; ')}`, {
      hint: 'in a container, pass --device /dev/userfaultfd or allow the userfaultfd system call in its seccomp profile; `tidemark doctor` says more',
    });
  }
  throw new TidemarkError('TIDEMARK_KERNEL_UNSUPPORTED', `memory cannot be tracked here: ${found.problems.join('; ')}`, {
    hint: 'Linux 6.7 or newer is needed; `tidemark doctor` says more',
  });
}

/** @throws {TidemarkError} as `requireTracking`, and `TIDEMARK_KERNEL_UNSUPPORTED` where shared memory is not tracked */
export function requireShared(): void {
  requireTracking();
  if (capabilities().tracksShared) return;
  const known = capabilities().features.includes('WP_HUGETLBFS_SHMEM');
  throw new TidemarkError(
    'TIDEMARK_KERNEL_UNSUPPORTED',
    `shared memory cannot be tracked here: ${known ? 'a write to it was not reported exactly' : 'the kernel has no UFFD_FEATURE_WP_HUGETLBFS_SHMEM'}`,
    { hint: 'use Region.allocate; shared memory needs a kernel with CONFIG_PTE_MARKER_UFFD_WP' },
  );
}
