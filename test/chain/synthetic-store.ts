import assert from 'node:assert/strict';
import { StoreHost } from '../../lib/chain/store-host.js';
import type { Session } from '../../lib/checkpoint/session.js';
import { PAGE } from './support.js';

/** A store in this thread, with checkpoints without pages as fast as they can be written; what is read of the log can be counted. */
export class SyntheticStore {
  readonly host: StoreHost;
  /** Records read from the log. */
  reads = 0;
  /** Headers read from the index. */
  headers = 0;
  /** How often it was asked for some. */
  lookUps = 0;
  readonly #sessions = new Map<string, { session: Session; sequence: number }>();

  private constructor(host: StoreHost) {
    this.host = host;
    const { log, index } = host;
    const [record, page, byId] = [log.record.bind(log), index.page.bind(index), index.byId.bind(index)];
    log.record = (number, kind) => {
      this.reads++;
      return record(number, kind);
    };
    index.page = async (options) => {
      this.lookUps++;
      const found = await page(options);
      this.headers += found.length;
      return found;
    };
    index.byId = (id) => {
      this.lookUps++;
      this.headers++;
      return byId(id);
    };
  }

  static async with(path: string, body: (store: SyntheticStore) => Promise<void>): Promise<void> {
    const failures: unknown[] = [];
    const host = await StoreHost.open(
      path,
      true,
      () => false,
      (event) => {
        if (event.type === 'failed') failures.push(event.error);
      },
    );
    try {
      await body(new SyntheticStore(host));
      assert.deepEqual(failures, []);
    } finally {
      await host.close();
    }
  }

  /** A branch that goes on from a checkpoint, or begins. */
  async open(branch: string, from?: number): Promise<void> {
    const base = from === undefined ? null : (await this.host.headerOf(from)).checkpoint.uid;
    const { session } = await this.host.openSession(this.#sessions.size + 1, branch, base, ['r']);
    this.#sessions.set(branch, { session, sequence: 0 });
  }

  /** Captured now; committed when `settled` resolves. Ids are in the order of the calls where each is awaited, or on one branch. */
  take(branch: string, createdAt: number, label?: string): void {
    const entry = this.#sessions.get(branch)!;
    const none = new Uint32Array(0);
    this.host.committer.captureArrived({
      type: 'captured',
      session: entry.session.id,
      generation: entry.session.generation,
      sequence: ++entry.sequence,
      full: entry.session.base === undefined && entry.session.pendings.length === 0,
      sync: false,
      createdAt,
      capturedAt: 0,
      info: { captureMs: 0, ...(label === undefined ? {} : { label }) },
      regions: [{ name: 'r', slot: 0, byteLength: PAGE, length: PAGE, fresh: false, pages: none, segments: none, zeros: none }],
      attachments: [],
    });
  }

  settled(): Promise<void> {
    return this.host.committer.idle();
  }
}
