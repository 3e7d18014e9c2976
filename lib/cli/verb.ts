import { type ParseArgsConfig, parseArgs } from 'node:util';
import { CliError, Exit, usageError } from './exit.js';

export interface VerbOption {
  type: 'string' | 'boolean';
  short?: string;
  /** Name of the value in the help. */
  value?: string;
  text: string;
}

/** What a verb is given: its options, its arguments in their order, and a signal that is aborted by Ctrl-C. */
export interface Invocation {
  values: Readonly<Record<string, string | boolean | undefined>>;
  arguments: readonly string[];
  signal: AbortSignal;
}

export interface Verb {
  name: string;
  summary: string;
  /** `<needed>` or `[optional]`, in their order. */
  arguments: readonly string[];
  options: Readonly<Record<string, VerbOption>>;
  /** What the help says after the options. */
  notes?: string;
  /** Resolves with the exit code. */
  run(call: Invocation): Promise<number>;
}

const HELP: VerbOption = { type: 'boolean', short: 'h', text: 'show this help' };
export const JSON_OPTION: VerbOption = { type: 'boolean', text: 'one JSON object per line; errors too, on stderr' };

/** Undefined when help was asked for. */
export function parseCommand(verb: Verb, args: string[], signal: AbortSignal): Invocation | undefined {
  const options: NonNullable<ParseArgsConfig['options']> = {};
  for (const [name, { type, short }] of Object.entries({ ...verb.options, help: HELP }))
    options[name] = short === undefined ? { type } : { type, short };
  let parsed: ReturnType<typeof parseArgs>;
  try {
    parsed = parseArgs({ args, options, allowPositionals: true, strict: true });
  } catch (error) {
    // Node's second sentence explains `--`, which nothing here needs.
    if (String((error as { code?: unknown }).code).startsWith('ERR_PARSE_ARGS'))
      throw usageError((error as Error).message.split('. ')[0]!, verb.name);
    throw error;
  }
  if (parsed.values.help === true) return undefined;
  const needed = verb.arguments.filter((name) => name.startsWith('<')).length;
  if (parsed.positionals.length < needed) throw usageError(`${verb.arguments[parsed.positionals.length]} is missing`, verb.name);
  if (parsed.positionals.length > verb.arguments.length) {
    const extra = parsed.positionals[verb.arguments.length]!;
    throw usageError(`unexpected argument ${JSON.stringify(extra)}`, verb.name);
  }
  for (const text of parsed.positionals) if (text === '') throw usageError('an argument is empty', verb.name);
  return { values: parsed.values as Invocation['values'], arguments: parsed.positionals, signal };
}

export function usageOf(verb: Verb): string {
  const { name, options, notes } = verb;
  const rows = Object.entries({ ...options, help: HELP }).map(([key, { short, value, text }]): [string, string] => [
    `${short === undefined ? '' : `-${short}, `}--${key}${value === undefined ? '' : ` ${value}`}`,
    text,
  ]);
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  const lines = [
    `usage: tidemark ${name} ${verb.arguments.join(' ')} [options]`,
    '',
    `${verb.summary}.`,
    '',
    ...rows.map(([left, right]) => `  ${left.padEnd(width)}${right}`),
  ];
  return `${[...lines, ...(notes === undefined ? [] : ['', notes])].join('\n')}\n`;
}

/** Lets go of waiting for what cannot be interrupted itself. */
export async function interruptible<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort!);
    promise.catch(() => {});
  }
}

export function interrupted(signal: string): CliError {
  return new CliError('TIDEMARK_ABORTED', Exit.interrupted, `interrupted by ${signal}`);
}
