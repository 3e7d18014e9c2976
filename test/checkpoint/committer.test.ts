import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { IndexCache } from '../../lib/chain/index-cache.js';
import { Log } from '../../lib/chain/log.js';
import { Kind, recordKey } from '../../lib/chain/record.js';
import { recover } from '../../lib/chain/recovery.js';
import { Committer } from '../../lib/checkpoint/committer.js';
import { Session } from '../../lib/checkpoint/session.js';
import type { StorageEvent } from '../../lib/engine/protocol.js';
import { storeFolders } from '../support/folders.js';
import { outcome, PAGE } from '../support/kit.js';

const FAILED = 'TIDEMARK_WRITE_FAILED';

/** A committer on a log and an index of its own, in this thread: what it needs can be made to fail at will. Checkpoints have no pages. */
class Bench {
  readonly log: Log;
  readonly index: IndexCache;
  readonly committer: Committer;
  readonly events: string[] = [];
  readonly sessions = new Map<string, Session>();
  readonly #sequence = new Map<string, number>();

  private constructor(log: Log, index: IndexCache) {
    this.log = log;
    this.index = index;
    this.committer = new Committer(
      log,
      index,
      [],
      (event) => this.#note(event),
      () => false,
    );
  }

  static async open(path: string, fresh: boolean): Promise<Bench> {
    mkdirSync(path, { recursive: true });
    const log = await Log.open(path, new Uint8Array(16).fill(7), fresh);
    const index = await IndexCache.open(path);
    assert.deepEqual(await recover(log, index), []);
    return new Bench(log, index);
  }

  async close(): Promise<void> {
    await this.committer.close();
    await this.index.close();
    await this.log.close();
  }

  open(branch: string): void {
    const session = new Session(this.sessions.size + 1, branch);
    this.committer.inFlight.add(session);
    this.sessions.set(branch, session);
  }

  #note(event: StorageEvent): void {
    const branch = [...this.sessions.values()].find(({ id }) => 'session' in event && id === event.session)?.branch;
    if (event.type === 'committed') this.events.push(`${branch} committed ${event.checkpoint.id}`);
    if (event.type === 'failed')
      this.events.push(`${branch} failed ${event.error.code} ${event.hasBase ? 'incremental' : 'full'} next`);
  }

  /** As the caller's half does it; what becomes of it is in `events`. */
  capture(branch: string, options: { sync?: boolean; label?: string } = {}): void {
    const session = this.sessions.get(branch)!;
    const sequence = (this.#sequence.get(branch) ?? 0) + 1;
    this.#sequence.set(branch, sequence);
    const none = new Uint32Array(0);
    this.committer.captureArrived({
      type: 'captured',
      session: session.id,
      generation: session.generation,
      sequence,
      full: session.base === undefined && session.pendings.length === 0,
      sync: options.sync ?? true,
      createdAt: 1,
      capturedAt: 0,
      info: { captureMs: 0, ...(options.label === undefined ? {} : { label: options.label }) },
      regions: [{ name: 'r', slot: 0, byteLength: PAGE, length: PAGE, fresh: false, pages: none, segments: none, zeros: none }],
      attachments: [],
    });
  }

  label(name: string, id: number): Promise<string> {
    return outcome(
      (async () => {
        const header = await this.committer.read((index) => index.byId(id));
        assert.ok(header);
        const { uid } = header.checkpoint;
        await this.committer.name({ type: 'label', name, id, uid, createdAt: 1 }, true);
      })(),
    );
  }
}

/** Of the calls from now on those after the first `skip` reject, `times` of them; how many have. */
function failing(log: Log, method: 'write' | 'has' | 'reopen', skip: number, times: number): () => number {
  const target = log as unknown as Record<string, (...args: unknown[]) => Promise<unknown>>;
  const own = target[method]!.bind(log);
  let calls = 0;
  let failed = 0;
  target[method] = (...args) => {
    if (calls++ < skip || failed === times) return own(...args);
    failed++;
    return Promise.reject(Object.assign(new Error(`${method} was made to fail`), { code: 'EIO' }));
  };
  return () => failed;
}

