import { randomBytes } from 'node:crypto';
import { type Header, headerOf, KEY_BYTES } from '../chain/header.js';
import { encodeLevelTable } from '../chain/level-table.js';
import { deletion, type Log, type LogOperation } from '../chain/log.js';
import { addState, encodeManifest, type Manifest, type RegionChange, type StoredAttachment, stateOf } from '../chain/manifest.js';
import { LEVELS, PageTable, RegionTable, type Stored, tableLevel, Version } from '../chain/page-table.js';
import { Kind, packRecord, recordKey } from '../chain/record.js';
import { toRuns } from '../chain/runs.js';
import { allSlots, type StoredExtent, StoredExtents } from '../chain/stored-extents.js';
import type { Captured, CapturedAttachment, CapturedRegion } from '../engine/protocol.js';
import { TidemarkError } from '../errors.js';
import { PAGE_SIZE } from '../kernel/addon.js';
import { type NewestVersions, newestVersions } from './newest-versions.js';
import type { Pending } from './session.js';

/** A checkpoint that is ready to be committed. */
export interface Built {
  header: Header;
  operations: LogOperation[];
  table: PageTable;
}

export interface BuildContext {
  log: Log;
  id: number;
  branch: string;
  base: Header | undefined;
  table: PageTable | undefined;
  lowWater: number;
  previousManifest: number;
  encodeMs: number;
}

const ALL_LEVELS = (1 << LEVELS) - 1;

/** Makes the manifest of a checkpoint whose extents are all known, and the page tables as of it (in place of `context.table`). */
export function buildManifest(captured: Captured, pending: Pending, context: BuildContext): Built {
  const full = context.base === undefined;
  const table = full ? new PageTable() : context.table!;
  const newest = captured.regions.map((region) => newestOf(region, pending));
  // Before anything is entered into the table: it is as good as ever when this throws.
  for (const [k, region] of captured.regions.entries()) proveDeltas(region, newest[k]!, table);
  const depth = full ? 0 : table.depth + 1;
  const stateBefore = table.state;
  const { regions, stateChange, superseded } = applyRegions(captured, newest, table);
  table.attachments = captured.attachments.map((attachment) => storeAttachment(attachment, pending, table.attachments));
  table.depth = depth;
  table.state = addState(stateBefore, stateChange);
  const gone = new Set(superseded);
  const manifest: Manifest = {
    id: context.id,
    uid: randomBytes(16).toString('hex'),
    parent: context.base?.checkpoint.id ?? null,
    parentUid: context.base?.checkpoint.uid ?? null,
    depth,
    createdAt: captured.createdAt,
    sync: captured.sync,
    stateBefore,
    stateAfter: table.state,
    lowWater: context.lowWater,
    previousManifest: context.previousManifest,
    tableRecord: 0,
    tableLevel: tableLevel(depth),
    extentBytes: pending.extents.reduce((sum, { record, storedBytes }) => sum + (gone.has(record) ? 0 : storedBytes), 0),
    tableBytes: 0,
    nextRegion: table.nextRegion,
    info: { ...captured.info, branch: context.branch, encodeMs: context.encodeMs },
    regions,
    attachments: [...table.attachments],
  };
  const operations: LogOperation[] = [];
  if (manifest.tableLevel > 0) {
    const number = context.log.nextNumber();
    const record = packRecord(Kind.table, number, context.log.store, encodeLevelTable(manifest.uid, manifest.tableLevel, table));
    manifest.tableRecord = number;
    manifest.tableBytes = record.length + KEY_BYTES;
    operations.push({ type: 'put', key: recordKey(number, Kind.table), value: record });
    for (const region of table.regions.values()) region.clearPending(manifest.tableLevel);
  } else if (full) {
    for (const region of table.regions.values()) region.clearPending(LEVELS);
  }
  table.noteBoundary(manifest.uid, depth, depth);
  const number = context.log.nextNumber();
  const record = packRecord(Kind.manifest, number, context.log.store, encodeManifest(manifest));
  operations.push({ type: 'put', key: recordKey(number, Kind.manifest), value: record });
  // With the manifest or not at all: behind its low-water mark nobody would look for them. LevelDB applies a batch in its order, so those that this
  // very batch puts go, too.
  for (const superseded of gone) operations.push(deletion(superseded, Kind.extent));
  return { header: headerOf(manifest, number, record.length, 0), operations, table };
}

