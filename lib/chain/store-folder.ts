import { randomUUID } from 'node:crypto';
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { TidemarkError } from '../errors.js';
import { addon } from '../kernel/addon.js';

/** The folder of a store, locked for this process. */
export interface StoreFolder {
  path: string;
  /** 16 bytes. */
  uuid: Uint8Array;
  /** It was made by this call and is no store yet: `finish()` makes it one, once everything else in it is there. */
  created: boolean;
  finish(): void;
  unlock(): void;
}

const FORMAT = 1;
const MARKER = 'TIDEMARK';
/** A store in the making: without a marker yet, but ours. */
const UNFINISHED = 'TIDEMARK.new';
const README = `A store of memory checkpoints, made by tidemark (an npm package). Read it with the 'tidemark' command.
Do not copy it while it is in use, and do not delete single files.`;

/**
 * Opens the folder of a store and takes its lock. What is not a store is left untouched.
 * @throws {TidemarkError} `TIDEMARK_NOT_FOUND`, `TIDEMARK_STORE_FORMAT`, `TIDEMARK_STORE_LOCKED`, `TIDEMARK_PERMISSION`, `TIDEMARK_NO_SPACE`, `TIDEMARK_WRITE_FAILED`
 */
export function openFolder(path: string, createIfMissing: boolean): StoreFolder {
  checkEntries(path, createIfMissing);
  try {
    const made = makeFolder(path);
    accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK);
    const lock = lockFolder(path);
    try {
      const created = !existsSync(join(path, MARKER));
      if (created) beginStore(path);
      const uuid = readMarker(join(path, created ? UNFINISHED : MARKER));
      writeOwner(path);
      return { path, uuid, created, finish: () => finishStore(path, made), unlock: () => addon().storeUnlock(lock) };
    } catch (error) {
      addon().storeUnlock(lock);
      throw error;
    }
  } catch (error) {
    throw folderError(path, error);
  }
}

/**
 * Makes a folder and what is missing above it; the folders that were made. One at a time: with `recursive` Node 20 tries for ever where nothing
 * can be made (`/proc`).
 */
function makeFolder(path: string): string[] {
  const missing: string[] = [];
  for (let folder = resolve(path); !existsSync(folder) && folder !== dirname(folder); folder = dirname(folder))
    missing.unshift(folder);
  for (const folder of missing) mkdirSync(folder, { mode: 0o700 });
  return missing;
}

/** What is not a store, nor empty, nor a store in the making, is left alone. */
function checkEntries(path: string, createIfMissing: boolean): void {
  let entries: string[] | undefined;
  try {
    entries = existsSync(path) ? readdirSync(path) : undefined;
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOTDIR') {
      throw new TidemarkError('TIDEMARK_STORE_FORMAT', `${path} is a file, not a tidemark store`, { hint: 'name a folder' });
    }
    throw folderError(path, error);
  }
  if (entries?.includes(MARKER)) return;
  if (!createIfMissing) {
    const reason = entries === undefined ? 'there is no such folder' : `it has no ${MARKER} file`;
    throw new TidemarkError('TIDEMARK_NOT_FOUND', `${path} is not a tidemark store: ${reason}`);
  }
  // `lock` alone is what a first open leaves that was killed early.
  if (entries === undefined || entries.includes(UNFINISHED) || entries.every((name) => name === 'lock')) return;
  throw new TidemarkError('TIDEMARK_STORE_FORMAT', `${path} is a folder with other things in it, not a tidemark store`, {
    hint: 'name a new or an empty folder',
  });
}

function lockFolder(path: string): number {
  try {
    return addon().storeLock(path);
  } catch (cause) {
    const { code } = cause as { code?: string };
    if (code === 'ERR_LOCKED_HERE') {
      throw new TidemarkError('TIDEMARK_STORE_LOCKED', `the store ${path} is open in this process already`, {
        cause,
        hint: 'open it once with CheckpointStore.open and give that object to every Checkpointer',
      });
    }
    if (code === 'ERR_LOCKED_ELSEWHERE') {
      throw new TidemarkError('TIDEMARK_STORE_LOCKED', `the store ${path} is open in another process${describeOwner(path)}`, {
        cause,
        hint: 'a store has one owner at a time; wait for that process or stop it',
      });
    }
    throw cause;
  }
}

