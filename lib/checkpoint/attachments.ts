import type { CheckpointAttachment } from '../chain/header.js';
import { digestOf } from '../chain/read-pages.js';
import { isName } from '../options.js';
import { WORKING_SET } from '../restore/working-set.js';

/** An attachment of a call of `checkpoint`. */
export interface Attachment {
  name: string;
  /** What its extents are addressed by. */
  slot: number;
  /** The caller's own bytes: valid during the call only. */
  bytes: Uint8Array;
  sha256: string;
  /** It is what the checkpoint before has under this name. */
  unchanged: boolean;
}

/** One attachment, in bytes. */
const MAX_BYTES = 2 ** 30;

/** @throws {TypeError | RangeError} */
export function checkAttachments(value: unknown): Map<string, Uint8Array> {
  // A Map has no keys of its own: what is in it would be left out without a word.
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Map)
    throw new TypeError('attachments must be an object of Uint8Arrays by name');
  const checked = new Map<string, Uint8Array>();
  for (const [name, bytes] of Object.entries(value)) {
    isName('attachment name', name);
    if (name === WORKING_SET) throw new RangeError(`attachments.${name}: tidemark uses this name itself`);
    if (!(bytes instanceof Uint8Array)) throw new TypeError(`attachments.${name} must be a Uint8Array`);
    if (bytes.length > MAX_BYTES) throw new RangeError(`attachments.${name} must be at most 1 GiB, not ${bytes.length} bytes`);
    checked.set(name, bytes);
  }
  return checked;
}

/**
 * Compares attachments with those of the checkpoint before, by SHA-256: a CRC would be enough to notice damage, but not to say that two things
 * are the same.
 */
export function compareAttachments(
  attachments: ReadonlyMap<string, Uint8Array>,
  before: Readonly<Record<string, CheckpointAttachment>>,
  nextSlot: () => number,
): Attachment[] {
  return [...attachments].map(([name, given]) => {
    // Another thread may write to shared memory between hashing and copying: what is hashed must be what is stored.
    // (Not `slice()`: that of a Buffer copies nothing.)
    const bytes = given.buffer instanceof SharedArrayBuffer ? new Uint8Array(given) : given;
    const sha256 = digestOf(bytes);
    const unchanged = Object.hasOwn(before, name) && before[name]!.sha256 === sha256 && before[name]!.byteLength === bytes.length;
    return { name, slot: nextSlot(), bytes, sha256, unchanged };
  });
}
