import { TidemarkError } from '../errors.js';

/** Why a page could not be filled: the tmpfs that its file is on is full, or a control group has all the memory that it may. */
export function isNoMemory(error: unknown): boolean {
  const { code } = error as { code?: string };
  return code === 'ENOMEM' || code === 'ENOSPC';
}

export function noMemory(message: string, cause: unknown): TidemarkError {
  return new TidemarkError('TIDEMARK_NO_SPACE', message, {
    cause,
    hint: 'make room where the memory is (a tmpfs, a control group) and restore again; nothing in the store is lost',
  });
}
