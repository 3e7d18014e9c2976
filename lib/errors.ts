/** The codes are a contract: they do not change within a major version. `docs/errors.md` has a heading for each. */
export type TidemarkErrorCode =
  | 'TIDEMARK_ABORTED'
  | 'TIDEMARK_BRANCH_BUSY'
  | 'TIDEMARK_CHAIN_BROKEN'
  | 'TIDEMARK_CLOSED'
  | 'TIDEMARK_DAMAGED'
  | 'TIDEMARK_FINGERPRINT'
  | 'TIDEMARK_KERNEL_UNSUPPORTED'
  | 'TIDEMARK_NAME_TAKEN'
  | 'TIDEMARK_NOT_FOUND'
  | 'TIDEMARK_NOT_RESTORED'
  | 'TIDEMARK_NO_SPACE'
  | 'TIDEMARK_PERMISSION'
  | 'TIDEMARK_REGION_BUSY'
  | 'TIDEMARK_REGION_MISMATCH'
  | 'TIDEMARK_REGION_TORN'
  | 'TIDEMARK_STALLED'
  | 'TIDEMARK_STORE_FORMAT'
  | 'TIDEMARK_STORE_LOCKED'
  | 'TIDEMARK_TRACKING_LOST'
  | 'TIDEMARK_UNALIGNED'
  | 'TIDEMARK_WRITE_FAILED';

export interface TidemarkErrorOptions {
  /** What to do about it, in one line. */
  hint?: string;
  cause?: unknown;
  /** The same call may succeed later without anything being changed in the program. Default: by code. */
  retryable?: boolean;
}

const RETRYABLE: ReadonlySet<TidemarkErrorCode> = new Set([
  'TIDEMARK_BRANCH_BUSY',
  'TIDEMARK_NO_SPACE',
  'TIDEMARK_REGION_BUSY',
  'TIDEMARK_STALLED',
  'TIDEMARK_STORE_LOCKED',
  'TIDEMARK_WRITE_FAILED',
]);

/** Every failure that is not plain misuse of the API (those are `TypeError` and `RangeError`). */
export class TidemarkError extends Error {
  readonly code: TidemarkErrorCode;
  readonly hint?: string;
  readonly retryable: boolean;

  constructor(code: TidemarkErrorCode, message: string, options: TidemarkErrorOptions = {}) {
    super(
      options.hint === undefined ? message : `${message} (${options.hint})`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.name = code === 'TIDEMARK_ABORTED' ? 'AbortError' : 'TidemarkError';
    this.code = code;
    if (options.hint !== undefined) this.hint = options.hint;
    this.retryable = options.retryable ?? RETRYABLE.has(code);
  }
}

/** What an operation fails with that was aborted by a signal. */
export function abortedBy(signal: AbortSignal, what: string): TidemarkError {
  return new TidemarkError('TIDEMARK_ABORTED', `${what} was aborted`, { cause: signal.reason });
}

/** A TidemarkError as it travels between threads: structured clone drops the class and its own properties. */
export interface PlainError {
  code: TidemarkErrorCode;
  message: string;
  hint?: string;
  retryable: boolean;
  cause?: { name: string; message: string; code?: string };
}

export function toPlain(error: unknown, fallback: TidemarkErrorCode): PlainError {
  if (error instanceof TidemarkError) {
    const plain: PlainError = { code: error.code, message: error.message, retryable: error.retryable };
    if (error.hint !== undefined) plain.hint = error.hint;
    if (error.cause !== undefined) plain.cause = describe(error.cause);
    return plain;
  }
  const cause = describe(error);
  return { code: fallback, message: cause.message, retryable: RETRYABLE.has(fallback), cause };
}

export function fromPlain(plain: PlainError): TidemarkError {
  const options: TidemarkErrorOptions = { retryable: plain.retryable };
  if (plain.cause !== undefined) {
    const cause = new Error(plain.cause.message) as Error & { code?: string };
    cause.name = plain.cause.name;
    if (plain.cause.code !== undefined) cause.code = plain.cause.code;
    options.cause = cause;
  }
  const error = new TidemarkError(plain.code, plain.message, options);
  if (plain.hint !== undefined) (error as { hint?: string }).hint = plain.hint;
  return error;
}

function describe(error: unknown): { name: string; message: string; code?: string } {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error) };
  const { code } = error as { code?: unknown };
  const described: { name: string; message: string; code?: string } = { name: error.name, message: error.message };
  if (typeof code === 'string') described.code = code;
  return described;
}
