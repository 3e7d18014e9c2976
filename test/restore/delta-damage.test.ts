import assert from 'node:assert/strict';
import { join } from 'node:path';
import { ExtentReader } from '../../lib/chain/extent.js';
import { Kind, openRecord, RECORD_HEADER, recordKey, writeHeader } from '../../lib/chain/record.js';
import { type Checkpointer, CheckpointStore, Region, type TidemarkError } from '../../lib/index.js';
import { addon } from '../../lib/kernel/addon.js';
import { withDatabase } from '../chain/support.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, bytesOf, copyOf, edit, PAGE, range, stamp, withCheckpointer } from '../support/kit.js';
import { damageExtent, logRecords } from '../support/log-files.js';

const PAGES = 16;

/** 1: pages 0 to 7. 2: 2, 3, 4 as deltas. 3: 3 as a delta. 4: 3 full, 5 as a delta. */
async function makeStore(path: string): Promise<{ region: Region; models: Uint8Array[] }> {
  const region = Region.allocate(PAGES * PAGE);
  const models: Uint8Array[] = [];
  await withCheckpointer(path, { regions: { r: region } }, async (c) => {
    const take = async (deltaPages: number): Promise<void> => {
      assert.equal((await c.checkpoint()).regions.r!.deltaPages, deltaPages);
      models.push(copyOf(region));
    };
    stamp(region, range(0, 8), 1);
    await take(0);
    edit(region, [2, 3, 4], 2);
    await take(3);
    edit(region, 3, 3);
    await take(1);
    stamp(region, 3, 4);
    edit(region, 5, 4);
    await take(1);
  });
  return { region, models };
}

/** The extents, in the order of the log: of checkpoint 1, 2, 3, then the full one and the one of deltas of 4. */
const EXTENTS = { base: 0, deltas: 1, newest: 4 };

async function withExtent(
  path: string,
  nth: number,
  change: (record: Uint8Array, number: number) => Uint8Array | undefined,
): Promise<void> {
  const { number, value } = (await logRecords(path)).filter(({ kind }) => kind === Kind.extent)[nth]!;
  const changed = change(value, number);
  const key = recordKey(number, Kind.extent);
  await withDatabase(join(path, 'log'), (db) => (changed === undefined ? db.del(key) : db.put(key, changed)));
}

/** Changes a byte of what a slot holds. All checksums of the record are right: only that of the page is not. */
function changeSlot(slot: number): (record: Uint8Array, number: number) => Uint8Array {
  return (record, number) => {
    const store = record.slice(24, 40);
    const reader = new ExtentReader(openRecord(record, Kind.extent, number, store), number);
    const pages = range(0, reader.count).map((k) => Buffer.from(reader.page(k)));
    pages[slot]![1000]! ^= 4;
    // One frame, stored as it is.
    const directory = Buffer.alloc(12);
    directory.writeUInt8(reader.kind, 0);
    directory.writeUInt8(64, 1);
    directory.writeUInt16LE(pages.length, 2);
    directory.writeUInt32LE(1, 4);
    directory.writeUInt32LE((0x8000_0000 | (pages.length * PAGE)) >>> 0, 8);
    const payload = Buffer.concat([directory, ...pages]);
    const made = new Uint8Array(RECORD_HEADER + payload.length);
    made.set(payload, RECORD_HEADER);
    const { length } = payload;
    writeHeader(made, Kind.extent, number, store, { length, rawLength: length, crc: addon().crc32c(payload), codec: 0 });
    return made;
  };
}

interface Damage {
  what: string;
  code: string;
  make(path: string): Promise<void>;
  /** Pages that cannot be had any more, of checkpoint 1, 2, 3, 4. */
  lost: number[][];
}

const all = range(0, 8);
const without3 = all.filter((page) => page !== 3);
const DAMAGES: Damage[] = [
  {
    what: 'a bit of an extent of deltas has changed',
    code: 'TIDEMARK_DAMAGED',
    make: (path) => damageExtent(path, EXTENTS.deltas),
    lost: [[], [2, 3, 4], [2, 3, 4], [2, 4]],
  },
  {
    what: 'a bit of what deltas build on has changed',
    code: 'TIDEMARK_DAMAGED',
    make: (path) => damageExtent(path, EXTENTS.base),
    lost: [all, all, all, without3],
  },
  {
    what: 'a bit of the newest extent of deltas has changed',
    code: 'TIDEMARK_DAMAGED',
    make: (path) => damageExtent(path, EXTENTS.newest),
    lost: [[], [], [], [5]],
  },
  {
    what: 'a delta is another one, with all checksums of its record right',
    code: 'TIDEMARK_DAMAGED',
    make: (path) => withExtent(path, EXTENTS.deltas, changeSlot(1)),
    lost: [[], [3], [3], []],
  },
  {
    what: 'a page that deltas build on is another one, with all checksums of its record right',
    code: 'TIDEMARK_DAMAGED',
    make: (path) => withExtent(path, EXTENTS.base, changeSlot(4)),
    lost: [[4], [4], [4], [4]],
  },
  {
    what: 'an extent of deltas is missing',
    code: 'TIDEMARK_CHAIN_BROKEN',
    make: (path) => withExtent(path, EXTENTS.deltas, () => undefined),
    lost: [[], [2, 3, 4], [2, 3, 4], [2, 4]],
  },
  {
    what: 'there are full pages where there should be deltas',
    code: 'TIDEMARK_CHAIN_BROKEN',
    make: (path) =>
      withExtent(path, EXTENTS.deltas, (record, number) => {
        const made = changeSlot(0)(record, number);
        made[RECORD_HEADER] = 0;
        const payload = made.subarray(RECORD_HEADER);
        const { length } = payload;
        writeHeader(made, Kind.extent, number, made.slice(24, 40), {
          length,
          rawLength: length,
          crc: addon().crc32c(payload),
          codec: 0,
        });
        return made;
      }),
    lost: [[], [2, 3, 4], [2, 3, 4], [2, 4]],
  },
];

