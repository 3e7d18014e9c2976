import assert from 'node:assert/strict';
import { join } from 'node:path';
import { StoreHost } from '../../lib/chain/store-host.js';
import type { ListQuery } from '../../lib/engine/protocol.js';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { stamp } from '../support/kit.js';
import { PAGE, withFolder } from './support.js';

const DENSE = 3000;
const SIDE = 50;

/** A store on this thread that counts what is read of it: records of the log, headers one by one, pages of headers. */
class Counted {
  readonly host: StoreHost;
  records = 0;
  single = 0;
  pages = 0;
  /** In these pages. */
  headers = 0;

  constructor(host: StoreHost) {
    this.host = host;
    const { log, index } = host;
    const count = <T extends object>(target: T, method: keyof T, counted: () => void): void => {
      const original = (target[method] as (...args: unknown[]) => unknown).bind(target);
      Object.assign(target, {
        [method]: (...args: unknown[]) => {
          counted();
          return original(...args);
        },
      });
    };
    for (const method of ['record', 'records', 'keys'] as const) count(log, method, () => this.records++);
    count(index, 'byId', () => this.single++);
    const page = index.page.bind(index);
    index.page = async (options) => {
      this.pages++;
      const headers = await page(options);
      this.headers += headers.length;
      return headers;
    };
  }

  /** What a call reads, and what comes of it. */
  async of<T>(call: () => Promise<T>): Promise<{ result: T; records: number; single: number; pages: number; headers: number }> {
    this.records = this.single = this.pages = this.headers = 0;
    const result = await call();
    return { result, records: this.records, single: this.single, pages: this.pages, headers: this.headers };
  }

  /** Ids, as `checkpoints()` asks for them. */
  async list(options: Partial<ListQuery>): Promise<number[]> {
    const ids: number[] = [];
    let after: number | null | undefined;
    while (after !== null) {
      const { checkpoints, next }: Awaited<ReturnType<StoreHost['list']>> = await this.host.list({
        reverse: false,
        limit: 256,
        ...options,
        ...(after === undefined ? {} : { after }),
      });
      ids.push(...checkpoints.map(({ id }) => id));
      after = options.limit === undefined ? next : null;
    }
    return ids;
  }
}

/** `DENSE` checkpoints on main, then `SIDE` rounds of one on `side` and 20 on main. */
async function withChain(body: (counted: Counted) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const path = join(folder, 'store');
    const [region, other] = [Region.allocate(PAGE), Region.allocate(PAGE)];
    const store = await CheckpointStore.open(path, { createIfMissing: true });
    const main = await Checkpointer.open(store, { regions: { r: region }, durability: 'relaxed' });
    const side = await Checkpointer.open(store, { regions: { r: other }, branch: 'side', durability: 'relaxed' });
    const take = async (checkpointer: typeof main, memory: Region, count: number) => {
      const taken = [];
      for (let k = 0; k < count; k++) {
        stamp(memory, 0, k);
        taken.push(checkpointer.checkpoint());
      }
      await Promise.all(taken);
    };
    for (let k = 0; k < DENSE; k += 250) await take(main, region, 250);
    for (let k = 0; k < SIDE; k++) {
      await take(side, other, 1);
      await take(main, region, 20);
    }
    await store.close();
    const host = await StoreHost.open(
      path,
      false,
      () => false,
      () => {},
    );
    try {
      await body(new Counted(host));
    } finally {
      await host.close();
      region.close();
      other.close();
    }
  });
}

const ALL = DENSE + SIDE * 21;

describe('chain: looking through thousands of checkpoints', () => {
  it('reads the index only, and as few parts of it as will do', async () => {
    await withChain(async (counted) => {
      const { host } = counted;
      const pagesFor = (headers: number) => Math.ceil(headers / 256) + 1;

      const listed = await counted.of(() => counted.list({}));
      assert.deepEqual(
        listed.result,
        Array.from({ length: ALL }, (_, k) => k + 1),
      );
      assert.deepEqual([listed.records, listed.single], [0, 0], 'no manifest and no page table is read');
      assert.ok(listed.pages <= pagesFor(ALL), `${listed.pages} pages of headers`);

      const newest = await counted.of(() => counted.list({ reverse: true, limit: 3 }));
      assert.deepEqual(newest.result, [ALL, ALL - 1, ALL - 2]);
      assert.deepEqual([newest.records, newest.pages], [0, 1]);

      // What is passed over costs no look-up of its own, however few are wanted.
      const first = await counted.of(() => counted.list({ branch: 'side', limit: 1 }));
      assert.deepEqual(first.result, [DENSE + 1]);
      assert.equal(first.records, 0);
      assert.ok(first.pages <= pagesFor(DENSE), `${first.pages} pages of headers`);
      const none = await counted.of(() => counted.list({ since: Date.now() + 1e6, limit: 2 }));
      assert.deepEqual(none.result, []);
      assert.ok(none.pages <= pagesFor(ALL), `${none.pages} pages of headers`);
      const side = await counted.of(() => counted.list({ branch: 'side', reverse: true }));
      assert.equal(side.result.length, SIDE);
      assert.ok(side.pages <= pagesFor(ALL) + 1, `${side.pages} pages of headers`);

      // Dense: many headers at once.
      const from = ALL - 20 * 10;
      const mainIds = (await counted.list({ branch: 'main' })).filter((id) => id <= from);
      const walk = await counted.of(() => host.find({ id: from, back: mainIds.length - 1 }));
      assert.equal(walk.result?.checkpoint.id, 1);
      assert.equal(walk.records, 0);
      assert.ok(walk.pages + walk.single <= pagesFor(ALL) + 20, `${walk.pages} pages, ${walk.single} headers`);
      const middle = await counted.of(() => host.find({ name: 'main', back: 700 }));
      assert.equal(middle.result?.checkpoint.id, (await counted.list({ branch: 'main' })).at(-701));

      // Sparse: one by one, since most of what lies between belongs to another branch.
      const sparse = await counted.of(() => host.find({ name: 'side', back: SIDE - 1 }));
      assert.equal(sparse.result?.checkpoint.id, DENSE + 1);
      assert.ok(sparse.headers + sparse.single <= SIDE * 3, `${sparse.headers} headers in pages, ${sparse.single} others`);

      // Farther back than the chain is long: known without going there.
      for (const target of [
        { name: 'main', back: ALL },
        { name: 'side', back: SIDE },
        { id: 5, back: 5 },
      ]) {
        const far = await counted.of(() => host.find(target));
        assert.equal(far.result, undefined);
        assert.ok(far.pages + far.single <= 1, `${far.pages} pages, ${far.single} headers`);
      }
      const early = await counted.of(() => host.find({ name: 'main', until: 1 }));
      assert.equal(early.result, undefined);
      assert.ok(early.pages + early.single <= pagesFor(ALL) + 40, `${early.pages} pages, ${early.single} headers`);
    });
  });
});
