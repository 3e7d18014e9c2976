import { PAGE_SIZE } from '../kernel/addon.js';
import { type Json, type Manifest, storedPages } from './manifest.js';
import { countPages } from './runs.js';

/** What one checkpoint holds of one region. */
export interface CheckpointRegion {
  /** Size of the region, in bytes. */
  byteLength: number;
  /** Meaningful bytes from its start: what `tidemark restore` writes to a file. */
  length: number;
  /** Pages of 4 KiB stored by this checkpoint. */
  pages: number;
  /** Of these, stored as the difference to the version before. */
  deltaPages: number;
  /** Pages that became zero. */
  zeroPages: number;
  /** Pages that were written with what they held before, as far as that was noticed. */
  unchangedPages: number;
}

/** Bytes that a checkpoint holds beside the memory. */
export interface CheckpointAttachment {
  byteLength: number;
  /** Of its bytes, 64 hex digits. */
  sha256: string;
}

export interface CheckpointTimings {
  /** The caller's thread was blocked. */
  captureMs: number;
  /** From the capture until the last extent had reached the storage thread. */
  encodeMs: number;
  /** From then until it was committed; 0 when it was read back from a log whose index was lost. */
  commitMs: number;
  totalMs: number;
}

/** A checkpoint as the API shows it. */
export interface Checkpoint {
  /** 1, 2, ...: grows within a store. */
  id: number;
  /** 32 hex digits, unique everywhere. */
  uid: string;
  parent: number | null;
  kind: 'full' | 'incremental';
  /** It survives power loss, and so does everything it builds on. */
  durable: boolean;
  branch: string;
  /** The label given last, of those that name it. */
  label?: string;
  /** All that name it. */
  labels: string[];
  metadata?: Json;
  fingerprint?: string;
  /** Bytes stored beside the memory, by name. */
  attachments: Record<string, CheckpointAttachment>;
  createdAt: Date;
  regions: Record<string, CheckpointRegion>;
  /** Bytes of the pages that were stored, before compression. */
  rawBytes: number;
  /** Everything that was put into the log for it: extents, manifest, table, keys. */
  storedBytes: number;
  timings: CheckpointTimings;
}

/** A checkpoint with what links it to the log; kept in the index as JSON. */
export interface Header {
  /** `label` is the one it was committed with. */
  checkpoint: Omit<Checkpoint, 'createdAt' | 'durable' | 'labels'> & { createdAt: number };
  manifest: number;
  depth: number;
  parentUid: string | null;
  sync: boolean;
}

export function headerOf(m: Manifest, number: number, recordBytes: number, commitMs: number): Header {
  // `__proto__` is a name like any other, but not one that can be assigned to.
  const regions: Record<string, CheckpointRegion> = Object.fromEntries(
    m.regions.map((region) => {
      const { name, byteLength, length, deltas, zeros, unchangedPages } = region;
      const pages = storedPages(region);
      return [name, { byteLength, length, pages, deltaPages: deltas.pageCount, zeroPages: countPages(zeros), unchangedPages }];
    }),
  );
  const pages = Object.values(regions).reduce((sum, region) => sum + region.pages, 0);
  const { branch, label, metadata, fingerprint, captureMs, encodeMs } = m.info;
  const checkpoint: Header['checkpoint'] = {
    id: m.id,
    uid: m.uid,
    parent: m.parent,
    kind: m.parent === null ? 'full' : 'incremental',
    branch,
    attachments: Object.fromEntries(m.attachments.map(({ name, byteLength, sha256 }) => [name, { byteLength, sha256 }])),
    createdAt: m.createdAt,
    regions,
    rawBytes: pages * PAGE_SIZE,
    storedBytes: m.extentBytes + m.tableBytes + recordBytes + KEY_BYTES,
    timings: { captureMs, encodeMs, commitMs, totalMs: captureMs + encodeMs + commitMs },
  };
  if (label !== undefined) checkpoint.label = label;
  if (metadata !== undefined) checkpoint.metadata = metadata;
  if (fingerprint !== undefined) checkpoint.fingerprint = fingerprint;
  return { checkpoint, manifest: number, depth: m.depth, parentUid: m.parentUid, sync: m.sync };
}

/** Bytes of a key of the log. */
export const KEY_BYTES = 9;
/**
 * The public form.
 * @param durableThrough the record up to which the whole log is known to be durable
 * @param labels that name it now
 */
export function publicCheckpoint(header: Header, durableThrough: number, labels: string[]): Checkpoint {
  const { createdAt, label: _, ...rest } = header.checkpoint;
  const durable = header.sync || header.manifest <= durableThrough;
  const checkpoint: Checkpoint = { ...rest, labels, createdAt: new Date(createdAt), durable };
  if (labels.length > 0) checkpoint.label = labels.at(-1)!;
  return checkpoint;
}
