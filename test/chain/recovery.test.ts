import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { decodeManifest, type Manifest } from '../../lib/chain/manifest.js';
import { Kind, openRecord, packRecord, recordKey } from '../../lib/chain/record.js';
import type { Checkpoint } from '../../lib/index.js';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { SampleStore } from './sample-store.js';
import { code, type Entry, logEntries, withDatabase } from './support.js';

const changeLog = (store: SampleStore, body: (db: Parameters<Parameters<typeof withDatabase>[1]>[0]) => Promise<void>) =>
  withDatabase(join(store.path, 'log'), body);

/** The manifest of a checkpoint, with its entry. */
async function manifestOf(store: SampleStore, id: number): Promise<{ entry: Entry; manifest: Manifest; uuid: Uint8Array }> {
  for (const entry of await logEntries(store.path)) {
    if (entry.kind !== Kind.manifest) continue;
    const uuid = entry.value.slice(24, 40);
    const manifest = decodeManifest(openRecord(entry.value, Kind.manifest, entry.number, uuid), entry.number);
    if (manifest.id === id) return { entry, manifest, uuid };
  }
  throw new Error(`no manifest of ${id}`);
}

async function removeExtent(store: SampleStore, id: number): Promise<void> {
  const { manifest } = await manifestOf(store, id);
  await changeLog(store, (db) => db.del(recordKey(manifest.regions[0]!.extents.records[0]!, Kind.extent)));
}

async function removeManifest(store: SampleStore, id: number): Promise<void> {
  const { entry } = await manifestOf(store, id);
  await changeLog(store, (db) => db.del(entry.key));
}

const keysOf = (entries: Entry[]) => entries.map(({ number, kind }) => `${number}/${kind}`);
const ids = (checkpoints: Checkpoint[]) => checkpoints.map(({ id }) => id);

