import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Acknowledged, Findings, ReaderOptions, WriterEvent, WriterOptions } from './protocol.js';

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** Nothing that these programs do takes so long. */
const LIMIT_MS = 120_000;

/** A running writer, and what it has said. */
export class Writer {
  readonly child: ChildProcess;
  readonly events: WriterEvent[] = [];
  readonly #ended: Promise<unknown>;
  #stderr = '';
  #wake: (() => void) | undefined;
  #over = false;

  /** @param wrapper a command that runs it: strace, sh */
  constructor(options: WriterOptions, wrapper: string[] = [], env: NodeJS.ProcessEnv = {}) {
    const [command, ...args] = [...wrapper, process.execPath, path('./writer.js'), JSON.stringify(options)];
    this.child = spawn(command!, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
    });
    const lines = createInterface(this.child.stdout!);
    lines.on('line', (line) => {
      // The last line of a process that was killed may be cut.
      if (line.endsWith('}')) this.events.push(JSON.parse(line) as WriterEvent);
      this.#wake?.();
    });
    this.#ended = Promise.all([once(lines, 'close'), once(this.child, 'close')]).then(() => {
      this.#over = true;
      this.#wake?.();
    });
  }

  get acknowledged(): Acknowledged[] {
    return this.events.filter((event) => event.event === 'acknowledged');
  }

  get failures(): Extract<WriterEvent, { event: 'failed' | 'open-failed' }>[] {
    return this.events.filter((event) => event.event === 'failed' || event.event === 'open-failed');
  }

  said(what: WriterEvent['event']): boolean {
    return this.events.some(({ event }) => event === what);
  }

  /** Waits until it has said something, or has ended. */
  async until(wanted: (writer: Writer) => boolean): Promise<void> {
    const deadline = Date.now() + LIMIT_MS;
    while (!this.#over && !wanted(this)) {
      const left = deadline - Date.now();
      if (left <= 0) {
        await this.kill();
        throw new Error(`the writer did not get on within ${LIMIT_MS / 1000} s: ${this.tail()}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Waits for its end; everything it said has been read then. */
  async ended(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    await this.until(() => false);
    return { code: this.child.exitCode, signal: this.child.signalCode };
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#ended;
  }

  /** What it says must never be that something is wrong; and nobody writes to stderr for nothing. */
  check(): void {
    const wrong = this.events.filter(({ event }) => event === 'wrong');
    assert.deepEqual(wrong, [], this.tail());
    assert.equal(this.#stderr, '', 'the writer printed to stderr');
  }

  tail(): string {
    return `${this.events
      .slice(-12)
      .map((event) => JSON.stringify(event))
      .join('\n')}\n${this.#stderr}`;
  }
}

/** Reads a store in a process of its own. */
export async function read(options: ReaderOptions, wrapper: string[] = []): Promise<Findings> {
  const [command, ...args] = [...wrapper, process.execPath, path('./reader.js'), JSON.stringify(options)];
  const child = spawn(command!, args, { stdio: ['ignore', 'pipe', 'inherit'], timeout: LIMIT_MS, killSignal: 'SIGKILL' });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (more: string) => {
    text += more;
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  assert.equal(code, 0, `the reader ended with ${signal ?? code}`);
  return JSON.parse(text) as Findings;
}
