import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { decodeManifest } from '../../lib/chain/manifest.js';
import { Kind, openRecord, recordKey } from '../../lib/chain/record.js';
import { CheckpointStore } from '../../lib/index.js';
import { SampleStore } from './sample-store.js';
import { code, type Entry, logEntries, withDatabase } from './support.js';

const changeLog = (store: SampleStore, body: Parameters<typeof withDatabase<void>>[1]) =>
  withDatabase(join(store.path, 'log'), body);
const keysOf = (entries: Entry[]) => entries.map(({ number, kind }) => `${number}/${kind}`);
const refs = async (store: SampleStore) => (await logEntries(store.path)).filter(({ kind }) => kind === Kind.ref);

async function withStore<T>(store: SampleStore, body: (opened: CheckpointStore) => Promise<T>): Promise<T> {
  const opened = await CheckpointStore.open(store.path);
  try {
    return await body(opened);
  } finally {
    await opened.close();
  }
}

/** Every open says that something is lost or damaged, what is there can be read, nothing is added, nothing in the log goes. */
async function assertDamaged(store: SampleStore, ...codes: string[]): Promise<void> {
  const before = keysOf(await logEntries(store.path));
  for (let times = 0; times < 3; times++) {
    await withStore(store, async (opened) => {
      const { problems } = await opened.verify();
      assert.ok(
        problems.some((problem) => codes.includes(problem.code)),
        `open ${times}: ${JSON.stringify(problems)}`,
      );
      await assert.rejects(opened.label('more', 1), code(...codes));
      await assert.rejects(opened.fork(1, 'more'), code(...codes));
      const snapshot = await opened.at(1);
      assert.deepEqual(await snapshot.read('heap', 0, 4096), store.contents.get(1)!.slice(0, 4096));
    });
  }
  assert.deepEqual(keysOf(await logEntries(store.path)), before);
}

describe('chain: recovery of names', () => {
  it('a ref that was durable and is not in the log is damage', async () => {
    for (const then of ['nothing', 'a checkpoint', 'another ref'] as const) {
      await SampleStore.with(async (store) => {
        await store.take(['sync', 'sync']);
        await withStore(store, (opened) => opened.label('lost', 1));
        const [lost] = await refs(store);
        if (then === 'a checkpoint') await store.take(['sync'], { back: 2 });
        if (then === 'another ref') await withStore(store, (opened) => opened.fork(2, 'side'));
        await changeLog(store, (db) => db.del(lost!.key));
        if (then !== 'a checkpoint') {
          await assertDamaged(store, 'TIDEMARK_CHAIN_BROKEN');
          return;
        }
        // Recovery begins behind it: the store goes on, the index still has the name, and verify() knows what it would cost to lose it.
        await withStore(store, async (opened) => {
          assert.deepEqual(
            (await opened.verify()).problems.map((problem) => problem.code),
            ['TIDEMARK_CHAIN_BROKEN'],
          );
          assert.equal((await opened.find('lost'))?.id, 1);
          await opened.label('more', 1);
        });
      });
    }
  });

  it('a ref that is damaged is reported, and nothing is deleted', async () => {
    for (const index of ['kept', 'deleted']) {
      await SampleStore.with(async (store) => {
        await store.take(['sync', 'relaxed']);
        await withStore(store, (opened) => opened.label('hurt', 1));
        const [ref] = await refs(store);
        ref!.value[ref!.value.length - 1]! ^= 1;
        await changeLog(store, (db) => db.put(ref!.key, ref!.value));
        if (index === 'deleted') rmSync(join(store.path, 'index'), { recursive: true });
        await assertDamaged(store, 'TIDEMARK_DAMAGED');
        await withStore(store, async (opened) => assert.equal((await opened.find('hurt'))?.id, index === 'kept' ? 1 : undefined));
      });
    }
  });

  it('what the index has behind what the log has is made anew, where it was not known to be durable', async () => {
    await SampleStore.with(async (store) => {
      await store.take(['sync']);
      await withStore(store, (opened) => opened.label('kept', 1));
      store.save('log');
      const taken = await store.take(['relaxed']);
      store.putBack('log');
      assert.equal(taken[0]!.label, 'label-2');
      await withStore(store, async (opened) => {
        assert.deepEqual([(await opened.find('main'))?.id, (await opened.find('kept'))?.id], [1, 1]);
        assert.equal(await opened.find('label-2'), undefined);
        assert.deepEqual((await opened.verify()).problems, []);
        // Its id is free, and the name, too.
        await opened.label('label-2', 1);
      });
      await withStore(store, async (opened) => assert.equal((await opened.find('label-2'))?.id, 1));
    });
  });

  for (const index of ['kept', 'deleted']) {
    it(`a relaxed checkpoint before a ref is not cut back but damage (index ${index})`, async () => {
      await SampleStore.with(async (store) => {
        await store.take(['sync']);
        store.save('index');
        await store.take(['relaxed', 'relaxed']);
        await withStore(store, (opened) => opened.label('behind', 1));
        const manifest = (await logEntries(store.path)).filter(({ kind }) => kind === Kind.manifest).at(-1)!;
        const payload = openRecord(manifest.value, Kind.manifest, manifest.number, manifest.value.slice(24, 40));
        const { extents } = decodeManifest(payload, manifest.number).regions[0]!;
        await changeLog(store, (db) => db.del(recordKey(extents.records[0]!, Kind.extent)));
        // That of before: it does not know what was durable later.
        store.putBack('index');
        if (index === 'deleted') rmSync(join(store.path, 'index'), { recursive: true });
        await assertDamaged(store, 'TIDEMARK_CHAIN_BROKEN');
      });
    });

    it(`the same behind a ref is cut back, and names stay (index ${index})`, async () => {
      await SampleStore.with(async (store) => {
        await store.take(['sync']);
        await withStore(store, (opened) => opened.label('early', 1));
        store.save('index');
        await store.take(['relaxed', 'relaxed']);
        const manifest = (await logEntries(store.path)).filter(({ kind }) => kind === Kind.manifest).at(-1)!;
        const payload = openRecord(manifest.value, Kind.manifest, manifest.number, manifest.value.slice(24, 40));
        const { extents } = decodeManifest(payload, manifest.number).regions[0]!;
        await changeLog(store, (db) => db.del(recordKey(extents.records[0]!, Kind.extent)));
        store.putBack('index');
        if (index === 'deleted') rmSync(join(store.path, 'index'), { recursive: true });
        await withStore(store, async (opened) => {
          const names = ['main', 'early', 'label-2', 'label-3'];
          assert.deepEqual(await Promise.all(names.map(async (name) => (await opened.find(name))?.id)), [2, 1, 2, undefined]);
          assert.deepEqual((await opened.verify()).problems, []);
        });
      });
    });
  }
});
