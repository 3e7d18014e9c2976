import { TidemarkError } from '../errors.js';
import { addon } from '../kernel/addon.js';
import { unaligned } from './source.js';

/** Calls a verb of a region; what it throws is what callers are told. */
export function translate<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw translated(error);
  }
}

export function translated(error: unknown): unknown {
  if (error instanceof TidemarkError || error instanceof TypeError || error instanceof RangeError) return error;
  if ((error as { code?: string }).code === 'ERR_CLOSED')
    return new TidemarkError('TIDEMARK_CLOSED', 'the region is closed', { cause: error });
  if ((error as { code?: string }).code === 'ERR_INACCESSIBLE')
    return new TidemarkError('TIDEMARK_TRACKING_LOST', 'a part of the region may not be read now', {
      cause: error,
      hint: 'make it readable (mprotect), and take the checkpoint again',
      retryable: true,
    });
  return new TidemarkError('TIDEMARK_TRACKING_LOST', 'the kernel does not track the region any more', {
    cause: error,
    hint: 'its memory was detached, remapped or unmapped; make a new region of it',
  });
}

/** Stored, they would be zero. */
export function lostPages(count: number, cause: unknown): TidemarkError {
  return new TidemarkError(
    'TIDEMARK_TRACKING_LOST',
    `the kernel did not track the region any more while ${count} pages of a lazy restore were missing`,
    { cause, hint: 'these pages are lost in memory, not in the store: restore a checkpoint' },
  );
}

/** Tracks memory from now on; the number of its native region. */
export function openRegion(view: Uint8Array): number {
  try {
    return addon().regionOpen(view);
  } catch (cause) {
    const { code } = cause as { code?: string };
    if (code === 'ERR_UNALIGNED') throw unaligned('the memory does not begin and end at a page', cause);
    if (code === 'EBUSY')
      throw new TidemarkError('TIDEMARK_REGION_BUSY', 'another region has this memory, or a part of it', {
        cause,
        hint: 'close that region first',
        retryable: false,
      });
    if (code === 'EOPNOTSUPP')
      throw new TidemarkError(
        'TIDEMARK_KERNEL_UNSUPPORTED',
        'the memory is hugetlb: a scan of a hole in it can hang the thread unkillably',
        {
          cause,
          hint: 'use transparent huge pages: Region.allocate with hugePages',
        },
      );
    if (cause instanceof TypeError || cause instanceof RangeError) throw cause;
    throw new TidemarkError('TIDEMARK_TRACKING_LOST', 'the kernel refused to track the memory', { cause });
  }
}
