import { fstatSync, writeSync } from 'node:fs';

/** Whoever read stdout has gone; that is no failure of ours. */
export class ReaderGone extends Error {}

let direct: boolean | undefined;

/** Resolves when the bytes were taken. @throws {ReaderGone} on EPIPE */
export async function print(data: string | Uint8Array): Promise<void> {
  const chunk = typeof data === 'string' ? Buffer.from(data) : data;
  if (chunk.length === 0) return;
  direct ??= isFile();
  try {
    if (direct) writeAll(chunk);
    else await writeStream(chunk);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') throw new ReaderGone();
    throw error;
  }
}

export function printJson(value: unknown): Promise<void> {
  return print(`${JSON.stringify(value)}\n`);
}

/** process.stdout does not notice that a write to a file was cut short, as it is when the disk fills up. */
function isFile(): boolean {
  if (process.stdout.isTTY) return false;
  const stat = fstatSync(1);
  return !stat.isFIFO() && !stat.isSocket();
}

function writeAll(chunk: Uint8Array): void {
  for (let at = 0; at < chunk.length; ) at += writeSync(1, chunk, at);
}

function writeStream(chunk: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(chunk, (error) => (error ? reject(error) : resolve()));
  });
}

/** Errors of the streams arrive where something is written; without listeners they would end the process first. */
export function guardStreams(): void {
  process.stdout.on('error', () => {});
  process.stderr.on('error', () => {});
}