describe('chain: recovery', () => {
  for (const index of ['kept', 'deleted']) {
    const lose = (store: SampleStore) => {
      if (index === 'deleted') rmSync(join(store.path, 'index'), { recursive: true });
    };

    it(`cuts back orphans behind the last manifest (index ${index})`, async () => {
      await SampleStore.with(async (store) => {
        await store.take(['sync', 'relaxed', 'sync']);
        const before = await logEntries(store.path);
        const last = before.at(-1)!;
        const uuid = last.value.slice(24, 40);
        await changeLog(store, async (db) => {
          for (const [number, kind] of [[last.number + 3, Kind.extent] as const, [last.number + 4, Kind.table] as const])
            await db.put(recordKey(number, kind), packRecord(kind, number, uuid, new Uint8Array(2000)));
        });
        lose(store);
        await store.check([1, 2, 3], 3);
        assert.deepEqual(keysOf(await logEntries(store.path)), keysOf(before));
        await store.take(['sync']);
        await store.check([1, 2, 3, 4], 4);
      });
    });

    it(`cuts back relaxed checkpoints without their extents, and what builds on them (index ${index})`, async () => {
      await SampleStore.with(async (store) => {
        await store.take(['sync', 'relaxed']);
        await store.take(['relaxed'], { branch: 'other', back: 1 });
        await store.take(['relaxed', 'relaxed', 'relaxed'], { back: 2 });
        await removeExtent(store, 5);
        lose(store);
        await store.check([1, 2, 3, 4], 4);
        const left = await logEntries(store.path);
        for (const kind of [Kind.manifest, Kind.extent]) assert.equal(left.filter((entry) => entry.kind === kind).length, 4);
        await store.check([1, 2, 3, 4], 4);
        await store.take(['sync'], { back: 4 });
        await store.check([1, 2, 3, 4, 5], 5);
      });
    });

    it(`cuts back relaxed checkpoints without their parent (index ${index})`, async () => {
      await SampleStore.with(async (store) => {
        await store.take(['sync', 'relaxed', 'relaxed', 'relaxed']);
        await removeManifest(store, 3);
        lose(store);
        await store.check([1, 2], 2);
      });
    });

    it(`reports a synced checkpoint whose parent is missing, and deletes nothing (index ${index})`, async () => {
      await SampleStore.with(async (store) => {
        await store.take(['sync', 'sync', 'sync']);
        await removeManifest(store, 2);
        lose(store);
        const before = keysOf(await logEntries(store.path));
        for (let times = 0; times < 2; times++) {
          const opened = await CheckpointStore.open(store.path);
          assert.ok((await opened.verify()).problems.some((problem) => problem.code === 'TIDEMARK_CHAIN_BROKEN'));
          const snapshot = await opened.at(1);
          assert.deepEqual(await snapshot.read('heap', 0, 4096), store.contents.get(1)!.slice(0, 4096));
          await assert.rejects(opened.at(3), code('TIDEMARK_CHAIN_BROKEN'));
          await opened.close();
        }
        assert.deepEqual(keysOf(await logEntries(store.path)), before);
      });
    });

    it(`reports a synced checkpoint whose extent is missing, and deletes nothing (index ${index})`, async () => {
      await SampleStore.with(async (store) => {
        await store.take(['sync', 'sync', 'sync']);
        await removeExtent(store, 2);
        lose(store);
        const before = keysOf(await logEntries(store.path));
        const opened = await CheckpointStore.open(store.path);
        const { problems } = await opened.verify();
        assert.ok(problems.some((problem) => problem.code === 'TIDEMARK_CHAIN_BROKEN'));
        assert.ok(problems.some((problem) => problem.checkpoint === 2 && problem.region === 'heap' && problem.pages!.length > 0));
        await opened.close();
        assert.deepEqual(keysOf(await logEntries(store.path)), before);
      });
    });

    it(`reports a manifest that is damaged, and deletes nothing (index ${index})`, async () => {
      await SampleStore.with(async (store) => {
        await store.take(['sync', 'relaxed', 'relaxed']);
        const { entry } = await manifestOf(store, 2);
        entry.value[entry.value.length - 1]! ^= 0x40;
        await changeLog(store, (db) => db.put(entry.key, entry.value));
        lose(store);
        const before = keysOf(await logEntries(store.path));
        const opened = await CheckpointStore.open(store.path);
        assert.ok((await opened.verify()).problems.some((problem) => problem.code === 'TIDEMARK_DAMAGED'));
        await opened.close();
        const kept = keysOf(await logEntries(store.path));
        assert.ok(before.every((key) => kept.includes(key)));
      });
    });
  }

  it('refuses new checkpoints on a damaged log and keeps what it can read', async () => {
    await SampleStore.with(async (store) => {
      await store.take(['sync', 'sync', 'sync']);
      await removeManifest(store, 2);
      rmSync(join(store.path, 'index'), { recursive: true });
      await assert.rejects(Checkpointer.open(store.path, { regions: { heap: store.region } }), code('TIDEMARK_CHAIN_BROKEN'));
      const fresh = Region.allocate(store.region.byteLength);
      const opened = await Checkpointer.open(store.path, { regions: { heap: fresh }, branch: 'rescue' });
      await assert.rejects(opened.checkpoint(), code('TIDEMARK_CHAIN_BROKEN'));
      await opened.restore(1);
      assert.ok(Buffer.from(fresh.buffer).equals(store.contents.get(1)!));
      await opened.close();
      fresh.close();
    });
  });

  it('refuses a record of a kind it does not know and deletes nothing', async () => {
    await SampleStore.with(async (store) => {
      await store.take(['sync', 'relaxed']);
      const last = (await logEntries(store.path)).at(-1)!;
      const orphan = recordKey(last.number + 1, Kind.extent);
      for (const kind of [0, 5, 6, 255]) {
        const unknown = recordKey(last.number + 2, kind as Kind);
        await changeLog(store, (db) =>
          db.batch([
            { type: 'put', key: orphan, value: new Uint8Array(10) },
            { type: 'put', key: unknown, value: new Uint8Array(10) },
          ]),
        );
        const before = keysOf(await logEntries(store.path));
        for (const createIfMissing of [false, true])
          await assert.rejects(CheckpointStore.open(store.path, { createIfMissing }), code('TIDEMARK_STORE_FORMAT'));
        assert.deepEqual(keysOf(await logEntries(store.path)), before);
        await changeLog(store, (db) => db.del(unknown));
      }
      await store.check([1, 2], 2);
    });
  });

  it('says that the log is missing instead of making a new one', async () => {
    await SampleStore.with(async (store) => {
      await store.take(['sync']);
      rmSync(join(store.path, 'log'), { recursive: true });
      await assert.rejects(CheckpointStore.open(store.path, { createIfMissing: true }), code('TIDEMARK_DAMAGED'));
    });
  });

  it('never gives out a number or an id twice, whatever was cut back', async () => {
    await SampleStore.with(async (store) => {
      const [, , third] = await store.take(['sync', 'relaxed', 'relaxed']);
      const before = (await logEntries(store.path)).at(-1)!.number;
      await removeExtent(store, third!.id);
      const taken = await store.take(['sync'], { back: 2 });
      assert.notEqual(taken[0]!.uid, third!.uid);
      const after = (await logEntries(store.path)).filter(({ kind }) => kind === Kind.manifest).at(-1)!;
      assert.ok(after.number > before + 1000);
      await store.check([...new Set([1, 2, ...ids(taken)])], taken[0]!.id);
    });
  });
});
