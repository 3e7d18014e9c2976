#!/usr/bin/env node
import { Exit, failureOf, usageError } from './exit.js';
import { paint } from './format.js';
import { guardStreams, print, ReaderGone } from './stdout.js';
import { interrupted, parseCommand, usageOf, type Verb } from './verb.js';
import { version } from './version.js';

/** Loaded when they are used, so that help works where nothing else does. */
const VERBS: Record<string, () => Promise<Verb>> = {
  log: async () => (await import('./log.js')).log,
  show: async () => (await import('./show.js')).show,
  restore: async () => (await import('./restore.js')).restore,
  verify: async () => (await import('./verify.js')).verify,
  doctor: async () => (await import('./doctor.js')).doctor,
};
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const LINGER_MS = 500;

async function overview(): Promise<string> {
  const verbs = await Promise.all(Object.values(VERBS).map((load) => load()));
  const rows = verbs.map(({ name, summary }) => `  ${name.padEnd(10)}${summary}`);
  return [
    'usage: tidemark <verb> ...',
    '',
    'Looks into stores of memory checkpoints and takes files out of them.',
    '',
    ...rows,
    `  ${'help'.padEnd(10)}Say how a verb is used: tidemark help restore`,
    '',
    '  --version  print the version',
    '',
    'Exit codes: 0 done, 1 failed, 2 usage, 10 no such store or target, 11 in use, 12 damaged, 13 kernel or permission,',
    '14 no space, 130 interrupted.',
    '',
  ].join('\n');
}

async function load(name: string): Promise<Verb> {
  if (!Object.hasOwn(VERBS, name)) throw usageError(`there is no verb ${JSON.stringify(name)}`);
  return VERBS[name]!();
}

async function run(args: string[], signal: AbortSignal): Promise<number> {
  const [first, ...rest] = args;
  if (first === undefined) {
    process.stderr.write(await overview());
    return Exit.usage;
  }
  if (first === '--version') await print(`${version()}\n`);
  else if (first === '--help' || first === '-h' || first === 'help') {
    if (rest.length > 1) throw usageError(`unexpected argument ${JSON.stringify(rest[1])}`);
    await print(rest[0] === undefined ? await overview() : usageOf(await load(rest[0])));
  } else {
    const verb = await load(first);
    const call = parseCommand(verb, rest, signal);
    if (call !== undefined) return verb.run(call);
    await print(usageOf(verb));
  }
  return Exit.done;
}

/** @returns the exit code */
function report(error: unknown, json: boolean): number {
  if (error instanceof ReaderGone) return Exit.done;
  const failure = failureOf(error);
  if (json) process.stderr.write(`${JSON.stringify(failure)}\n`);
  else {
    const { message, hint, cause } = failure;
    const more = [...(cause === undefined ? [] : [`  cause: ${cause}\n`]), ...(hint === undefined ? [] : [`  hint: ${hint}\n`])];
    process.stderr.write(`${paint('red', 'tidemark:', process.stderr)} ${message}\n${more.join('')}`);
  }
  return failure.exitCode;
}

async function main(args: string[]): Promise<void> {
  guardStreams();
  const controller = new AbortController();
  // Once only: a second Ctrl-C ends the process at once.
  for (const name of SIGNALS) process.once(name, () => controller.abort(interrupted(name)));
  try {
    process.exitCode = await run(args, controller.signal);
  } catch (error) {
    // What fails because it was interrupted was interrupted.
    process.exitCode = report(controller.signal.aborted ? controller.signal.reason : error, args.includes('--json'));
  }
  // A reader of stdout that does not read must not keep who was interrupted.
  if (controller.signal.aborted) setTimeout(() => process.exit(), LINGER_MS).unref();
}

await main(process.argv.slice(2));
