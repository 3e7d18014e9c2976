import assert from 'node:assert/strict';
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Checkpoint } from '../../lib/index.js';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { PAGE, withFolder } from './support.js';

const PAGES = 24;

/** A store of a few checkpoints and what each of them must read as. */
export class SampleStore {
  readonly path: string;
  readonly contents = new Map<number, Uint8Array>();
  readonly region = Region.allocate(PAGES * PAGE);
  readonly #bytes = new Uint8Array(this.region.buffer);
  #stamp = 0;

  constructor(path: string) {
    this.path = path;
  }

  /** Closed before `body` returns; the region too. */
  static async with(body: (store: SampleStore) => Promise<void>): Promise<void> {
    await withFolder(async (folder) => {
      const store = new SampleStore(join(folder, 'store'));
      try {
        await body(store);
      } finally {
        store.region.close();
      }
    });
  }

  /** Opens it, takes checkpoints with these durabilities (`back` restores first), and closes it. */
  async take(durabilities: ('sync' | 'relaxed')[], options: { branch?: string; back?: number } = {}): Promise<Checkpoint[]> {
    const { branch = 'main', back } = options;
    const checkpointer = await Checkpointer.open(this.path, { regions: { heap: this.region }, branch });
    try {
      if (back !== undefined) await checkpointer.restore(back);
      const taken: Checkpoint[] = [];
      for (const durability of durabilities) {
        const stamp = ++this.#stamp;
        // One page that changes always, one that is only this checkpoint's, one that becomes zero now and then.
        for (const page of [0, stamp % PAGES]) this.#bytes.fill(stamp, page * PAGE, (page + 1) * PAGE);
        if (stamp % 3 === 0) this.#bytes.fill(0, 5 * PAGE, 6 * PAGE);
        const checkpoint = await checkpointer.checkpoint({ durability, label: `label-${stamp}` });
        this.contents.set(checkpoint.id, this.#bytes.slice());
        taken.push(checkpoint);
      }
      return taken;
    } finally {
      await checkpointer.close();
    }
  }

  /** What the store says it has; read back and compared, with names and verify, when it is whole. */
  async check(expected: number[], head: number | undefined): Promise<void> {
    const store = await CheckpointStore.open(this.path);
    try {
      const listed: number[] = [];
      for await (const { id } of store.checkpoints()) listed.push(id);
      assert.deepEqual(listed, expected);
      assert.equal((await store.find('main'))?.id, head);
      for (const id of expected) {
        const snapshot = await store.at(id);
        const read = await snapshot.read('heap', 0, PAGES * PAGE);
        assert.ok(Buffer.from(read).equals(this.contents.get(id)!), `checkpoint ${id} reads as something else`);
        assert.equal((await store.find(snapshot.checkpoint.label!))?.id, id);
        assert.equal((await store.find(snapshot.checkpoint.uid))?.id, id);
        await snapshot.close();
      }
      assert.deepEqual((await store.verify()).problems, []);
    } finally {
      await store.close();
    }
  }

  save(what: 'log' | 'index'): void {
    cpSync(join(this.path, what), `${this.path}-saved-${what}`, { recursive: true });
  }

  putBack(what: 'log' | 'index'): void {
    rmSync(join(this.path, what), { recursive: true });
    cpSync(`${this.path}-saved-${what}`, join(this.path, what), { recursive: true });
  }
}
