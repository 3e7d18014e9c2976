import { TidemarkError, type TidemarkErrorCode } from '../errors.js';

/** A contract, as the error codes are: docs/cli.md. */
export const Exit = {
  done: 0,
  failed: 1,
  usage: 2,
  notFound: 10,
  inUse: 11,
  damaged: 12,
  kernel: 13,
  noSpace: 14,
  interrupted: 130,
} as const;

/** A failure that is the tool's own and not the library's; `code` is what `--json` shows. */
export class CliError extends Error {
  readonly code: string;
  readonly exit: number;
  readonly hint: string | undefined;

  constructor(code: string, exit: number, message: string, hint?: string) {
    super(message);
    this.code = code;
    this.exit = exit;
    this.hint = hint;
  }
}

export function usageError(message: string, verb?: string): CliError {
  return new CliError(
    'USAGE',
    Exit.usage,
    message,
    `\`tidemark help${verb === undefined ? '' : ` ${verb}`}\` says how it is used`,
  );
}

export function notFound(message: string, hint?: string): TidemarkError {
  return new TidemarkError('TIDEMARK_NOT_FOUND', message, hint === undefined ? {} : { hint });
}

/** Checks something that was typed: the library's TypeError or RangeError is a mistake in the command here. */
export function typed<T>(check: () => T, verb: string): T {
  try {
    return check();
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) throw usageError(error.message, verb);
    throw error;
  }
}

const BY_CODE: Partial<Record<TidemarkErrorCode, number>> = {
  TIDEMARK_ABORTED: Exit.interrupted,
  TIDEMARK_BRANCH_BUSY: Exit.inUse,
  TIDEMARK_CHAIN_BROKEN: Exit.damaged,
  TIDEMARK_DAMAGED: Exit.damaged,
  TIDEMARK_KERNEL_UNSUPPORTED: Exit.kernel,
  TIDEMARK_NOT_FOUND: Exit.notFound,
  TIDEMARK_NO_SPACE: Exit.noSpace,
  TIDEMARK_PERMISSION: Exit.kernel,
  TIDEMARK_REGION_BUSY: Exit.inUse,
  TIDEMARK_STORE_LOCKED: Exit.inUse,
};

/** What the file system says about files that are not the store's. */
const BY_ERRNO: Record<string, { exit: number; hint: string }> = {
  EACCES: { exit: Exit.kernel, hint: 'this user may not do that' },
  EPERM: { exit: Exit.kernel, hint: 'this user may not do that' },
  EROFS: { exit: Exit.kernel, hint: 'the file system is mounted read-only' },
  ENOSPC: { exit: Exit.noSpace, hint: 'make room, or write to another file system' },
  EDQUOT: { exit: Exit.noSpace, hint: 'the quota is used up' },
};

/** An error as the tool reports it; the fields are those of `--json`. */
export interface Failure {
  code: string;
  message: string;
  hint?: string;
  cause?: string;
  exitCode: number;
}

export function failureOf(error: unknown): Failure {
  if (!(error instanceof Error)) return { code: 'INTERNAL', message: String(error), exitCode: Exit.failed };
  const failure = known(error);
  if (error.cause instanceof Error && !failure.message.includes(error.cause.message)) failure.cause = error.cause.message;
  return failure;
}

function known(error: Error): Failure {
  if (error instanceof TidemarkError || error instanceof CliError) {
    const { code, hint } = error;
    const exitCode = error instanceof CliError ? error.exit : (BY_CODE[error.code] ?? Exit.failed);
    if (hint === undefined) return { code, message: error.message, exitCode };
    // The message of a TidemarkError ends with its hint; here the hint has a line of its own.
    const end = ` (${hint})`;
    return { code, message: error.message.endsWith(end) ? error.message.slice(0, -end.length) : error.message, hint, exitCode };
  }
  const { code } = error as { code?: unknown };
  if (typeof code !== 'string') return { code: 'INTERNAL', message: error.stack ?? error.message, exitCode: Exit.failed };
  const { exit = Exit.failed, hint } = BY_ERRNO[code] ?? {};
  return hint === undefined
    ? { code, message: error.message, exitCode: exit }
    : { code, message: error.message, hint, exitCode: exit };
}
