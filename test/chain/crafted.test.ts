import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { decodeManifest, encodeManifest, type RegionChange } from '../../lib/chain/manifest.js';
import { Kind, openRecord, packRecord } from '../../lib/chain/record.js';
import { StoredExtents } from '../../lib/chain/stored-extents.js';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { bytesOf, range, stamp, withCheckpointer } from '../support/kit.js';
import { code, logEntries, PAGE, withDatabase, withFolder } from './support.js';

const PAGES = 300;
const REFUSED = code('TIDEMARK_DAMAGED', 'TIDEMARK_CHAIN_BROKEN');

/** Changes what the manifest of a checkpoint says of its region; every checksum is right, and the sum over the versions stays. */
async function rewrite(path: string, id: number, change: (region: RegionChange) => void): Promise<void> {
  const manifests = (await logEntries(path)).filter(({ kind }) => kind === Kind.manifest);
  const { key, value, number } = manifests[id - 1]!;
  const store = value.slice(24, 40);
  const manifest = decodeManifest(openRecord(value, Kind.manifest, number, store), number);
  change(manifest.regions[0]!);
  await withDatabase(join(path, 'log'), (db) => db.put(key, packRecord(Kind.manifest, number, store, encodeManifest(manifest))));
  rmSync(join(path, 'index'), { recursive: true });
}

/** A store of a checkpoint and one of deltas on it, whose `id` is changed: reading it is refused, and verify() says what is wrong. */
async function assertRefused(id: number, change: (region: RegionChange) => void): Promise<void> {
  await withFolder(async (folder) => {
    const path = join(folder, 'store');
    const region = Region.allocate(PAGES * PAGE);
    await withCheckpointer(path, { regions: { r: region } }, async (c) => {
      stamp(region, range(0, PAGES), 1);
      await c.checkpoint();
      for (let page = 0; page < PAGES; page++) bytesOf(region)[page * PAGE]! ^= 1;
      await c.checkpoint();
    });
    region.close();
    await rewrite(path, id, change);
    const store = await CheckpointStore.open(path);
    const { problems } = await store.verify();
    assert.ok(problems.length > 0);
    const snapshot = await store.at(2).catch(REFUSED);
    if (typeof snapshot === 'object') {
      await assert.rejects(snapshot.read('r', 0, PAGES * PAGE), REFUSED);
      await snapshot.close();
    }
    const fresh = Region.allocate(PAGES * PAGE);
    const c = await Checkpointer.open(store, { regions: { r: fresh }, branch: 'other' });
    await assert.rejects(c.restore(2), REFUSED);
    await c.close();
    fresh.close();
    await store.close();
  });
}

/** Each page in an extent of its own, all of which are the first slot of one record. */
function inOneSlot(extents: StoredExtents): StoredExtents {
  const slots = Uint8Array.of(0);
  const record = extents.records[0]!;
  return StoredExtents.of(
    [...extents].flatMap(({ pages, crcs }) =>
      Array.from(pages, (page, k) => ({ record, count: 1, slots, pages: Uint32Array.of(page), crcs: crcs.slice(k, k + 1) })),
    ),
  );
}

const NOTHING = StoredExtents.of([]);

function repeated(extents: StoredExtents, times: number): StoredExtents {
  return StoredExtents.of(Array.from({ length: times }, () => [...extents]).flat());
}

describe('chain: manifests that say what cannot be', () => {
  it('more full pages in an extent than there are slots', () =>
    assertRefused(1, (region) => {
      region.extents = inOneSlot(region.extents);
    }));

  it('more deltas in an extent than there are slots', () =>
    assertRefused(2, (region) => {
      region.deltas = inOneSlot(region.deltas);
    }));

  it('deltas as full pages', () =>
    assertRefused(2, (region) => {
      region.extents = region.deltas;
      region.deltas = NOTHING;
    }));

  it('full pages as deltas, on nothing', () =>
    assertRefused(1, (region) => {
      region.deltas = region.extents;
      region.extents = NOTHING;
    }));

  it('the same deltas twice, so that they cancel', () =>
    assertRefused(2, (region) => {
      region.deltas = repeated(region.deltas, 2);
    }));

  it('more deltas on a page than anybody writes', () =>
    assertRefused(2, (region) => {
      region.deltas = repeated(region.deltas, 70);
    }));
});