function describeOwner(path: string): string {
  try {
    const owner = JSON.parse(readFileSync(join(path, 'owner.json'), 'utf8')) as { pid: number; host: string };
    return ` (pid ${owner.pid} on ${owner.host})`;
  } catch {
    return '';
  }
}

/** Nothing was ever acknowledged in a store without its marker: what an open that did not get to its end left there goes. */
function beginStore(path: string): void {
  for (const name of ['log', 'index']) {
    if (existsSync(join(path, UNFINISHED))) rmSync(join(path, name), { recursive: true, force: true });
  }
  const text = `tidemark store\nformat ${FORMAT}\nuuid ${randomUUID()}\n\n${README}\n`;
  writeFileSync(join(path, UNFINISHED), text, { mode: 0o600, flush: true });
}

/** The marker comes last, when log and index are there and synced: a folder is no store before, and a whole one afterwards. */
function finishStore(path: string, made: string[]): void {
  try {
    // A folder is durable when the one it lies in has been synced: up to the first that was there before.
    for (const folder of new Set([path, dirname(resolve(path)), ...made.map((one) => dirname(one))])) syncFolder(folder);
    renameSync(join(path, UNFINISHED), join(path, MARKER));
    syncFolder(path);
  } catch (error) {
    throw folderError(path, error);
  }
}

function readMarker(file: string): Uint8Array {
  const text = readFileSync(file, 'utf8');
  const format = /^tidemark store\nformat (\d+)\nuuid ([0-9a-f-]{36})\n/.exec(text);
  if (format === null) {
    throw new TidemarkError('TIDEMARK_STORE_FORMAT', `${file} is not the marker of a tidemark store`, {
      hint: 'the file is damaged or the folder is not a store',
    });
  }
  if (Number(format[1]) !== FORMAT) {
    throw new TidemarkError(
      'TIDEMARK_STORE_FORMAT',
      `${file} names format ${format[1]}, this version of tidemark reads format ${FORMAT}`,
      {
        hint: 'use the version of tidemark that wrote it, or a newer one',
      },
    );
  }
  return new Uint8Array(Buffer.from(format[2]!.replaceAll('-', ''), 'hex'));
}

/** For whoever finds the store locked; not trusted for anything. */
function writeOwner(path: string): void {
  const owner = { pid: process.pid, host: hostname(), since: new Date().toISOString(), program: process.argv.slice(0, 2) };
  try {
    writeFileSync(join(path, 'owner.json'), `${JSON.stringify(owner)}\n`, { mode: 0o600 });
  } catch {
    // A full disk must not keep a store from being opened.
  }
}

/** Makes the entries of a folder durable. */
function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function folderError(path: string, error: unknown): unknown {
  if (error instanceof TidemarkError) return error;
  return storageError(error, `the store ${path} could not be opened`);
}

/** Turns what the file system or LevelDB says into a TidemarkError. */
export function storageError(error: unknown, message: string): TidemarkError {
  if (error instanceof TidemarkError) return error;
  const text = errorText(error);
  if (/ENOSPC|EDQUOT|No space left|Disk quota/i.test(text)) {
    return new TidemarkError('TIDEMARK_NO_SPACE', `${message}: no space left on the device`, {
      cause: error,
      hint: 'make room; nothing that was acknowledged is lost, and the next checkpoint contains what this one would have',
    });
  }
  if (/EACCES|EPERM|EROFS|Permission denied|Read-only file system/i.test(text)) {
    return new TidemarkError('TIDEMARK_PERMISSION', `${message}: ${text}`, {
      cause: error,
      hint: 'the folder of a store must be readable and writable for the process',
    });
  }
  if (/LEVEL_CORRUPTION|Corruption/i.test(text)) {
    return new TidemarkError('TIDEMARK_DAMAGED', `${message}: ${text}`, {
      cause: error,
      hint: 'a file of the store is damaged or missing',
    });
  }
  if (/ENOENT|No such file/i.test(text)) {
    return new TidemarkError('TIDEMARK_DAMAGED', `${message}: a file is missing: ${text}`, { cause: error });
  }
  return new TidemarkError('TIDEMARK_WRITE_FAILED', `${message}: ${text}`, {
    cause: error,
    hint: 'the file system reported an error; see its cause',
  });
}

function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code } = error as { code?: unknown };
  const own = typeof code === 'string' && !error.message.includes(code) ? `${code}: ${error.message}` : error.message;
  return error.cause === undefined ? own : `${own}: ${errorText(error.cause)}`;
}
