import { TidemarkError } from '../errors.js';

const HINT = 'run `tidemark verify` to see what is affected; other checkpoints may be intact';

/** Bytes that are not what was written: a checksum, a length or a field that cannot be. */
export function damaged(message: string, cause?: unknown): TidemarkError {
  return new TidemarkError('TIDEMARK_DAMAGED', message, cause === undefined ? { hint: HINT } : { cause, hint: HINT });
}

/** A record that others refer to is not there. */
export function broken(message: string, cause?: unknown): TidemarkError {
  return new TidemarkError('TIDEMARK_CHAIN_BROKEN', message, cause === undefined ? { hint: HINT } : { cause, hint: HINT });
}

/** The same finding, with what it was found in. Anything else is left as it is. */
export function foundIn(what: string, error: unknown): unknown {
  if (!isDamage(error)) return error;
  const { code, message, hint } = error;
  return (code === 'TIDEMARK_DAMAGED' ? damaged : broken)(`${what}: ${message.replace(` (${hint})`, '')}`, error.cause);
}

/** It was found that the store is not what was written. */
export function isDamage(error: unknown): error is TidemarkError {
  return error instanceof TidemarkError && (error.code === 'TIDEMARK_DAMAGED' || error.code === 'TIDEMARK_CHAIN_BROKEN');
}
