import assert from 'node:assert/strict';
import { addon, PAGE_SIZE } from '../../lib/kernel/addon.js';
import { encode, jobOf, kindsOf, pageOf, withShadows } from './shadow-support.js';
import { code, Helper } from './support.js';

/** Encodes page 7 in jobs of its own: page contents come from `pageOf(7, value)`, so they are sent along. */
const ENCODER = `
const encode = ({ shadows, job, page, content, zeros }) => {
  const bytes = Uint8Array.from(content);
  const count = bytes.length / PAGE;
  const kinds = new Uint8Array(count), crcs = new Uint32Array(count), bases = new Uint32Array(count);
  const numbers = Uint32Array.from({ length: count }, (_, k) => page + k);
  addon.shadowEncode(shadows, job, numbers, zeros ?? new Uint32Array(), bytes, new Uint8Array(bytes.length), kinds, crcs, bases);
  return { kinds: [...kinds], crcs: [...crcs], bases: [...bases] };
};
`;
/** Works as it is told, a message a job. */
const WORKER = `${ENCODER}
if (workerData.join) addon.shadowsJoin(workerData.shadows);
parentPort.postMessage('ready');
parentPort.on('message', (message) => {
  if (message === 'exit') process.exit(0);
  if (message === 'throw') throw new Error('on purpose');
  if (message === 'end') return parentPort.close();
  parentPort.postMessage('begins');
  const started = performance.now();
  try { parentPort.postMessage(encode(message)); }
  catch (error) { parentPort.postMessage({ code: error.code, ms: performance.now() - started }); }
});`;

