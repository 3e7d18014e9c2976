import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, link, lstat, open, readdir, realpath, rename, stat, statfs, unlink } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { CliError, Exit, usageError } from './exit.js';

/** Holes are made of whole blocks of this size. */
const BLOCK = 4096;
const ZEROS = Buffer.alloc(BLOCK);

/**
 * A file that appears under its name whole or not at all: written under another name in the same folder, synced, renamed.
 * Only its owner may read it, as with the store it comes from.
 */
export class PendingFile {
  readonly path: string;
  readonly #temporary: string;
  readonly #force: boolean;
  #handle: FileHandle | undefined;
  #published = false;

  private constructor(path: string, temporary: string, force: boolean, handle: FileHandle) {
    this.path = path;
    this.#temporary = temporary;
    this.#force = force;
    this.#handle = handle;
  }

  static async create(path: string, force: boolean): Promise<PendingFile> {
    const temporary = join(dirname(path), `.tidemark-${process.pid}-${randomBytes(6).toString('hex')}.tmp`);
    return new PendingFile(path, temporary, force, await open(temporary, 'wx', 0o600));
  }

  /** `at` must be a multiple of the block size; blocks of zeros are left out, for `finish` to make holes of. */
  async write(bytes: Uint8Array, at: number): Promise<void> {
    const zero = (from: number) => {
      const end = Math.min(from + BLOCK, bytes.length);
      return ZEROS.compare(bytes, from, end, 0, end - from) === 0;
    };
    for (let from = 0; from < bytes.length; ) {
      let end = from;
      while (end < bytes.length && !zero(end)) end += BLOCK;
      end = Math.min(end, bytes.length);
      while (from < end) from += (await this.#handle!.write(bytes, from, end - from, at + from)).bytesWritten;
      while (from < bytes.length && zero(from)) from += BLOCK;
    }
  }

  /** Makes it that long and durable. */
  async finish(byteLength: number): Promise<void> {
    await this.#handle!.truncate(byteLength);
    await this.#handle!.sync();
    await this.#handle!.close();
    this.#handle = undefined;
  }

  async publish(): Promise<void> {
    if (this.#force) await rename(this.#temporary, this.path);
    else await this.#publishNew();
    this.#published = true;
  }

  /** A link fails where a rename would overwrite what has come there meanwhile. */
  async #publishNew(): Promise<void> {
    try {
      await link(this.#temporary, this.path);
    } catch (error) {
      if (isCode(error, 'EEXIST')) throw exists(this.path);
      // A file system without hard links.
      if ((await statOf(this.path)) !== undefined) throw exists(this.path);
      await rename(this.#temporary, this.path);
      return;
    }
    await unlink(this.#temporary);
  }

  /** Removes what there is of it. What it has overwritten already stays overwritten. */
  async discard(): Promise<void> {
    await this.#handle?.close().catch(() => {});
    if (!this.#published) await unlink(this.#temporary).catch(() => {});
    else if (!this.#force) await unlink(this.path).catch(() => {});
  }
}

/** Where to write: the file a link points to. @throws when it may not be overwritten */
export async function checkFile(path: string, force: boolean): Promise<string> {
  const found = await statOf(path);
  if (found === undefined) {
    await requireFolder(dirname(resolve(path)));
    return path;
  }
  const target = found.isSymbolicLink() ? await realpath(path) : path;
  const old = found.isSymbolicLink() ? await stat(target) : found;
  if (old.isDirectory())
    throw new CliError(
      'EISDIR',
      Exit.failed,
      `${path} is a folder`,
      'name a file, or leave out --region to restore all regions into a folder',
    );
  if (!old.isFile())
    throw new CliError(
      'EEXIST',
      Exit.failed,
      `${path} is not a regular file`,
      '`--output -` writes to stdout, which can be redirected to it',
    );
  if (!force) throw exists(path);
  return target;
}

/** Whether the folder has to be made. @throws when there is something in it that may be overwritten */
export async function checkFolder(path: string, force: boolean): Promise<{ missing: boolean }> {
  const found = await stat(path).catch((error) => {
    if (isCode(error, 'ENOENT')) return undefined;
    throw error;
  });
  if (found === undefined) {
    if ((await statOf(path)) !== undefined) throw new CliError('EEXIST', Exit.failed, `${path} is a link to nothing`);
    await requireFolder(dirname(resolve(path)));
    return { missing: true };
  }
  if (!found.isDirectory())
    throw new CliError(
      'ENOTDIR',
      Exit.failed,
      `${path} is not a folder`,
      'to restore one region into a file, name it with --region',
    );
  if (!force && (await readdir(path)).length > 0)
    throw new CliError(
      'ENOTEMPTY',
      Exit.failed,
      `the folder ${path} is not empty`,
      '--force overwrites the files of the same names',
    );
  return { missing: false };
}

/** Nothing is to be written into a store but by tidemark's library. */
export async function checkOutside(store: string, output: string): Promise<void> {
  const [inner, outer] = [await nearest(resolve(output)), await realpath(store)];
  if (inner === outer || inner.startsWith(`${outer}/`)) throw usageError(`${output} is in the store itself`, 'restore');
}

/** @param needed bytes that will be written at most; found out only when it matters */
export async function checkSpace(folder: string, needed: (enough: number) => Promise<number>): Promise<void> {
  const { blocks, bavail, bsize } = await statfs(folder);
  // Some file systems do not say.
  if (blocks === 0) return;
  const free = bavail * bsize;
  const most = await needed(free);
  if (most <= free) return;
  throw new CliError(
    'TIDEMARK_NO_SPACE',
    Exit.noSpace,
    `up to ${most} bytes are to be written, and the file system of ${folder} has ${free} bytes free`,
    'make room, or write to another file system',
  );
}

/** Makes the names in a folder durable. */
export async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function exists(path: string): CliError {
  return new CliError('EEXIST', Exit.failed, `${path} exists already`, '--force overwrites it');
}

async function requireFolder(path: string): Promise<void> {
  const found = await stat(path).catch((error) => {
    if (isCode(error, 'ENOENT')) throw new CliError('ENOENT', Exit.failed, `there is no folder ${path}`, 'make it first');
    throw error;
  });
  if (!found.isDirectory()) throw new CliError('ENOTDIR', Exit.failed, `${path} is not a folder`);
}

/** The real path of what of a path is there, with the rest behind it. */
async function nearest(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(await nearest(parent), basename(path));
  }
}

async function statOf(path: string) {
  try {
    return await lstat(path);
  } catch (error) {
    if (isCode(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function isCode(error: unknown, code: string): boolean {
  return (error as NodeJS.ErrnoException).code === code;
}