describe('the committer after a rejected write', () => {
  const folder = storeFolders();

  // The first look is of recovery, those behind it are for what the memory of each checkpointer descends from.
  for (const [skip, times] of [
    [0, 1],
    [1, 1],
    [2, 1],
    [1, 2],
    [0, 5],
  ] as const) {
    it(`settles everything when what it builds on cannot be looked for (${times} times, after ${skip})`, async () => {
      const path = folder();
      const bench = await Bench.open(path, true);
      for (const branch of ['main', 'other']) bench.open(branch);
      bench.capture('main');
      bench.capture('other');
      await bench.committer.idle();
      assert.deepEqual(bench.events.splice(0), ['main committed 1', 'other committed 2']);
      failing(bench.log, 'write', 0, 1);
      const failed = failing(bench.log, 'has', skip, times);
      bench.capture('main');
      bench.capture('main');
      bench.capture('other');
      // Was captured before the failure was known, or after: each is told once.
      await bench.committer.idle();
      assert.deepEqual(
        new Set(bench.events.splice(0)),
        new Set([`main failed ${FAILED} incremental next`, `other failed ${FAILED} incremental next`]),
      );
      let label = FAILED;
      for (let k = 0; k < times + 1 && label !== 'ok'; k++) label = await bench.label('later', 1);
      assert.equal(label, 'ok');
      assert.equal(failed(), times);
      for (const branch of ['main', 'other']) bench.capture(branch);
      await bench.committer.idle();
      assert.deepEqual(bench.events.splice(0), ['main committed 3', 'other committed 4']);
      await bench.close();
      const again = await Bench.open(path, false);
      assert.deepEqual(
        [again.index.names.get('main')?.id, again.index.names.get('other')?.id, again.index.names.get('later')?.id],
        [3, 4, 1],
      );
      await again.close();
    });
  }

  it('tells nobody that it was written when that cannot be found out, and deletes it', async () => {
    const path = folder();
    const bench = await Bench.open(path, true);
    bench.open('main');
    bench.capture('main');
    await bench.committer.idle();
    bench.events.splice(0);
    // Written, but rejected, and nothing can be read back.
    const { uid } = (await bench.index.byId(1))!.checkpoint;
    const write = bench.log.write.bind(bench.log);
    let writes = 0;
    bench.log.write = async (operations, durable) => {
      const nth = ++writes;
      await write(operations, durable);
      if (nth === 2) throw Object.assign(new Error('rejected'), { code: 'EIO' });
    };
    failing(bench.log, 'reopen', 0, 1);
    const first = bench.label('first', 1);
    // Both wait for the batch after that.
    while (writes === 0) await new Promise((resolve) => setImmediate(resolve));
    bench.capture('main', { label: 'never' });
    const label = bench.committer.name({ type: 'label', name: 'nor-this', id: 1, uid, createdAt: 1 }, false);
    assert.deepEqual([await first, await outcome(label)], ['ok', FAILED]);
    await bench.committer.idle();
    assert.deepEqual(bench.events.splice(0), [`main failed ${FAILED} incremental next`]);
    assert.equal(writes, 2);
    await bench.close();
    const again = await Bench.open(path, false);
    assert.deepEqual(
      new Map([...again.index.names].map(([name, { id }]) => [name, id])),
      new Map([
        ['main', 1],
        ['first', 1],
      ]),
    );
    await again.close();
  });

  it('names nothing that the log has lost meanwhile', async () => {
    const path = folder();
    const bench = await Bench.open(path, true);
    bench.open('main');
    bench.capture('main');
    await bench.committer.idle();
    bench.capture('main', { sync: false });
    await bench.committer.idle();
    const lost = (await bench.index.byId(2))!;
    // What a failed sync does: the kernel drops a relaxed checkpoint, and LevelDB comes up without it.
    const reopen = bench.log.reopen.bind(bench.log);
    bench.log.reopen = async () => {
      await reopen();
      bench.log.reopen = reopen;
      await write([{ type: 'del', key: recordKey(lost.manifest, Kind.manifest) }], true);
    };
    const write = bench.log.write.bind(bench.log);
    failing(bench.log, 'write', 0, 1);
    bench.capture('main', { sync: false });
    // Waits behind the batch that fails.
    const label = bench.label('late', 2);
    assert.equal(await label, 'TIDEMARK_NOT_FOUND');
    await bench.committer.idle();
    assert.deepEqual(bench.events.at(-1), `main failed ${FAILED} full next`);
    bench.capture('main');
    await bench.committer.idle();
    assert.equal(bench.events.at(-1), 'main committed 2');
    assert.equal(bench.index.names.get('late'), undefined);
    await bench.close();
  });
});
