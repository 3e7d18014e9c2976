import { PAGE_SIZE } from '../kernel/addon.js';
import { broken, damaged } from './damage.js';
import type { Header } from './header.js';
import { applyLevelTable, decodeLevelTable } from './level-table.js';
import type { Log } from './log.js';
import { addState, decodeManifest, type Manifest } from './manifest.js';
import { levelSpan, PageTable, pendingLevels, RegionTable, type Stored, Version } from './page-table.js';
import { Kind } from './record.js';
import type { Runs } from './runs.js';
import type { StoredExtents } from './stored-extents.js';

/** What loading needs of the index: the record number of a checkpoint's manifest. */
export type FindHeader = (uid: string) => Promise<Header | undefined>;

export async function readManifest(log: Log, number: number): Promise<Manifest> {
  return decodeManifest(await log.payload(number, Kind.manifest), number);
}

/**
 * The page table as of a checkpoint: from it towards the root, newest version of each page first, skipping 16^k checkpoints wherever
 * there is a table of level k. Every link is checked, and at the end the sum over all versions against the state the manifest states.
 * @throws `TIDEMARK_DAMAGED`, `TIDEMARK_CHAIN_BROKEN`
 */
export async function loadPageTable(log: Log, header: Header, find: FindHeader): Promise<PageTable> {
  const table = new PageTable();
  const newest = await linkedManifest(log, header);
  table.depth = newest.depth;
  table.state = newest.stateAfter;
  table.nextRegion = newest.nextRegion;
  table.attachments = newest.attachments;
  for (const region of newest.regions) {
    table.regions.set(
      region.name,
      new RegionTable(region.number, region.name, region.byteLength, region.length, region.byteLength / PAGE_SIZE),
    );
  }
  let manifest = newest;
  for (;;) {
    table.noteBoundary(manifest.uid, manifest.depth, newest.depth);
    const levels = pendingLevels(manifest.depth, newest.depth);
    if (manifest.tableLevel > 0) {
      const level = decodeLevelTable(await log.payload(manifest.tableRecord, Kind.table), manifest.tableRecord);
      if (level.uid !== manifest.uid || level.level !== manifest.tableLevel)
        throw damaged(`page table ${manifest.tableRecord} belongs to another checkpoint`);
      applyLevelTable(level, table, levels, manifest.tableRecord);
      const base = await find(level.base);
      if (base === undefined) throw broken(`checkpoint ${manifest.id} builds on ${level.base}, which is missing`);
      const older = await linkedManifest(log, base);
      if (older.depth !== manifest.depth - levelSpan(level.level))
        throw broken(`page table ${manifest.tableRecord} does not fit checkpoint ${older.id}`);
      manifest = older;
      continue;
    }
    applyManifest(manifest, table, levels);
    if (manifest.parent === null) break;
    const parent = await find(manifest.parentUid!);
    if (parent === undefined) throw broken(`checkpoint ${manifest.id} builds on ${manifest.parentUid}, which is missing`);
    const older = await linkedManifest(log, parent);
    if (older.stateAfter !== manifest.stateBefore || older.depth !== manifest.depth - 1) {
      throw broken(`checkpoint ${manifest.id} does not fit the checkpoint ${older.id} it builds on`);
    }
    manifest = older;
  }
  checkState(table, newest);
  for (const region of table.regions.values()) region.older.loaded();
  return table;
}

async function linkedManifest(log: Log, header: Header): Promise<Manifest> {
  const manifest = await readManifest(log, header.manifest);
  if (manifest.uid !== header.checkpoint.uid)
    throw broken(`record ${header.manifest} is not the manifest of checkpoint ${header.checkpoint.id}`);
  return manifest;
}

/** Puts the versions of a manifest where the table has none yet. */
function applyManifest(manifest: Manifest, table: PageTable, levels: number): void {
  for (const change of manifest.regions) {
    const region = table.byNumber(change.number);
    if (region === undefined) continue;
    addExtents(region, Version.full, change.extents, levels);
    addExtents(region, Version.delta, change.deltas, levels);
    addZeros(region, change.zeros, levels);
  }
}

function addZeros(region: RegionTable, zeros: Runs, levels: number): void {
  const count = zeros.length / 2;
  const runs = {
    records: new Float64Array(count),
    firsts: zeros.filter((_, k) => k % 2 === 0),
    lengths: zeros.filter((_, k) => k % 2 === 1),
    slots: new Uint8Array(count),
  };
  region.addRuns(new Uint8Array(count).fill(Version.zero), runs, undefined, levels);
}

function addExtents(region: RegionTable, kind: Stored, extents: StoredExtents, levels: number): void {
  region.addRuns(new Uint8Array(extents.runs.firsts.length).fill(kind), extents.runs, extents.crcs, levels);
}

function checkState(table: PageTable, manifest: Manifest): void {
  let state = 0n;
  for (const region of table.regions.values()) {
    if (region.older.open > 0)
      throw broken(`checkpoint ${manifest.id} has deltas in region ${region.name} without the page that they build on`);
    state = addState(state, region.state());
  }
  if (state !== manifest.stateAfter)
    throw broken(`the page tables of checkpoint ${manifest.id} do not add up to the state it was committed with`);
}
