import assert from 'node:assert/strict';
import { child, opened, PAGE, silent } from './support.js';

describe('userfaultfd: events', () => {
  it('EVENT_REMOVE: madvise waits until it is read, whoever reads it, and says what was dropped; without it there is none', async () => {
    const found = await child(async ({ opened, filled, Toucher, next, nextFault, plain, silent, PAGE, drop }) => {
      const { uffd, view, registration } = opened(8, ['missing'], { features: ['EVENT_REMOVE'] });
      registration.copy(0, filled(5, 8));
      // This very thread drops pages: it would wait for ever if events were read here.
      drop(view.subarray(2 * PAGE, 5 * PAGE));
      const event = await next(uffd);
      const same = event.type === 'remove' && event.registration === registration;
      const reading = new Toucher(view).read(3 * PAGE);
      const { byteOffset } = await nextFault(uffd);
      registration.zeropage(byteOffset, PAGE);
      const read = await reading;
      const quiet = opened(8, ['missing']);
      quiet.registration.zeropage(0, 8 * PAGE);
      drop(quiet.view.subarray(0, PAGE));
      return { event: plain(event), same, read, kept: view[PAGE], quiet: await silent(quiet.uffd) };
    });
    const event = { type: 'remove', byteOffset: 2 * PAGE, byteLength: 3 * PAGE };
    assert.deepEqual(found, { event, same: true, read: 0, kept: 5, quiet: true });
  });

  it('EVENT_REMOVE: comes for holes punched into a file, and for an ArrayBuffer that is made smaller', async () => {
    const found = await child(async ({ addon, Userfaultfd, next, plain, PAGE, punch }) => {
      const [one] = addon().uffdMapTwice(4 * PAGE, false);
      const view = new Uint8Array(one).fill(1);
      const uffd = Userfaultfd.open({ features: ['EVENT_REMOVE'] });
      uffd.register(view, { modes: ['missing'] });
      punch(view.subarray(PAGE, 2 * PAGE));
      const punched = plain(await next(uffd));

      const Resizable = ArrayBuffer as unknown as new (
        length: number,
        options: { maxByteLength: number },
      ) => ArrayBuffer & { resize(length: number): void };
      const buffer = new Resizable(16 * PAGE, { maxByteLength: 16 * PAGE });
      new Uint8Array(buffer).fill(1);
      uffd.register(buffer, { modes: ['missing'] });
      buffer.resize(4 * PAGE);
      return { punched, shrunk: plain(await next(uffd)) };
    });
    assert.deepEqual(found, {
      punched: { type: 'remove', byteOffset: PAGE, byteLength: PAGE },
      shrunk: { type: 'remove', byteOffset: 4 * PAGE, byteLength: 12 * PAGE },
    });
  });

  it('EVENT_UNMAP: says what was unmapped; without it there is none', async () => {
    const found = await child(async ({ opened, addon, next, plain, silent, PAGE }) => {
      const results: unknown[] = [];
      for (const features of [['EVENT_UNMAP'], []] as const) {
        const { uffd, view, registration } = opened(8, ['missing'], { features });
        addon().uffdRenew(view.subarray(3 * PAGE, 5 * PAGE));
        results.push(features.length === 0 ? await silent(uffd) : plain(await next(uffd)));
        // It is not registered any more, and so it is not missing.
        results.push(view[3 * PAGE], registration.zeropage(3 * PAGE, PAGE), registration.zeropage(0, PAGE));
      }
      return results;
    });
    const after = [0, { byteLength: 0, error: 'ENOENT' }, { byteLength: PAGE, error: null }];
    const event = { type: 'unmap', byteOffset: 3 * PAGE, byteLength: 2 * PAGE };
    assert.deepEqual(found, [event, ...after, true, ...after]);
  });

  it('EVENT_UNMAP: one for each registration, where one call unmaps several', async () => {
    const found = await child(async ({ Userfaultfd, addon, shared, next, PAGE }) => {
      const uffd = Userfaultfd.open({ features: ['EVENT_UNMAP'] });
      const view = shared(8);
      const parts = [0, 2, 4].map((page) => uffd.register(view.subarray(page * PAGE, (page + 2) * PAGE), { modes: ['missing'] }));
      addon().uffdRenew(view.subarray(PAGE, 6 * PAGE));
      const events: unknown[] = [];
      for (let k = 0; k < 3; k++) {
        const event = await next(uffd);
        if (event.type === 'unmap') events.push([parts.indexOf(event.registration!), event.byteOffset, event.byteLength]);
      }
      return events;
    });
    assert.deepEqual(found, [
      [0, PAGE, PAGE],
      [1, 0, 2 * PAGE],
      [2, 0, 2 * PAGE],
    ]);
  });

  it('EVENT_REMAP: says what was moved, and where to if that is registered; without it there is none', async () => {
    const found = await child(async ({ Userfaultfd, addon, filled, next, plain, silent, PAGE }) => {
      const anonymous = () => new Uint8Array(addon().allocate(4 * PAGE, false));
      const uffd = Userfaultfd.open({ features: ['EVENT_REMAP'] });
      const [from, to, unknown] = [anonymous(), anonymous(), anonymous()];
      const source = uffd.register(from, { modes: ['missing'] });
      const target = uffd.register(to, { modes: ['missing'] });
      source.copy(0, filled(6, 4));
      addon().uffdRemap(from.subarray(PAGE, 3 * PAGE), to.subarray(0, 2 * PAGE));
      const moved = await next(uffd);
      const where =
        moved.type === 'remap' && moved.registration === source && moved.to?.registration === target && moved.to.byteOffset;
      // What was moved is where it went, and missing where it was.
      const after = [to[0], source.zeropage(PAGE, PAGE), target.zeropage(0, PAGE)];
      addon().uffdRemap(from.subarray(0, PAGE), unknown.subarray(0, PAGE));
      const away = await next(uffd);
      const other = Userfaultfd.open();
      const quiet = anonymous();
      other.register(quiet, { modes: ['missing'] }).zeropage(0, 4 * PAGE);
      addon().uffdRemap(quiet.subarray(0, PAGE), unknown.subarray(0, PAGE));
      return {
        moved: plain(moved),
        where,
        after,
        away: away.type === 'remap' && away.to === undefined,
        quiet: await silent(other),
      };
    });
    assert.deepEqual(found, {
      moved: { type: 'remap', byteOffset: PAGE, byteLength: 2 * PAGE },
      where: 0,
      after: [6, { byteLength: PAGE, error: null }, { byteLength: 0, error: 'EEXIST' }],
      away: true,
      quiet: true,
    });
  });

  it('EVENT_FORK: comes with a userfaultfd that serves the child', async () => {
    const found = await child(async ({ inherited, addon, filled, next, nextFault, plain, codeOf, reaped, PAGE }) => {
      const { uffd, view, registration } = inherited(4, ['missing'], { features: ['EVENT_FORK'], forks: 'keep' });
      registration.copy(0, filled(5));
      const pid = addon().uffdFork(view.subarray(PAGE));
      const event = await next(uffd);
      if (event.type !== 'fork' || event.child === undefined) return event;
      const [theirs] = event.child.registrations;
      const fault = await nextFault(event.child);
      const same = fault.registration === theirs;
      const running = addon().uffdReap(pid) ?? 'running';
      const copied = theirs!.copy(fault.byteOffset, filled(42));
      const status = await reaped(pid);
      // Ours is as it was.
      const mine = registration.copy(PAGE, filled(7));
      const gone = theirs!.copy(2 * PAGE, filled(1));
      const outside = codeOf(() => theirs!.zeropage(4 * PAGE, PAGE));
      const bytes = codeOf(() => theirs!.bytes);
      const register = codeOf(() => event.child!.register(view, { modes: ['missing'] }));
      event.child.close();
      return { fault: plain(fault), same, modes: theirs!.modes, running, copied, status, mine, gone, outside, bytes, register };
    });
    assert.deepEqual(found, {
      fault: { type: 'pagefault', byteOffset: PAGE, byteLength: PAGE, write: false, wp: false, minor: false },
      same: true,
      modes: ['missing'],
      running: 'running',
      copied: { byteLength: PAGE, error: null },
      status: 42,
      mine: { byteLength: PAGE, error: null },
      gone: { byteLength: 0, error: 'ESRCH' },
      outside: 'RangeError',
      bytes: 'TIDEMARK_NOT_FOUND',
      register: 'TypeError',
    });
  });

  it('EVENT_FORK: the descriptor is closed where nobody keeps it, and then the child reads zeros; without it there is no event', async () => {
    const found = await child(async ({ inherited, addon, next, plain, silent, reaped, PAGE }) => {
      const results: unknown[] = [];
      const fs = process.getBuiltinModule('node:fs');
      for (const features of [['EVENT_FORK'], []] as const) {
        const { uffd, view } = inherited(4, ['missing'], { features });
        void uffd.events();
        const before = fs.readdirSync('/proc/self/fd').length;
        const pid = addon().uffdFork(view.subarray(PAGE));
        results.push(features.length === 0 ? await silent(uffd) : plain(await next(uffd)));
        results.push(await reaped(pid), fs.readdirSync('/proc/self/fd').length - before);
      }
      return results;
    });
    assert.deepEqual(found, [{ type: 'fork' }, 0, 0, true, 0, 0]);
  });

  it('EVENT_FORK: programs can be started, with nobody taking the events', async () => {
    const found = await child(async ({ inherited, next }) => {
      const { execFileSync } = process.getBuiltinModule('node:child_process');
      const { uffd } = inherited(4, ['missing'], { features: ['EVENT_FORK'], forks: 'keep' });
      const output = [1, 2, 3].map((k) => execFileSync('echo', [`started ${k}`], { encoding: 'utf8' }));
      const event = await next(uffd);
      // The others are dropped, and their descriptors closed.
      uffd.close();
      // So are those that have not come as far as JavaScript.
      const second = inherited(4, ['missing'], { features: ['EVENT_FORK'], forks: 'keep' });
      execFileSync('true');
      second.uffd.close();
      const fs = process.getBuiltinModule('node:fs');
      const left = fs.readdirSync('/proc/self/fd').filter((fd) => {
        try {
          return fs.readlinkSync(`/proc/self/fd/${fd}`).includes('userfaultfd');
        } catch {
          return false;
        }
      });
      return { output, type: event.type, left: left.length };
    });
    // The one that was taken is the test's.
    assert.deepEqual(found, { output: ['started 1\n', 'started 2\n', 'started 3\n'], type: 'fork', left: 1 });
  });

  it('EVENT_FORK: closing while another thread forks holds up neither, nor do threads that allocate and drop memory meanwhile', async () => {
    const found = await child(async ({ addon, addonPath, Userfaultfd, shared, Dropper, pause, PAGE }) => {
      const { Worker } = process.getBuiltinModule('node:worker_threads');
      const forks = new Int32Array(new SharedArrayBuffer(4));
      const forker = new Worker(
        `const { workerData } = require('node:worker_threads');
         const addon = require(workerData.addonPath);
         const byte = new Uint8Array(1);
         for (;;) { const pid = addon.uffdFork(byte); while (addon.uffdReap(pid) === undefined); workerData.forks[0]++; }`,
        { eval: true, execArgv: [], workerData: { addonPath, forks } },
      );
      const view = new Uint8Array(addon().allocate(16 * PAGE, false));
      const dropped = shared(16);
      const watched = Userfaultfd.open({ features: ['EVENT_REMOVE'] });
      watched.register(dropped, { modes: ['missing'] });
      const dropper = new Dropper(dropped);
      while (forks[0] === 0) await pause(5);
      for (let round = 0; round < 300; round++) {
        const uffd = Userfaultfd.open({ features: ['EVENT_FORK'], forks: round % 2 ? 'keep' : 'close' });
        try {
          uffd.register(view, { modes: ['missing'] });
        } catch (error) {
          // A child that has just been forked has what was closed.
          if ((error as { code?: string }).code !== 'TIDEMARK_REGION_BUSY') throw error;
        }
        for (let spin = Math.random() * 20_000; spin > 0; spin--);
        uffd.close();
        if (round % 30 === 0) await dropper.drop();
      }
      const before = forks[0]!;
      while (forks[0]! < before + 3) await pause(5);
      // It has no end of its own.
      void forker.terminate();
      return 'both go on';
    });
    assert.equal(found, 'both go on');
  });

  it('EVENT_FORK: reading goes on while a fork holds the locks of malloc, whatever else there is to read', async () => {
    const found = await child(async ({ addon, addonPath, Userfaultfd, shared, Dropper, pause, PAGE }) => {
      const { Worker } = process.getBuiltinModule('node:worker_threads');
      const forks = new Int32Array(new SharedArrayBuffer(4));
      new Worker(
        `const { workerData } = require('node:worker_threads');
         const addon = require(workerData.addonPath);
         const byte = new Uint8Array(1);
         while (workerData.forks[0] < 200) { const pid = addon.uffdFork(byte); while (addon.uffdReap(pid) === undefined); workerData.forks[0]++; }`,
        { eval: true, execArgv: [], workerData: { addonPath, forks } },
      );
      const uffd = Userfaultfd.open({ features: ['EVENT_FORK', 'EVENT_REMOVE'] });
      uffd.register(addon().allocate(PAGE, false), { modes: ['missing'] });
      const dropped = shared(1);
      uffd.register(dropped, { modes: ['missing'] });
      const dropper = new Dropper(dropped);
      let drops = 0;
      for (; forks[0]! < 200; drops++) await dropper.drop();
      await pause(50);
      uffd.close();
      return drops > 0;
    });
    assert.equal(found, true);
  });

  it('EVENT_FORK: none comes for memory of V8, which children do not have', async () => {
    const found = await child(async ({ opened, silent }) => {
      const { execFileSync } = process.getBuiltinModule('node:child_process');
      const { uffd } = opened(4, ['missing'], { features: ['EVENT_FORK'] });
      execFileSync('true');
      return silent(uffd);
    });
    assert.equal(found, true);
  });

  it('come in order, each to one taker, and are kept for the next iteration', async () => {
    const found = await child(async ({ opened, PAGE, drop }) => {
      const { uffd, view, registration } = opened(64, ['missing'], { features: ['EVENT_REMOVE'] });
      registration.zeropage(0, 64 * PAGE);
      for (let page = 0; page < 64; page++) drop(view.subarray(page * PAGE, (page + 1) * PAGE));
      const pages: number[] = [];
      const page = (event: unknown) => (event as { byteOffset: number }).byteOffset / PAGE;
      for await (const event of uffd) {
        pages.push(page(event));
        if (pages.length === 10) break;
      }
      const [one, two] = [uffd.events(), uffd.events()];
      pages.push(...(await Promise.all([one.next(), two.next(), one.next()])).map(({ value }) => page(value)));
      for await (const event of uffd.events()) {
        pages.push(page(event));
        if (pages.length === 64) uffd.close();
      }
      return { inOrder: pages.every((page, k) => page === k), count: pages.length, ended: (await one.next()).done };
    });
    assert.deepEqual(found, { inOrder: true, count: 64, ended: true });
  });

  it('end when the userfaultfd is closed, for who waits and who comes later', async () => {
    const { uffd } = opened(1, ['missing']);
    const iterator = uffd.events();
    const waiting = [iterator.next(), uffd.events().next()];
    setTimeout(() => uffd.close(), 10);
    const end = { done: true, value: undefined };
    assert.deepEqual(await Promise.all(waiting), [end, end]);
    assert.deepEqual(await iterator.next(), end);
    assert.deepEqual(await uffd.events().next(), end);
    for await (const event of uffd) assert.fail(event.type);
  });

  it('an iteration that ends takes no event with it', async () => {
    const found = await child(async ({ opened, next, PAGE, drop }) => {
      const { uffd, view, registration } = opened(2, ['missing'], { features: ['EVENT_REMOVE'] });
      registration.zeropage(0, 2 * PAGE);
      const given = uffd.events();
      const waiting = given.next();
      await given.return!();
      drop(view.subarray(0, PAGE));
      return { ended: (await waiting).done, type: (await next(uffd)).type };
    });
    assert.deepEqual(found, { ended: true, type: 'remove' });
  });

  it('are those of memory that is registered still', async () => {
    const found = await child(async ({ opened, next, silent, PAGE, drop }) => {
      const { uffd, view, registration } = opened(4, ['missing'], { features: ['EVENT_REMOVE'] });
      registration.zeropage(0, 4 * PAGE);
      drop(view.subarray(0, PAGE));
      registration.unregister();
      const quiet = await silent(uffd);
      const again = uffd.register(view, { modes: ['missing'] });
      drop(view.subarray(PAGE, 2 * PAGE));
      const event = await next(uffd);
      return { quiet, type: event.type, same: event.type === 'remove' && event.registration === again };
    });
    assert.deepEqual(found, { quiet: true, type: 'remove', same: true });
  });

  it('none come of a descriptor that has nothing registered', async () => {
    const { uffd, registration } = opened(1, ['missing']);
    registration.unregister();
    assert.equal(await silent(uffd), true);
    uffd.close();
  });
});
