import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { child, PAGE, Userfaultfd } from './support.js';

/** For threads that serve, or should. */
const LIBRARY = new URL('../../lib/userfaultfd/index.js', import.meta.url).href;

describe('userfaultfd: the end', () => {
  it('close: who waits goes on, and what is missing is zero', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, filled, codeOf, PAGE }) => {
      const { uffd, view, registration } = opened(4, ['missing']);
      registration.copy(0, filled(5));
      const reading = new Toucher(view).read(PAGE);
      await nextFault(uffd);
      uffd.close();
      uffd.close();
      const after = ['copy', 'move'].map((verb) => codeOf(() => registration[verb as 'copy'](0, filled(1))));
      return {
        read: await reading,
        bytes: [view[0], view[PAGE], view[2 * PAGE]],
        after,
        closed: uffd.closed,
        left: uffd.registrations.length,
      };
    });
    const closed = 'TIDEMARK_CLOSED';
    assert.deepEqual(found, { read: 0, bytes: [5, 0, 0], after: [closed, closed], closed: true, left: 0 });
  });

  it("close with whenClosed 'poison': who waits gets EFAULT or SIGBUS, never zeros; what was there stays", async () => {
    const found = await child(async ({ opened, Toucher, nextFault, kernelReads, filled, PAGE }) => {
      const { uffd, view, registration } = opened(64, ['missing', 'wp'], {
        whenClosed: 'poison',
        features: ['EVENT_REMOVE', 'WP_UNPOPULATED'],
      });
      registration.copy(PAGE, filled(5, 2));
      registration.copy(5 * PAGE, filled(5), { wp: true });
      // Markers where nothing is.
      registration.writeProtect(8 * PAGE, 8 * PAGE);
      const reading = new Toucher(view).kernel(0);
      await nextFault(uffd);
      uffd.close();
      const pages = Array.from({ length: 64 }, (_, page) => kernelReads(view, page * PAGE));
      return {
        features: uffd.features,
        read: await reading,
        present: pages.flatMap((code, page) => (code === '' ? page : [])),
        codes: [...new Set(pages)].sort(),
        kept: view[5 * PAGE],
      };
    });
    assert.deepEqual(found, {
      features: ['EVENT_REMOVE', 'WP_UNPOPULATED', 'POISON'],
      read: 'EFAULT',
      present: [1, 2, 5],
      codes: ['', 'EFAULT'],
      kept: 5,
    });
  });

  it("whenClosed 'poison' leaves memory alone that is not its own any more", async () => {
    const found = await child(async ({ Userfaultfd, addon, kernelReads, PAGE }) => {
      const view = new Uint8Array(addon().allocate(4 * PAGE, false));
      const uffd = Userfaultfd.open({ whenClosed: 'poison' });
      uffd.register(view, { modes: ['missing'] });
      // Other memory is in its place now: of nobody, and of another.
      addon().uffdRenew(view.subarray(0, 3 * PAGE));
      const other = Userfaultfd.open();
      const theirs = other.register(view.subarray(PAGE, 2 * PAGE), { modes: ['missing'] });
      uffd.close();
      const served = theirs.zeropage(0, PAGE);
      return [kernelReads(view, 0), served, kernelReads(view, PAGE), kernelReads(view, 2 * PAGE), kernelReads(view, 3 * PAGE)];
    });
    assert.deepEqual(found, ['', { byteLength: PAGE, error: null }, '', '', 'EFAULT']);
  });

  it('the end of the thread that serves: as close', async () => {
    const found = await child(async ({ shared, Toucher, pause, PAGE }, library) => {
      const { Worker } = process.getBuiltinModule('node:worker_threads');
      const results: unknown[] = [];
      for (const whenClosed of ['zero', 'poison'] as const) {
        for (const how of ['terminate', 'return', 'throw'] as const) {
          const view = shared(4);
          const server = new Worker(
            `const { parentPort, workerData } = require('node:worker_threads');
               import(workerData.entry).then(async ({ Userfaultfd }) => {
                 const uffd = Userfaultfd.open({ whenClosed: workerData.whenClosed });
                 uffd.register(new Uint8Array(workerData.memory), { modes: ['missing'] });
                 parentPort.postMessage('ready');
                 for await (const event of uffd) {
                   parentPort.postMessage('fault');
                   if (workerData.how === 'throw') throw new Error('served badly');
                   if (workerData.how === 'return') break;
                 }
                 globalThis.keep = uffd;
               });`,
            { eval: true, execArgv: [], workerData: { entry: library, whenClosed, how, memory: view.buffer } },
          );
          server.on('error', () => {});
          const exited = new Promise((resolve) => server.once('exit', resolve));
          await new Promise((resolve) => server.once('message', resolve));
          const reading = new Toucher(view).kernel(PAGE);
          await new Promise((resolve) => server.once('message', resolve));
          if (how === 'terminate') {
            await pause(50);
            await server.terminate();
          }
          await exited;
          results.push(await reading);
        }
      }
      return results;
    }, LIBRARY);
    assert.deepEqual(found, [1, 1, 1, 'EFAULT', 'EFAULT', 'EFAULT']);
  });

  it('the end of the process: also while a thread waits that nobody serves', () => {
    const script = (how: string) => `
      import { Worker } from 'node:worker_threads';
      const { Userfaultfd } = await import(${JSON.stringify(LIBRARY)});
      const uffd = Userfaultfd.open();
      const memory = new SharedArrayBuffer(65536, { maxByteLength: 65536 });
      uffd.register(memory, { modes: ['missing'] });
      new Worker('require("node:worker_threads").workerData[5]; setInterval(() => {}, 1000);', { eval: true, execArgv: [], workerData: new Uint8Array(memory) });
      for await (const event of uffd) { console.log(event.type); ${how} }`;
    for (const how of ['process.exit(0)', 'process.kill(process.pid, "SIGKILL")', 'throw new Error("served badly")']) {
      let output = '';
      try {
        output = execFileSync(process.execPath, ['--input-type=module', '-e', script(how)], {
          encoding: 'utf8',
          timeout: 15_000,
          stdio: 'pipe',
        });
      } catch (error) {
        const { signal, status, stdout } = error as { signal: string | null; status: number | null; stdout: string };
        assert.deepEqual([signal, status], how.includes('KILL') ? ['SIGKILL', null] : [null, 1], `${how}: ${signal} ${status}`);
        output = stdout;
      }
      assert.equal(output, 'pagefault\n', how);
    }
  });

  it('waiting for an event keeps the process alive, an open userfaultfd does not', () => {
    const run = (rest: string) =>
      execFileSync(
        process.execPath,
        [
          '--input-type=module',
          '-e',
          `const { Userfaultfd } = await import(${JSON.stringify(LIBRARY)});
           let uffd = Userfaultfd.open({ features: ['EVENT_REMOVE'] });
           uffd.register(new SharedArrayBuffer(4096, { maxByteLength: 4096 }), { modes: ['missing'] });
           process.on('exit', () => console.log('end'));
           ${rest}`,
        ],
        { encoding: 'utf8', timeout: 15_000 },
      );
    assert.equal(run('console.log("open");'), 'open\nend\n');
    assert.equal(run('uffd.events(); console.log("listening");'), 'listening\nend\n');
    assert.equal(
      run(
        'setTimeout(() => { console.log("late"); uffd.close(); }, 500).unref(); for await (const event of uffd); console.log("closed");',
      ),
      'late\nclosed\nend\n',
    );
  });

  it('one that nobody refers to any more is closed, one that is waited for is not', () => {
    const script = `
      import fs from 'node:fs';
      const { Userfaultfd } = await import(${JSON.stringify(LIBRARY)});
      const open = () => fs.readdirSync('/proc/self/fd').filter((fd) => { try { return fs.readlinkSync('/proc/self/fd/' + fd).includes('userfaultfd'); } catch { return false; } }).length;
      const forgotten = () => { const uffd = Userfaultfd.open({ features: ['EVENT_REMOVE'] }); uffd.register(new SharedArrayBuffer(4096, { maxByteLength: 4096 }), { modes: ['missing'] }); };
      for (let k = 0; k < 10; k++) forgotten();
      const waiting = (async () => { for await (const event of Userfaultfd.open()); })();
      const before = open();
      for (let k = 0; k < 100 && open() > 1; k++) { gc(); await new Promise((resolve) => setTimeout(resolve, 10)); }
      for (let k = 0; k < 5; k++) { gc(); await new Promise((resolve) => setTimeout(resolve, 10)); }
      console.log(before, open());
      process.exit();`;
    const output = execFileSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', script], {
      encoding: 'utf8',
      timeout: 15_000,
    });
    assert.equal(output, '11 1\n');
  });

  it('threads may end at any moment, in the middle of everything', async () => {
    const found = await child(async ({ addonPath, MemoryChange, PAGE }, library) => {
      const { Worker } = process.getBuiltinModule('node:worker_threads');
      const fs = process.getBuiltinModule('node:fs');
      const source = `
          const { workerData, parentPort } = require('node:worker_threads');
          const addon = require(workerData.addonPath);
          const PAGE = workerData.PAGE;
          import(workerData.entry).then(({ Userfaultfd }) => {
            const all = [];
            for (let k = 0; k < 4; k++) {
              const uffd = Userfaultfd.open({ features: ['EVENT_REMOVE', 'EVENT_UNMAP', 'EVENT_FORK'], forks: 'keep', whenClosed: k % 2 ? 'poison' : 'zero' });
              const view = new Uint8Array(k < 2 ? new SharedArrayBuffer(16 * PAGE, { maxByteLength: 16 * PAGE }) : addon.allocate(16 * PAGE, false));
              const registration = uffd.register(view, { modes: ['missing'] });
              all.push({ uffd, view, registration });
              (async () => { for await (const event of uffd); })();
            }
            parentPort.postMessage('ready');
            const step = () => {
              for (const { view, registration } of all) { registration.zeropage(0, 2 * PAGE); addon.memoryChange(view.subarray(0, 2 * PAGE), ${MemoryChange.drop}); }
              if (Math.random() < 0.1) addon.uffdRenew(all[3].view.subarray(2 * PAGE, 3 * PAGE));
              setImmediate(step);
            };
            step();
          });`;
      const run = async (): Promise<void> => {
        const worker = new Worker(source, { eval: true, execArgv: [], workerData: { addonPath, entry: library, PAGE } });
        const exited = new Promise((resolve) => worker.once('exit', resolve));
        await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
        setTimeout(() => worker.terminate(), Math.random() * 20);
        await exited;
      };
      await run();
      const before = fs.readdirSync('/proc/self/fd').length;
      for (let round = 0; round < 6; round++) await Promise.all([run(), run()]);
      return fs.readdirSync('/proc/self/fd').length - before;
    }, LIBRARY);
    assert.equal(found, 0);
  });

  it('is the end of the block it was opened in, where that is asked for', () => {
    const uffd = Userfaultfd.open();
    uffd[Symbol.dispose]();
    assert.equal(uffd.closed, true);
  });

  it('a pool of libuv whose threads all wait is served still', async () => {
    const found = await child(async ({ opened, PAGE }) => {
      const fs = process.getBuiltinModule('node:fs');
      const { uffd, view, registration } = opened(8, ['missing']);
      const file = fs.openSync('/proc/self/status', 'r');
      const reads = Array.from(
        { length: 8 },
        (_, page) =>
          new Promise((resolve) => {
            fs.read(file, view, page * PAGE, 1, 0, (error, length) => resolve(error?.code ?? length));
          }),
      );
      let faults = 0;
      for await (const event of uffd) {
        if (event.type === 'pagefault') registration.zeropage(event.byteOffset, PAGE);
        if (++faults === 8) break;
      }
      const results = await Promise.all(reads);
      fs.closeSync(file);
      return results;
    });
    assert.deepEqual(found, Array(8).fill(1));
  });
});
