import { TidemarkError, type TidemarkErrorCode } from '../errors.js';
import { addon } from '../kernel/addon.js';
import { requireShared } from '../kernel/capabilities.js';
import { isBoolean, isNumber, isOptions, isPath, option } from '../options.js';
import type { Source } from './source.js';

export interface MapOptions {
  /** Bytes from the start of the file; a multiple of the host's page. Default: 0. */
  byteOffset?: number;
  /** Bytes; a multiple of the host's page. Default: to the end of the file. */
  byteLength?: number;
  /** Make the file where it is missing (for its owner only), lengthen it where it is too short; needs `byteLength`. Default: false. */
  create?: boolean;
}

const MOST = 2 ** 43;

/** A file on tmpfs as the source of a region: mapped for it alone. */
export function describeFile(path: string, options: MapOptions): Source {
  isPath('path', path);
  isOptions('Region.map', options, ['byteOffset', 'byteLength', 'create']);
  const byteOffset = option(options.byteOffset, (value) => isNumber('byteOffset', value, 0, MOST)) ?? 0;
  const byteLength = option(options.byteLength, (value) => isNumber('byteLength', value, 1, MOST));
  const create = option(options.create, (value) => isBoolean('create', value)) ?? false;
  if (create && byteLength === undefined) throw new TypeError('create needs a byteLength: how long the file is to be');
  requireShared();
  const buffer = mapped(path, byteOffset, byteLength ?? 0, create);
  return {
    buffer: () => buffer,
    byteOffset: 0,
    byteLength: buffer.byteLength,
    available: () => addon().mappedBytes(new Uint8Array(buffer)),
  };
}

function mapped(path: string, byteOffset: number, byteLength: number, create: boolean): ArrayBuffer {
  try {
    return addon().mapFile(path, byteOffset, byteLength, create);
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) throw error;
    throw refusal(error as Error & { code?: string }, path, create);
  }
}

function refusal(cause: Error & { code?: string }, path: string, create: boolean): Error {
  const refused = (code: TidemarkErrorCode, message: string, hint?: string): TidemarkError =>
    new TidemarkError(code, message, { cause, ...(hint === undefined ? {} : { hint }) });
  switch (cause.code) {
    case 'ERR_UNALIGNED':
      return refused(
        'TIDEMARK_UNALIGNED',
        cause.message,
        'a byteLength of whole pages; with `create` the file is lengthened to it',
      );
    case 'ERR_UNTRACKABLE':
      return refused('TIDEMARK_KERNEL_UNSUPPORTED', cause.message, TMPFS);
    case 'EISDIR':
    case 'ENXIO':
    case 'ENODEV':
      return refused('TIDEMARK_KERNEL_UNSUPPORTED', `${path} is not a file that can be mapped`, TMPFS);
    case 'ENOENT':
    case 'ENOTDIR':
      return refused('TIDEMARK_NOT_FOUND', `there is no file ${path}`, create ? 'its folder must exist' : '`create` makes it');
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return refused(
        'TIDEMARK_PERMISSION',
        `${path} may not be mapped for writing`,
        'rights on the file; a memfd without write seals',
      );
    case 'ENOSPC':
    case 'EDQUOT':
      return refused('TIDEMARK_NO_SPACE', `${path} cannot be lengthened: its file system is full`);
    case 'ENOMEM':
    case 'EFBIG':
      return new RangeError(`${path} could not be mapped: so much memory could not be had`, { cause });
    default:
      return refused('TIDEMARK_TRACKING_LOST', `the kernel refused to map ${path}`);
  }
}

const TMPFS = 'a file on tmpfs (/dev/shm) or a memfd (/proc/self/fd/N); what is to be kept on disk is what a checkpointer stores';
