import { spawn } from 'node:child_process';
import type { Readable } from 'node:stream';

export type Kit = typeof import('./kit.js');

export interface ChildOptions {
  /** TIDEMARK_FAULTS of the child. */
  faults?: string;
  /** The child must have ended by itself by then. Default: 40 s, less than the minute after which a capture that waits gives up. */
  limitMs?: number;
  flags?: string[];
  /** A command that runs it: strace. */
  wrapper?: string[];
}

/**
 * Runs a function in a process of its own and gives what it returned (or `report`ed). The function is sent as text: it may use its
 * parameters only. It fails when the child ends otherwise than by its natural end or `crash`, or has not ended at the time limit.
 */
export async function inChild<A extends unknown[], R>(
  options: ChildOptions,
  body: (kit: Kit, ...args: A) => Promise<R>,
  ...args: A
): Promise<R> {
  const source = `import * as kit from ${JSON.stringify(new URL('./kit.js', import.meta.url).href)};
const result = await (${body.toString()})(kit, ...${JSON.stringify(args)});
if (result !== undefined) kit.report(result);`;
  const env: NodeJS.ProcessEnv = { ...process.env, TIDEMARK_FAULTS: options.faults ?? '' };
  delete env.NODE_OPTIONS;
  const [command, ...rest] = [
    ...(options.wrapper ?? []),
    process.execPath,
    ...(options.flags ?? []),
    '--input-type=module',
    '-e',
    source,
  ];
  const child = spawn(command!, rest, {
    env,
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  const limitMs = options.limitMs ?? 40_000;
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill('SIGKILL');
  }, limitMs);
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal }));
  });
  try {
    const [out, err, report, { code, signal }] = await Promise.all([
      text(child.stdout!),
      text(child.stderr!),
      text(child.stdio[3] as Readable),
      ended,
    ]);
    const crashed = signal === 'SIGKILL' && report !== '';
    if (late) throw new Error(`the child was still alive after ${limitMs} ms (it reported: ${report})\n${out}${err}`);
    if (code !== 0 && !crashed) throw new Error(`the child ended with code ${code}, signal ${signal}\n${out}${err}`);
    if (report === '') throw new Error(`the child ended without a result\n${out}${err}`);
    return JSON.parse(report) as R;
  } finally {
    clearTimeout(timer);
  }
}

async function text(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}
