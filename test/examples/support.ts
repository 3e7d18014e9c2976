import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const dist = resolve(import.meta.dirname, '../..');
export const cli = join(dist, 'lib/cli/main.js');

/** A compiled file of the examples. */
export function example(path: string): string {
  return join(dist, 'examples', path);
}

/** Whether the SQLite of the system is to be used as a counterpart. */
export const systemSqlite = process.env.TIDEMARK_SYSTEM_SQLITE === '1';

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface StartOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Gets every line of stdout as it comes; true kills the program with SIGKILL. */
  killAt?(line: string): boolean;
}

/** Runs a program to its end. */
export function start(command: string, args: string[], { cwd, env, killAt }: StartOptions = {}): Promise<Ended> {
  return new Promise((done, failed) => {
    const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    const ended: Ended = { code: null, signal: null, stdout: '', stderr: '' };
    let rest = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      ended.stdout += text;
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) if (killAt?.(line)) child.kill('SIGKILL');
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      ended.stderr += text;
    });
    child.on('error', failed);
    child.on('close', (code, signal) => done({ ...ended, code, signal }));
  });
}

/** A folder that is removed after each test; call it in a `describe`. */
export function temporaryFolder(): { path(name: string): string } {
  let folder = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tidemark-examples-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));
  return { path: (name) => join(folder, name) };
}
