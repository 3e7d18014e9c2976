import { createHash } from 'node:crypto';
import { PAGE_SIZE } from '../kernel/addon.js';
import { readPages } from './assembly.js';
import { broken, damaged, foundIn } from './damage.js';
import { ExtentReader } from './extent.js';
import type { Log } from './log.js';
import type { StoredAttachment } from './manifest.js';
import type { RegionTable } from './page-table.js';
import { Kind } from './record.js';

/** Memory taken to read a range: 16 MiB. */
const PAGES_AT_ONCE = 4096;

/** Bytes of a region as of a checkpoint; what was never stored is zero. */
export async function readRange(log: Log, region: RegionTable, byteOffset: number, byteLength: number): Promise<Uint8Array> {
  const result = new Uint8Array(byteLength);
  const first = Math.floor(byteOffset / PAGE_SIZE);
  const end = Math.ceil((byteOffset + byteLength) / PAGE_SIZE);
  for (let from = first; from < end; from += PAGES_AT_ONCE) {
    const count = Math.min(PAGES_AT_ONCE, end - from);
    const page = await readPages(
      log,
      region,
      Uint32Array.from({ length: count }, (_, k) => from + k),
    );
    for (let k = 0; k < count; k++) {
      const at = (from + k) * PAGE_SIZE - byteOffset;
      const start = Math.max(0, -at);
      result.set(page(k).subarray(start, Math.min(PAGE_SIZE, byteLength - at)), at + start);
    }
  }
  return result;
}

/** The bytes of an attachment. @throws `TIDEMARK_DAMAGED`, `TIDEMARK_CHAIN_BROKEN` */
export async function readAttachment(log: Log, attachment: StoredAttachment): Promise<Uint8Array> {
  const { name, byteLength, sha256, extents } = attachment;
  const padded = new Uint8Array(extents.pageCount * PAGE_SIZE);
  let at = 0;
  try {
    for (const extent of extents) {
      const payload = await log.payload(extent.record, Kind.extent);
      const end = at + extent.count * PAGE_SIZE;
      new ExtentReader(payload, extent.record).gather(extent.slots, extent.crcs, padded.subarray(at, end));
      at = end;
    }
  } catch (error) {
    throw foundIn(`attachment ${name}`, error);
  }
  const bytes = byteLength === padded.length ? padded : padded.slice(0, byteLength);
  if (digestOf(bytes) !== sha256) throw damaged(`attachment ${name} is not what was stored`);
  return bytes;
}

/** SHA-256, 64 hex digits. */
export function digestOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A record that must be there. */
export function present(record: Uint8Array | undefined, number: number): Uint8Array {
  if (record === undefined) throw broken(`extent ${number} is missing from the log`);
  return record;
}
