import type { Checkpoint } from '../chain/header.js';

/**
 * A checkpoint as `--json` shows it: every field always there, so that scripts need not ask. The fields are documented in docs/cli.md; new ones may
 * come, these do not go.
 */
export function checkpointJson(checkpoint: Checkpoint): Record<string, unknown> {
  const { id, uid, parent, kind, durable, branch, createdAt, rawBytes, storedBytes } = checkpoint;
  return {
    id,
    uid,
    parent,
    kind,
    durable,
    branch,
    label: checkpoint.label ?? null,
    labels: checkpoint.labels,
    createdAt: createdAt.toISOString(),
    rawBytes,
    storedBytes,
    fingerprint: checkpoint.fingerprint ?? null,
    metadata: checkpoint.metadata ?? null,
    attachments: checkpoint.attachments,
    regions: checkpoint.regions,
    timings: checkpoint.timings,
  };
}

/** Pages that differ from the checkpoint before: stored, or zero now. */
export function dirtyPages({ regions }: Checkpoint): number {
  return Object.values(regions).reduce((sum, { pages, zeroPages }) => sum + pages + zeroPages, 0);
}
