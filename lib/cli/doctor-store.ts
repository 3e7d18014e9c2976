import { accessSync, constants, readFileSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { failureOf, notFound } from './exit.js';
import { quoted } from './format.js';

export interface StoreCheck {
  path: string;
  /** null when the marker says none that can be read. */
  format: number | null;
  uuid: string | null;
  /** Readable and writable for this user. */
  accessible: boolean;
  /** Who has it open; null when nobody seems to. */
  owner: string | null;
  freeBytes: number;
  /** Of a known form, and accessible. */
  usable: boolean;
}

const MARKER = /^tidemark store\nformat (\d+)\nuuid ([0-9a-f-]{36})\n/;

/** Looks at a store from outside: opening its databases would change them. @throws {TidemarkError} `TIDEMARK_NOT_FOUND` */
export function inspectStore(path: string): StoreCheck {
  const found = marker(path);
  const accessible = isAccessible(path) && found !== 'hidden';
  const parsed = found === 'hidden' ? null : MARKER.exec(found);
  const { bavail, bsize } = statfsSync(path);
  return {
    path,
    format: parsed === null ? null : Number(parsed[1]),
    uuid: parsed?.[2] ?? null,
    accessible,
    owner: accessible ? ownerOf(path) : null,
    freeBytes: bavail * bsize,
    usable: accessible && parsed !== null,
  };
}

function marker(path: string): string | 'hidden' {
  try {
    statSync(path);
    return readFileSync(join(path, 'TIDEMARK'), 'utf8');
  } catch (error) {
    const { code } = failureOf(error);
    if (code === 'EACCES' || code === 'EPERM') return 'hidden';
    throw notFound(
      `${path} is not a tidemark store: ${code === 'ENOENT' ? 'it has no TIDEMARK file, or there is no such folder' : code}`,
    );
  }
}

function isAccessible(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The kernel's list of locks says whether the lock is held, without taking it from who wants it just now. */
function ownerOf(path: string): string | null {
  let inode: number;
  let locks: string;
  try {
    inode = statSync(join(path, 'lock')).ino;
    locks = readFileSync('/proc/locks', 'utf8');
  } catch {
    return null;
  }
  const noted = ownerFile(path);
  // 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF. The device is not compared: some file systems show another one here than in stat(2).
  for (const [, pid, locked] of locks.matchAll(/^\d+: FLOCK +\S+ +\S+ +(-?\d+) [0-9a-f]+:[0-9a-f]+:(\d+) /gm)) {
    if (Number(locked) !== inode) continue;
    if (noted === undefined) return `by pid ${pid}`;
    if (`${noted.pid}` === pid || Number(pid) <= 0)
      return `by pid ${noted.pid} on ${quoted(noted.host)} since ${quoted(noted.since)}`;
  }
  return null;
}

function ownerFile(path: string): { pid: number; host: string; since: string } | undefined {
  try {
    const { pid, host, since } = JSON.parse(readFileSync(join(path, 'owner.json'), 'utf8'));
    return typeof pid === 'number' ? { pid, host: String(host), since: String(since) } : undefined;
  } catch {
    return undefined;
  }
}
