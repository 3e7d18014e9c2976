import { createHash } from 'node:crypto';
import { PAGE_SIZE, SEGMENT_PAGES } from '../kernel/addon.js';
import { broken, damaged, foundIn } from './damage.js';
import { ExtentReader } from './extent.js';
import type { Log } from './log.js';
import type { StoredAttachment } from './manifest.js';
import { type RegionTable, Version } from './page-table.js';
import { Kind } from './record.js';
import { slotsOf } from './stored-extents.js';

/** The pages of one extent that are wanted: slots ascending. */
export interface ExtentUse {
  record: number;
  slots: Uint8Array;
  pages: Uint32Array;
  crcs: Uint32Array;
}

/** Groups pages by the extent that holds their newest version; pages without one are left out. Extents in the order of their records, each read once. */
export function groupByExtent(region: RegionTable, pages: Iterable<number>): ExtentUse[] {
  const groups = new Map<number, number[]>();
  for (const page of pages) {
    if (region.kind(page) !== Version.full) continue;
    const record = region.record(page);
    const group = groups.get(record);
    if (group === undefined) groups.set(record, [page]);
    else group.push(page);
  }
  const uses: ExtentUse[] = [];
  for (const [record, members] of groups) {
    members.sort((a, b) => region.slot[a]! - region.slot[b]!);
    uses.push({
      record,
      slots: Uint8Array.from(members, (page) => region.slot[page]!),
      pages: Uint32Array.from(members),
      crcs: Uint32Array.from(members, (page) => region.crc[page]!),
    });
  }
  return uses.sort((a, b) => a.record - b.record);
}

/** Bytes of a region as of a checkpoint; what was never stored is zero. */
export async function readRange(log: Log, region: RegionTable, byteOffset: number, byteLength: number): Promise<Uint8Array> {
  const result = new Uint8Array(byteLength);
  const first = Math.floor(byteOffset / PAGE_SIZE);
  const end = Math.ceil((byteOffset + byteLength) / PAGE_SIZE);
  const wanted = Array.from({ length: end - first }, (_, k) => first + k);
  const scratch = new Uint8Array(SEGMENT_PAGES * PAGE_SIZE);
  for (const use of groupByExtent(region, wanted)) {
    const payload = await log.payload(use.record, Kind.extent);
    new ExtentReader(payload, use.record).gather(use.slots, use.crcs, scratch);
    for (let k = 0; k < use.pages.length; k++) {
      const at = use.pages[k]! * PAGE_SIZE - byteOffset;
      const from = Math.max(0, -at);
      const to = Math.min(PAGE_SIZE, byteLength - at);
      result.set(scratch.subarray(k * PAGE_SIZE + from, k * PAGE_SIZE + to), at + from);
    }
  }
  return result;
}

/** The bytes of an attachment. @throws `TIDEMARK_DAMAGED`, `TIDEMARK_CHAIN_BROKEN` */
export async function readAttachment(log: Log, attachment: StoredAttachment): Promise<Uint8Array> {
  const { name, byteLength, sha256, extents } = attachment;
  const padded = new Uint8Array(extents.reduce((sum, { count }) => sum + count, 0) * PAGE_SIZE);
  let at = 0;
  try {
    for (const extent of extents) {
      const payload = await log.payload(extent.record, Kind.extent);
      const end = at + extent.count * PAGE_SIZE;
      new ExtentReader(payload, extent.record).gather(slotsOf(extent), extent.crcs, padded.subarray(at, end));
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
