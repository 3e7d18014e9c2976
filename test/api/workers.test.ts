import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { Checkpointer, CheckpointStore, Region } from '../../lib/index.js';
import { storeFolders } from '../support/folders.js';
import { assertSame, outcome, PAGE, range, stamp, stored } from '../support/kit.js';

const PAGES = 1024;
const KINDS = ['checkpoint', 'precopy', 'restore'] as const;

interface Job {
  kit: string;
  path: string;
  /** Endless, but for `rounds`. */
  kind: (typeof KINDS)[number];
  rounds?: number;
}

/** Steps: the memory is stamped with the number of the step, which is its metadata too; each is told of when it is acknowledged. */
const PROGRAM = `
  const { parentPort, workerData: job } = require('node:worker_threads');
  import(job.kit).then(async ({ Checkpointer, Region, PAGE, stamp, range }) => {
    const region = Region.allocate(${PAGES} * PAGE);
    const c = await Checkpointer.open(job.path, { regions: { r: region } });
    if (c.head !== undefined) await c.restore();
    const first = (c.head?.metadata ?? 0) + 1;
    for (let step = first; step < first + (job.rounds ?? Infinity); step++) {
      stamp(region, range(0, ${PAGES}), step);
      if (job.kind === 'precopy') await c.precopy();
      if (job.kind === 'restore' && c.head !== undefined) {
        await c.restore();
        stamp(region, range(0, ${PAGES}), step);
      }
      await c.checkpoint({ metadata: step });
      parentPort.postMessage(step);
    }
    await c.close();
  });
`;

function start(job: Omit<Job, 'kit'>): Worker {
  const kit = new URL('../support/kit.js', import.meta.url).href;
  return new Worker(PROGRAM, { eval: true, workerData: { ...job, kit } satisfies Job });
}

/** The newest checkpoint is sound, and holds all of the step that it says. */
async function assertStep(path: string): Promise<number> {
  const store = await CheckpointStore.open(path);
  const step = (await store.find('main'))!.metadata as number;
  const expected = new Uint8Array(PAGES * PAGE);
  stamp(expected, range(0, PAGES), step);
  assertSame(await stored(store, 'main'), expected);
  assert.deepEqual((await store.verify()).problems, []);
  await store.close();
  return step;
}

describe('api: worker threads', () => {
  const folder = storeFolders();

  it('each has a store and an engine of its own, beside those of this thread', async () => {
    const paths = [folder(), folder()];
    const ended = paths.map((path) => once(start({ path, kind: 'precopy', rounds: 4 }), 'exit'));
    const region = Region.allocate(PAGE);
    const checkpointer = await Checkpointer.open<string>(folder(), { regions: { region } });
    for (let k = 1; k <= 4; k++) {
      stamp(region, 0, k);
      assert.equal((await checkpointer.checkpoint()).id, k);
    }
    await checkpointer.close();
    region.close();
    assert.deepEqual(await Promise.all(ended), [[0], [0]]);
    for (const path of paths) assert.equal(await assertStep(path), 4);
  });

  it('a store that a worker has is open to nobody else', async () => {
    const path = folder();
    const worker = start({ path, kind: 'checkpoint' });
    await once(worker, 'message');
    assert.equal(await outcome(CheckpointStore.open(path)), 'TIDEMARK_STORE_LOCKED');
    await worker.terminate();
    await assertStep(path);
  });

  for (const kind of KINDS) {
    it(`one that is terminated in the middle of a ${kind} leaves a store that can be opened at once, with all that was acknowledged`, async () => {
      const path = folder();
      for (let attempt = 0; attempt < 6; attempt++) {
        const worker = start({ path, kind });
        let acknowledged = 0;
        worker.on('message', (step: number) => {
          acknowledged = step;
        });
        await once(worker, 'message');
        // Somewhere in the next step.
        await new Promise((resolve) => setTimeout(resolve, attempt * 4));
        await worker.terminate();
        const step = await assertStep(path);
        assert.ok(step === acknowledged || step === acknowledged + 1, `step ${step} after ${acknowledged}`);
      }
    });
  }
});
