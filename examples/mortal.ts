import { spawn } from 'node:child_process';

/** What the examples that kill a program again and again are to do. */
export interface KillOptions {
  /** Folder of the store. One that has history of the same seed is gone on with. */
  store: string;
  /** How often the program is killed. */
  kills: number;
  /** No further kill when this time is over. */
  seconds?: number;
  seed: number;
  /** Takes the lines of the report. */
  log?: (line: string) => void;
}

/** How a program is ended: so long after `hear` said that it is time. */
export interface End {
  signal: 'SIGKILL' | 'SIGTERM';
  delayMs: number;
  /** It is time at the start already. */
  atStart?: boolean;
}

/**
 * Runs a program and ends it. `hear` gets every whole line of its stdout, those too that it said before it died and that were read later; it
 * says whether it is time to end it. @throws when the program ends otherwise than it was asked to
 */
export function liveAndDie(program: string, args: string[], end: End, hear: (line: string) => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    let timer: NodeJS.Timeout | undefined;
    const endSoon = () => {
      timer ??= setTimeout(() => child.kill(end.signal), end.delayMs);
    };

    let said = '';
    let misheard: { cause: unknown } | undefined;
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (said + text).split('\n');
      // What the program did not finish saying.
      said = lines.pop() ?? '';
      try {
        for (const line of lines) if (hear(line)) endSoon();
      } catch (cause) {
        misheard ??= { cause };
        child.kill('SIGKILL');
      }
    });
    let complaint = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint += text;
    });
    child.on('error', reject);
    // Everything in the pipes has been read then.
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      const asWanted = end.signal === 'SIGKILL' ? signal === 'SIGKILL' : code === 0;
      if (misheard !== undefined) reject(misheard.cause);
      else if (asWanted) resolve();
      else reject(new Error(`the program ended by itself (exit code ${code}, signal ${signal}): ${complaint.trim()}`));
    });
    if (end.atStart) endSoon();
  });
}