interface Answer {
  kinds: number[];
  crcs: number[];
  bases: number[];
  code?: string;
  ms?: number;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function helper(shadows: number, join = false): Promise<Helper> {
  const made = new Helper(WORKER, { shadows, join });
  assert.equal(await made.next(), 'ready');
  return made;
}

/** Has a thread begin a job, and waits a while: it is in there, waiting for its turn. */
async function begin(thread: Helper, message: object): Promise<void> {
  thread.worker.postMessage(message);
  assert.equal(await thread.next(), 'begins');
  await pause(30);
}

async function ended(...threads: Helper[]): Promise<void> {
  for (const { worker } of threads) worker.postMessage('end');
  await Promise.all(threads.map(({ exited }) => exited));
}

describe('kernel: shadows and threads', () => {
  it('use shadows in the order of their turns, whichever comes first', () =>
    withShadows(8, async (shadows, table) => {
      const threads = [await helper(shadows), await helper(shadows)];
      const content = (turn: number): Buffer => pageOf(7, turn);
      // Each thread has its own in order; the jobs with odd turns are sent first, and begin first.
      const JOBS = 40;
      const order = [1, 0].flatMap((thread) => Array.from({ length: JOBS / 2 }, (_, k) => 2 * k + thread));
      for (const turn of order)
        threads[turn % 2]!.worker.postMessage({
          shadows,
          job: jobOf(table, { turn, maxDepth: 64 }),
          page: 7,
          content: content(turn),
        });
      const answers: Answer[] = [];
      for (let turn = 0; turn < JOBS; turn++) {
        assert.equal(await threads[turn % 2]!.next(), 'begins');
        answers.push((await threads[turn % 2]!.next()) as Answer);
      }
      for (const [turn, { kinds, bases }] of answers.entries())
        assert.deepEqual(
          [kinds, bases],
          turn === 0 ? [[0], [0]] : [[1], [addon().crc32c(content(turn - 1))]],
          `the job with turn ${turn}`,
        );
      await ended(...threads);
    }));

  it('forget a page that is zero in the turn of the job that says so', () =>
    withShadows(8, async (shadows, table) => {
      const thread = await helper(shadows);
      encode(shadows, jobOf(table, { turn: 0 }), [[7, pageOf(7)]]);
      // Turn 2 comes first: page 7 became zero after turn 1 had found it written.
      await begin(thread, {
        shadows,
        job: jobOf(table, { turn: 2 }),
        page: 0,
        content: new Uint8Array(),
        zeros: Uint32Array.of(7),
      });
      assert.equal(addon().shadowsUsed(shadows), PAGE_SIZE, 'it waits');
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { turn: 1 }), [[7, pageOf(7, 1)]])), ['delta']);
      assert.deepEqual((await thread.next()) as Answer, { kinds: [], crcs: [], bases: [] });
      assert.equal(addon().shadowsUsed(shadows), 0);
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { turn: 3 }), [[7, pageOf(7, 1)]])), ['full']);
      await ended(thread);
    }));

  it('count turns anew in each generation', () =>
    withShadows(8, async (shadows, table) => {
      const thread = await helper(shadows);
      for (let turn = 0; turn < 5; turn++) encode(shadows, jobOf(table, { turn }), [[7, pageOf(7, turn)]]);
      const generation = addon().shadowFail(shadows, table, 0);
      await begin(thread, { shadows, job: jobOf(table, { generation, turn: 1 }), page: 7, content: pageOf(7, 11) });
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { generation, turn: 0 }), [[7, pageOf(7, 10)]])), ['full']);
      const { kinds, bases } = (await thread.next()) as Answer;
      assert.deepEqual([kinds, bases], [[1], [addon().crc32c(pageOf(7, 10))]]);
      await ended(thread);
    }));

  it('do not wait any more when the generation ends, or the table', () =>
    withShadows(8, async (shadows, table) => {
      const thread = await helper(shadows);
      const other = addon().shadowOpen(shadows);
      for (const end of [() => addon().shadowFail(shadows, table, 1), () => addon().shadowClose(shadows, other)]) {
        const own = end.toString().includes('shadowFail') ? table : other;
        await begin(thread, { shadows, job: jobOf(own, { turn: 5 }), page: 7, content: pageOf(7) });
        end();
        assert.deepEqual(((await thread.next()) as Answer).kinds, [0]);
        assert.equal(addon().shadowsUsed(shadows), 0, 'it left none');
      }
      await ended(thread);
    }));

  for (const how of ['terminate', 'exit', 'throw', 'end']) {
    it(`end the waiting at once when a thread that joined ends: ${how}`, () =>
      withShadows(8, async (shadows, table) => {
        const [dying, waiting] = [await helper(shadows, true), await helper(shadows)];
        await begin(waiting, { shadows, job: jobOf(table, { turn: 1 }), page: 7, content: pageOf(7) });
        if (how === 'terminate') await dying.worker.terminate();
        else dying.worker.postMessage(how);
        const answer = (await waiting.next()) as Answer;
        assert.equal(answer.code, 'ERR_DEAD');
        assert.ok(answer.ms! < 20_000);
        // It stays so for who would have to wait.
        assert.throws(() => encode(shadows, jobOf(table, { turn: 100 }), [[7, pageOf(7)]]), code('ERR_DEAD'));
        await ended(waiting);
        await dying.exited;
      }));
  }

  it('end the waiting when they are closed', () =>
    withShadows(8, async (shadows, table) => {
      const thread = await helper(shadows);
      await begin(thread, { shadows, job: jobOf(table, { turn: 1 }), page: 7, content: pageOf(7) });
      addon().shadowsClose(shadows);
      assert.equal(((await thread.next()) as Answer).code, 'ERR_DEAD');
      await ended(thread);
    }));

  it('let a thread that waits be terminated', () =>
    withShadows(8, async (shadows, table) => {
      const thread = await helper(shadows);
      await begin(thread, { shadows, job: jobOf(table, { turn: 1 }), page: 7, content: pageOf(7) });
      const started = performance.now();
      await thread.worker.terminate();
      assert.ok(performance.now() - started < 20_000);
      assert.equal(addon().shadowsUsed(shadows), 0, 'it left none');
      assert.deepEqual(kindsOf(encode(shadows, jobOf(table, { turn: 0 }), [[7, pageOf(7)]])), ['full']);
    }));

  it('go with the environment that made them', async () => {
    const maker = new Helper(`parentPort.postMessage(addon.shadowsCreate(PAGE));`);
    const shadows = (await maker.next()) as number;
    await maker.exited;
    assert.throws(() => addon().shadowOpen(shadows), code('ERR_CLOSED'));
  });

  it('are held by a job of an old generation until it ends, and never taken for others', () =>
    withShadows(300, async (shadows, table) => {
      // Always in the generation that it was told last, always with the same contents, 256 pages each time.
      const state = new Int32Array(new SharedArrayBuffer(12));
      const racer = new Helper(
        `${ENCODER}
         const { shadows, table, content, state } = workerData;
         const own = new Set();
         parentPort.postMessage('ready');
         while (Atomics.load(state, 1) === 0) {
           const generation = Atomics.load(state, 0);
           const { crcs, bases } = encode({ shadows, job: Uint32Array.of(table, generation, 0, 9, 0, 32, 512), page: 0, content });
           for (const crc of crcs) own.add(crc);
           Atomics.add(state, 2, 1);
         }`,
        { shadows, table, content: Buffer.concat(Array.from({ length: 256 }, (_, k) => pageOf(k, 1))), state },
      );
      await racer.next();
      const ours = [2, 3].map((value) => Array.from({ length: 256 }, (_, k) => [k, pageOf(k, value)] as const));
      const allowed = ours[0]!.map(([, bytes]) => addon().crc32c(bytes));
      const rounds = () => Atomics.load(state, 2);
      const deadline = performance.now() + 30_000;
      for (let round = 1; round <= 150 || (rounds() <= 20 && performance.now() < deadline); round++) {
        const generation = addon().shadowFail(shadows, table, 0);
        // The racer goes on in the old one: nothing of it is there for us.
        for (const [turn, pages] of ours.entries()) {
          const encoded = encode(shadows, jobOf(table, { generation, turn }), pages);
          for (const [page, { base, kind }] of encoded.entries())
            if (kind !== 'full') assert.ok(turn === 1 && base === allowed[page], `round ${round}: page ${page} against ${base}`);
        }
        addon().shadowFail(shadows, table, 0);
        Atomics.store(state, 0, generation + 1);
        if (round % 3 === 0) await pause(1);
      }
      Atomics.store(state, 1, 1);
      await racer.exited;
      assert.ok(rounds() > 20, `${rounds()} rounds`);
      addon().shadowFail(shadows, table, 0);
      assert.equal(addon().shadowsUsed(shadows), 0, 'frames that nobody has any more');
    }));
});
