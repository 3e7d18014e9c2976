import { TidemarkError } from '../errors.js';

interface SystemFailure {
  code?: string;
  syscall?: string;
}

/** What native code throws, as the errors of tidemark. Misuse stays the TypeError or RangeError that it is, and what else a system call says the error of that. */
export function translated(error: unknown): unknown {
  if (error instanceof TidemarkError || error instanceof TypeError || error instanceof RangeError) return error;
  const { code, syscall } = error as SystemFailure;
  if (code === 'ERR_CLOSED')
    return new TidemarkError('TIDEMARK_CLOSED', 'the userfaultfd or the registration is closed', { cause: error });
  if (code === 'ERR_MOVED')
    return new TidemarkError('TIDEMARK_TRACKING_LOST', 'the memory of the registration is not where it was', {
      cause: error,
      hint: 'its buffer was detached, transferred or shrunk; unregister memory before that',
    });
  if (code === 'ERR_UNALIGNED')
    return new TidemarkError('TIDEMARK_UNALIGNED', 'the memory does not begin and end at a page', {
      cause: error,
      hint: 'use a WebAssembly.Memory, a buffer made with maxByteLength, and page-aligned parts of these',
    });
  if (syscall === 'ioctl(UFFDIO_REGISTER)') return refusedRegistration(code, error);
  if (syscall === 'open' || syscall === 'userfaultfd' || syscall === 'ioctl(UFFDIO_API)') return refusedOpening(code, error);
  return error;
}

function refusedRegistration(code: string | undefined, cause: unknown): unknown {
  if (code === 'EBUSY')
    return new TidemarkError('TIDEMARK_REGION_BUSY', 'another userfaultfd has this memory, or a part of it', {
      cause,
      hint: 'a Region counts, and so does a child process between fork and exec',
    });
  if (code === 'EPERM')
    return new TidemarkError('TIDEMARK_PERMISSION', 'memory that cannot be written cannot be registered', { cause });
  if (code !== 'EINVAL') return cause;
  return new TidemarkError('TIDEMARK_KERNEL_UNSUPPORTED', `the kernel refused to register the memory (${code})`, {
    cause,
    hint: 'not every kind of memory can be had in every mode: minor faults are of shared memory only; docs/userfaultfd.md has a table',
  });
}

/** Of the way itself, or of a feature. What may pass (no more descriptors, no memory) stays what it is. */
const UNSUPPORTED: readonly (string | undefined)[] = ['EINVAL', 'ENOENT', 'ENODEV', 'ENOSYS', 'ENOTTY', 'ENXIO'];

function refusedOpening(code: string | undefined, cause: unknown): unknown {
  if (code === 'EPERM' || code === 'EACCES')
    return new TidemarkError('TIDEMARK_PERMISSION', `a userfaultfd is not allowed here (${code})`, {
      cause,
      hint: 'userModeOnly needs no privilege; faults of the kernel need access to /dev/userfaultfd or CAP_SYS_PTRACE, and EVENT_FORK needs CAP_SYS_PTRACE',
    });
  if (!UNSUPPORTED.includes(code)) return cause;
  return new TidemarkError('TIDEMARK_KERNEL_UNSUPPORTED', `the kernel has no such userfaultfd (${code})`, {
    cause,
    hint: 'Userfaultfd.offered() tells which features there are',
  });
}

/** Runs a native verb. */
export function translating<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw translated(error);
  }
}