/** Enters what was captured into the page tables. Regions that were not captured are no longer there. */
function applyRegions(
  captured: Captured,
  newest: readonly NewestVersions[],
  tables: PageTable,
): { regions: RegionChange[]; stateChange: bigint; superseded: number[] } {
  let stateChange = 0n;
  const names = new Set(captured.regions.map(({ name }) => name));
  for (const [name, table] of tables.regions) {
    if (names.has(name)) continue;
    stateChange -= table.state();
    tables.regions.delete(name);
  }
  const superseded: number[] = [];
  const regions: RegionChange[] = [];
  for (const [k, region] of captured.regions.entries()) {
    const old = tables.regions.get(region.name);
    if (old !== undefined && region.fresh) stateChange -= old.state();
    const table = old === undefined || region.fresh ? newTable(region, tables) : old;
    const applied = applyRegion(region, newest[k]!, table);
    stateChange += applied.stateChange;
    for (const record of newest[k]!.superseded) superseded.push(record);
    regions.push(applied.change);
  }
  return { regions, stateChange, superseded };
}

function newTable({ name, byteLength, length }: CapturedRegion, tables: PageTable): RegionTable {
  const table = new RegionTable(tables.nextRegion++, name, byteLength, length, byteLength / PAGE_SIZE);
  tables.regions.set(name, table);
  return table;
}

function newestOf(captured: CapturedRegion, pending: Pending): NewestVersions {
  return newestVersions(pending.slicesOf(captured), pending.segmentsOf(captured.slot), captured.byteLength / PAGE_SIZE);
}

/** A shadow is not what it was believed to be: perhaps others are not, either. */
export class WrongShadow extends TidemarkError {}

/**
 * A shadow is only believed: what it was taken for must be what the chain has. Whatever goes wrong with shadows ends here, and costs a checkpoint.
 * @throws where a delta was made against, or a page compared with, something else
 */
function proveDeltas({ name, fresh }: CapturedRegion, { compared }: NewestVersions, tables: PageTable): void {
  const table = fresh ? undefined : tables.regions.get(name);
  for (const { pages, bases } of compared) {
    for (let k = 0; k < pages.length; k++) {
      const page = pages[k]!;
      if (table?.isStored(page) && table.crc[page] === bases[k]) continue;
      throw new WrongShadow('TIDEMARK_WRITE_FAILED', `the shadow of page ${page} of region ${name} was not what is stored`, {
        hint: 'nothing is lost: take the checkpoint again, it stores these pages whole',
        retryable: true,
      });
    }
  }
}

function applyRegion(
  captured: CapturedRegion,
  newest: NewestVersions,
  table: RegionTable,
): { change: RegionChange; stateChange: bigint } {
  table.grow(captured.byteLength / PAGE_SIZE);
  table.byteLength = captured.byteLength;
  table.length = captured.length;
  // Zero pages count as a change only where something else was stored; a page that was zero already was written with what it held.
  const zeros = newest.zeros.filter((page) => table.isStored(page));
  let stateChange = -table.stateOf(zeros);
  for (const extent of newest.extents) stateChange += enter(table, Version.full, extent);
  for (const extent of newest.deltas) stateChange += enter(table, Version.delta, extent);
  for (const page of zeros) table.setZero(page, ALL_LEVELS);
  const change: RegionChange = {
    number: table.number,
    name: captured.name,
    byteLength: captured.byteLength,
    length: captured.length,
    zeros: toRuns(zeros),
    extents: StoredExtents.of(newest.extents),
    deltas: StoredExtents.of(newest.deltas),
    unchangedPages: newest.zeros.length - zeros.length + newest.unchangedPages,
  };
  return { change, stateChange };
}

/** @returns what it changes in the state */
function enter(table: RegionTable, kind: Stored, extent: StoredExtent): bigint {
  const { record, slots, pages, crcs } = extent;
  const before = table.stateOf(pages.filter((page) => table.isStored(page)));
  for (let k = 0; k < pages.length; k++) table.setStored(pages[k]!, kind, record, slots[k]!, crcs[k]!, ALL_LEVELS);
  return stateOf(table.number, pages, crcs) - before;
}

function storeAttachment(captured: CapturedAttachment, pending: Pending, before: readonly StoredAttachment[]): StoredAttachment {
  const { name, byteLength, sha256, segments } = captured;
  if (segments === null) {
    const same = before.find((one) => one.name === name && one.sha256 === sha256);
    if (same === undefined) throw new Error(`attachment ${name} is said to be unchanged, and was not there`);
    return same;
  }
  let first = 0;
  const extents = pending.segmentsOf(captured.slot).map(({ extents: [extent], crcs }) => {
    const pages = Uint32Array.from(crcs, (_, k) => first + k);
    first += crcs.length;
    return { record: extent!.record, count: crcs.length, slots: allSlots(crcs.length), pages, crcs };
  });
  return { name, byteLength, sha256, extents: StoredExtents.of(extents) };
}