/** The pages that an error names. */
function pagesIn(error: TidemarkError): number[] {
  const list = /region r, pages ([\d, -]+)/.exec(error.message)?.[1];
  assert.ok(list !== undefined, `no pages in: ${error.message}`);
  return list.split(', ').flatMap((run) => {
    const [first, last = first] = run.split('-').map(Number) as [number, number?];
    return range(first, last! - first + 1);
  });
}

async function failure(promise: Promise<unknown>): Promise<TidemarkError | undefined> {
  return promise.then(
    () => undefined,
    (error) => error as TidemarkError,
  );
}

/** It failed for pages that are lost, and says so; or nothing is lost. */
function assertFailed(error: TidemarkError | undefined, code: string, lost: number[], what: string): void {
  if (lost.length === 0) {
    assert.equal(error, undefined, what);
    return;
  }
  assert.equal(error?.code, code, `${what}: ${error?.message}`);
  assert.ok(
    pagesIn(error!).some((page) => lost.includes(page)),
    `${what}: ${error!.message}`,
  );
}

describe('a store with deltas, where', () => {
  const folder = storeFolders();

  for (const { what, code, make, lost } of DAMAGES) {
    it(`${what}, an error names the pages, and no other bytes come back`, async () => {
      const path = folder();
      const { region, models } = await makeStore(path);
      await make(path);
      const store = await CheckpointStore.open(path);
      for (const [k, model] of models.entries()) {
        const snapshot = await store.at(k + 1);
        for (const page of range(0, PAGES)) {
          const error = await failure(
            snapshot
              .read('r', page * PAGE, PAGE)
              .then((bytes) => assertSame(bytes, model.subarray(page * PAGE, (page + 1) * PAGE))),
          );
          assertFailed(
            error,
            code,
            lost[k]!.filter((one) => one === page),
            `page ${page} of ${k + 1}`,
          );
        }
        assertFailed(await failure(snapshot.read('r', 0, PAGES * PAGE)), code, lost[k]!, `all of ${k + 1}`);
        await snapshot.close();
      }
      const { problems } = await store.verify({ readData: true });
      // It looks at extents first, each by itself.
      for (const problem of problems) assert.ok([code, 'TIDEMARK_DAMAGED'].includes(problem.code), problem.message);
      // It names a page with the checkpoint whose version cannot be had: the first one, and those that have deltas on it.
      for (const [k, pages] of lost.entries()) {
        const named = problems
          .filter(({ checkpoint }) => checkpoint === k + 1)
          .flatMap(({ pages: runs = [] }) => runsToPages(runs));
        const before = lost[k - 1] ?? [];
        for (const page of pages)
          if (!before.includes(page)) assert.ok(named.includes(page), `page ${page} of ${k + 1} is not in the report`);
        assert.ok(pages.length > 0 || named.length === 0, `${named} of ${k + 1} are in the report`);
      }
      await restoreFresh(store, code, models, lost);
      await restoreInPlace(store, region, code, models, lost);
      await store.close();
    });
  }
});

const runsToPages = (runs: number[]): number[] => runs.flatMap((first, k) => (k % 2 === 0 ? range(first, runs[k + 1]!) : []));

async function restoreFresh(store: CheckpointStore, code: string, models: Uint8Array[], lost: number[][]): Promise<void> {
  for (const [k, model] of models.entries()) {
    for (const filled of [false, true]) {
      const fresh = Region.allocate(PAGES * PAGE);
      if (filled) stamp(fresh, range(3, 10), 9);
      const before = copyOf(fresh);
      await withCheckpointer(store, { regions: { r: fresh } }, async (c) => {
        assertFailed(await failure(c.restore(k + 1)), code, lost[k]!, `restore of ${k + 1}`);
      });
      assertSame(fresh, lost[k]!.length === 0 ? model : before);
      fresh.close();
    }
  }
}

/** What is in memory may be all that is needed; what comes back is right, or nothing is touched. */
async function restoreInPlace(
  store: CheckpointStore,
  region: Region,
  code: string,
  models: Uint8Array[],
  lost: number[][],
): Promise<void> {
  await withCheckpointer(store, { regions: { r: region } }, async (c: Checkpointer<'r'>) => {
    let base = 4;
    assert.equal(c.base?.id, base);
    for (const [k, target] of [3, 4, 2, 4, 1, 2, 3, 4, 4].entries()) {
      // Once with something written before.
      if (k % 4 === 3) edit(region, [2, 4, 12], k);
      const before = copyOf(region);
      const error = await failure(c.restore(target));
      if (error === undefined) {
        base = target;
        assertSame(region, models[target - 1]!, `${target} in place`);
      } else {
        assertFailed(error, code, lost[target - 1]!, `${target} in place`);
        assert.ok(lost[target - 1]!.length > 0);
        assertSame(region, before, `after ${target} in place failed`);
        bytesOf(region).set(models[base - 1]!);
      }
    }
  });
}
