import type { VerifyProblem, VerifyReport } from '../engine/protocol.js';
import type { TidemarkError } from '../errors.js';
import { PAGE_SIZE, SEGMENT_PAGES } from '../kernel/addon.js';
import { readPages } from './assembly.js';
import { broken } from './damage.js';
import { ExtentReader } from './extent.js';
import { ExtentKind } from './extent-kind.js';
import type { Header } from './header.js';
import { readManifest } from './load.js';
import type { Manifest } from './manifest.js';
import type { PageTable } from './page-table.js';
import { present, readAttachment } from './read-pages.js';
import { Kind, openRecord } from './record.js';
import { toRuns } from './runs.js';
import type { StoreHost } from './store-host.js';
import type { StoredExtent } from './stored-extents.js';
import { readRef } from './tail.js';

const PAGE_OF_HEADERS = 256;
const FINDINGS: ReadonlySet<string> = new Set(['TIDEMARK_DAMAGED', 'TIDEMARK_CHAIN_BROKEN', 'TIDEMARK_STORE_FORMAT']);

interface Run {
  report: VerifyReport;
  /** For the pages of an extent. */
  scratch: Uint8Array;
  /** Extents of attachments that were checked, with what was found: an attachment that does not change is in many checkpoints. */
  attached: Map<number, unknown>;
}

/**
 * Checks every checkpoint of a store: its manifest, its link to the parent, its page table, and that every extent is there with the right
 * checksum; with `readData` every page is decompressed and compared with its CRC32C as well; and the names that were given later. Changes nothing.
 */
export async function verifyStore(host: StoreHost, readData: boolean): Promise<VerifyReport> {
  const report: VerifyReport = { checkpoints: 0, extents: 0, pages: 0, bytes: 0, readData, problems: [] };
  for (const { record, error } of host.committer.damage)
    report.problems.push({ ...describe(error), message: `record ${record}: ${describe(error).message}` });
  const run = { report, scratch: new Uint8Array(SEGMENT_PAGES * PAGE_SIZE), attached: new Map<number, unknown>() };
  let after: number | undefined;
  for (;;) {
    const headers = await host.committer.read((index) => index.page({ after, reverse: false, limit: PAGE_OF_HEADERS }));
    for (const header of headers) await verifyCheckpoint(host, header, run);
    if (headers.length < PAGE_OF_HEADERS) break;
    after = headers.at(-1)!.checkpoint.id;
  }
  await verifyRefs(host, report);
  return report;
}

/** Nobody reads these again as long as the index is whole; without one the names would be gone. */
async function verifyRefs(host: StoreHost, report: VerifyReport): Promise<void> {
  const known = new Set(host.committer.damage.map(({ record }) => record));
  for (const number of await host.committer.read((index) => index.refs(0))) {
    if (known.has(number)) continue;
    try {
      await readRef(host.log, number);
    } catch (error) {
      if (!FINDINGS.has((error as Partial<TidemarkError>).code ?? '')) throw error;
      report.problems.push(describe(error));
    }
  }
}

async function verifyCheckpoint(host: StoreHost, header: Header, run: Run): Promise<void> {
  const { report, attached } = run;
  report.checkpoints++;
  const { id } = header.checkpoint;
  const problem = (error: unknown, more: Partial<VerifyProblem> = {}) => {
    // What could not be looked at is no finding.
    if (!FINDINGS.has((error as Partial<TidemarkError>).code ?? '')) throw error;
    report.problems.push({ ...describe(error), checkpoint: id, ...more });
  };
  let manifest: Manifest;
  let table: PageTable;
  try {
    manifest = await readManifest(host.log, header.manifest);
    if (manifest.uid !== header.checkpoint.uid) throw broken(`record ${header.manifest} is not the manifest of checkpoint ${id}`);
    await verifyLink(host, manifest);
    // Loading compares the sum over all versions with the state that the manifest states.
    table = await host.loadTable(header);
  } catch (error) {
    problem(error);
    return;
  }
  const check = async (
    extent: StoredExtent,
    kind: ExtentKind,
    what: Partial<VerifyProblem>,
    known?: Map<number, unknown>,
  ): Promise<void> => {
    let found = known?.get(extent.record);
    if (known?.has(extent.record) !== true) {
      found = await verifyExtent(host, extent, kind, run).catch((error) => error);
      known?.set(extent.record, found);
    }
    if (found !== undefined) problem(found, { ...what, pages: [...toRuns(extent.pages)] });
  };
  for (const { name, extents, deltas } of manifest.regions) {
    const before = report.problems.length;
    for (const extent of extents) await check(extent, ExtentKind.full, { region: name });
    for (const extent of deltas) await check(extent, ExtentKind.delta, { region: name });
    if (!report.readData || report.problems.length > before) continue;
    // What a delta makes shows only with what it builds on.
    const region = table.regions.get(name)!;
    for (const { pages } of deltas)
      await readPages(host.log, region, pages).catch((error) => problem(error, { region: name, pages: [...toRuns(pages)] }));
  }
  for (const attachment of manifest.attachments) {
    const { name, extents } = attachment;
    const isNew = extents.records.some((record) => !attached.has(record));
    const before = report.problems.length;
    for (const extent of extents) await check(extent, ExtentKind.full, { attachment: name }, attached);
    if (!isNew || !report.readData || report.problems.length > before) continue;
    await readAttachment(host.log, attachment).catch((error) => problem(error, { attachment: name }));
  }
}

async function verifyLink(host: StoreHost, manifest: Manifest): Promise<void> {
  if (manifest.parentUid === null) return;
  const uid = manifest.parentUid;
  const parent = await host.committer.read((index) => index.byUid(uid));
  if (parent === undefined) throw broken(`checkpoint ${manifest.id} builds on ${manifest.parentUid}, which is missing`);
  const older = await readManifest(host.log, parent.manifest);
  if (older.stateAfter !== manifest.stateBefore)
    throw broken(`checkpoint ${manifest.id} does not fit the checkpoint ${older.id} it builds on`);
}

async function verifyExtent(host: StoreHost, extent: StoredExtent, kind: ExtentKind, { report, scratch }: Run): Promise<void> {
  const { record: number, count, slots, pages, crcs } = extent;
  const record = present(await host.log.record(number, Kind.extent), number);
  const reader = new ExtentReader(openRecord(record, Kind.extent, number, host.log.store), number);
  report.extents++;
  report.pages += pages.length;
  report.bytes += record.length;
  if (reader.kind !== kind) throw broken(`extent ${number} does not hold what the manifest says`);
  if (reader.count !== count) throw broken(`extent ${number} has ${reader.count} instead of ${count} slots`);
  if (!report.readData) return;
  if (kind === ExtentKind.full) reader.gather(slots, crcs, scratch);
  else reader.collect(slots, scratch);
}

/** Without the hint, which is to run what is running. */
function describe(error: unknown): { code: string; message: string } {
  const { code = 'TIDEMARK_DAMAGED', message, hint } = error as Partial<TidemarkError> & Error;
  return { code, message: message.replace(` (${hint})`, '') };
}
