import assert from 'node:assert/strict';
import { addon } from '../../lib/kernel/addon.js';
import { code, Helper } from './support.js';

const acquirer = `const { ring, want, stallMs } = workerData; parentPort.postMessage('waiting');
  const started = performance.now();
  try { const got = addon.ringAcquire(ring, want, stallMs); parentPort.postMessage({ got: [...got] }); }
  catch (error) { parentPort.postMessage({ code: error.code, ms: performance.now() - started }); }`;
const joiner = `addon.ringJoin(workerData.ring); parentPort.postMessage('joined'); parentPort.on('message', (message) => {
  if (message === 'exit') process.exit(0); if (message === 'throw') throw new Error('on purpose'); if (message === 'end') parentPort.close(); });`;

async function untilStarved(ring: number): Promise<void> {
  while (!addon().ringStarved(ring)) await new Promise((resolve) => setTimeout(resolve, 1));
}

describe('kernel: ring', () => {
  it('hands out the lowest free segments', () => {
    const ring = addon().ringCreate(5);
    assert.deepEqual([...addon().ringAcquire(ring, 2, 10)], [0, 1]);
    assert.deepEqual([...addon().ringAcquire(ring, 9, 10)], [2, 3, 4]);
    assert.equal(addon().ringFree(ring), 0);
    addon().ringRelease(ring, Int32Array.of(3, 1, 3));
    addon().ringRelease(ring, Int32Array.of(3));
    assert.equal(addon().ringFree(ring), 2);
    assert.deepEqual([...addon().ringAcquire(ring, 9, 10)], [1, 3]);
    assert.throws(() => addon().ringRelease(ring, Int32Array.of(5)), RangeError);
    assert.throws(() => addon().ringRelease(ring, Int32Array.of(-1)), RangeError);
    assert.throws(() => addon().ringAcquire(ring, 0, 10), RangeError);
    assert.equal(addon().ringStarved(ring), false);
    addon().ringClose(ring);
    addon().ringClose(ring);
    addon().ringRelease(ring, Int32Array.of(0));
    assert.throws(() => addon().ringAcquire(ring, 1, 10), code('ERR_CLOSED'));
    assert.throws(() => addon().ringStarved(ring), code('ERR_CLOSED'));
    assert.throws(() => addon().ringJoin(ring), code('ERR_CLOSED'));
    assert.throws(() => addon().ringRelease(4294967295, Int32Array.of(0)), code('ERR_CLOSED'));
  });

  it('says that it stalled when nothing was released in time', () => {
    const ring = addon().ringCreate(1);
    addon().ringAcquire(ring, 1, 0);
    const started = performance.now();
    assert.throws(() => addon().ringAcquire(ring, 1, 120), code('ERR_STALLED'));
    assert.ok(performance.now() - started >= 119);
    addon().ringClose(ring);
  });

  it('waits for a release by another thread', async () => {
    const ring = addon().ringCreate(2);
    addon().ringAcquire(ring, 2, 10);
    const helper = new Helper(acquirer, { ring, want: 2, stallMs: 10000 });
    await untilStarved(ring);
    addon().ringRelease(ring, Int32Array.of(1));
    assert.equal(await helper.next(), 'waiting');
    assert.deepEqual(await helper.next(), { got: [1] });
    assert.equal(addon().ringStarved(ring), false);
    addon().ringClose(ring);
    await helper.exited;
  });

  it('waits on this thread for a release by a worker', async () => {
    const ring = addon().ringCreate(1);
    addon().ringAcquire(ring, 1, 10);
    const helper = new Helper(
      `parentPort.postMessage('ready'); while (!addon.ringStarved(workerData)); addon.ringRelease(workerData, Int32Array.of(0));`,
      ring,
    );
    await helper.next();
    assert.deepEqual([...addon().ringAcquire(ring, 1, 10000)], [0]);
    addon().ringClose(ring);
    await helper.exited;
  });

  for (const how of ['terminate', 'exit', 'throw', 'end']) {
    it(`ends the waiting at once when a thread that joined ends: ${how}`, async () => {
      const ring = addon().ringCreate(1);
      addon().ringAcquire(ring, 1, 10);
      const server = new Helper(joiner, { ring });
      await server.next();
      const waiters = [0, 1].map(() => new Helper(acquirer, { ring, want: 1, stallMs: 30000 }));
      for (const waiter of waiters) assert.equal(await waiter.next(), 'waiting');
      await untilStarved(ring);
      if (how === 'terminate') await server.worker.terminate();
      else server.worker.postMessage(how);
      for (const waiter of waiters) {
        const result = (await waiter.next()) as { code: string; ms: number };
        assert.equal(result.code, 'ERR_DEAD');
        assert.ok(result.ms < 20_000);
      }
      addon().ringRelease(ring, Int32Array.of(0));
      assert.throws(() => addon().ringAcquire(ring, 1, 10), code('ERR_DEAD'), 'and stays dead, also with free segments');
      addon().ringClose(ring);
      await Promise.all([...waiters, server].map((helper) => helper.exited));
    });
  }

  it('ends the waiting when the ring is closed', async () => {
    const ring = addon().ringCreate(1);
    addon().ringAcquire(ring, 1, 10);
    const waiter = new Helper(acquirer, { ring, want: 1, stallMs: 30000 });
    await untilStarved(ring);
    addon().ringClose(ring);
    await waiter.next();
    assert.equal(((await waiter.next()) as { code: string }).code, 'ERR_CLOSED');
    await waiter.exited;
  });

  it('lets a thread that waits be terminated', async () => {
    const ring = addon().ringCreate(1);
    addon().ringAcquire(ring, 1, 10);
    const waiter = new Helper(acquirer, { ring, want: 1, stallMs: 30000 });
    await untilStarved(ring);
    const started = performance.now();
    await waiter.worker.terminate();
    assert.ok(performance.now() - started < 20_000);
    assert.equal(addon().ringStarved(ring), false);
    addon().ringRelease(ring, Int32Array.of(0));
    assert.deepEqual([...addon().ringAcquire(ring, 1, 10)], [0], 'and it took nothing');
    addon().ringClose(ring);
  });

  it('is closed with the environment that made it', async () => {
    const helper = new Helper(`parentPort.postMessage(addon.ringCreate(4));`);
    const ring = (await helper.next()) as number;
    await helper.exited;
    assert.throws(() => addon().ringAcquire(ring, 1, 10), code('ERR_CLOSED'));
  });

  it('moves many segments between threads, each to one owner', async () => {
    const ring = addon().ringCreate(4);
    const owners = new SharedArrayBuffer(16);
    const helpers = [0, 1, 2].map(
      () =>
        new Helper(
          `const owners = new Int32Array(workerData.owners); let bad = 0;
           for (let round = 0; round < 3000; round++) { const got = addon.ringAcquire(workerData.ring, 2, 10000);
             for (const s of got) if (Atomics.add(owners, s, 1) !== 0) bad++;
             for (const s of got) Atomics.sub(owners, s, 1);
             addon.ringRelease(workerData.ring, got); }
           parentPort.postMessage(bad);`,
          { ring, owners },
        ),
    );
    for (const helper of helpers) assert.equal(await helper.next(), 0);
    addon().ringClose(ring);
    await Promise.all(helpers.map((helper) => helper.exited));
  });
});
