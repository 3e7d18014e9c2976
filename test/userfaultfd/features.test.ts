import assert from 'node:assert/strict';
import { child, PAGE } from './support.js';

describe('userfaultfd: features', () => {
  it('PAGEFAULT_FLAG_WP: faults tell a protected page from a missing one', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, plain, PAGE }) => {
      const { uffd, view, registration } = opened(2, ['missing', 'wp'], { features: ['PAGEFAULT_FLAG_WP'] });
      registration.zeropage(0, PAGE);
      const protect = registration.writeProtect(0, PAGE);
      const [one, two] = [new Toucher(view), new Toucher(view)];
      const writing = one.write(0, 1);
      const first = plain(await nextFault(uffd));
      const reading = two.read(PAGE);
      const second = plain(await nextFault(uffd));
      uffd.close();
      return { protect, first, second, written: await writing, read: await reading };
    });
    const event = { type: 'pagefault', byteLength: PAGE, minor: false };
    assert.deepEqual(found, {
      protect: { byteLength: PAGE, error: null },
      first: { ...event, byteOffset: 0, write: true, wp: true },
      second: { ...event, byteOffset: PAGE, write: false, wp: false },
      written: 1,
      read: 0,
    });
  });

  it('UFFD_PAGEFAULT_FLAG_WRITE: faults tell writing from reading', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, PAGE }) => {
      const { uffd, view, registration } = opened(2, ['missing']);
      const toucher = new Toucher(view);
      const results: boolean[] = [];
      const reading = toucher.read(0);
      results.push((await nextFault(uffd)).write);
      registration.zeropage(0, PAGE);
      await reading;
      const writing = toucher.write(PAGE, 1);
      results.push((await nextFault(uffd)).write);
      registration.zeropage(PAGE, PAGE);
      await writing;
      return results;
    });
    assert.deepEqual(found, [false, true]);
  });

  it('SIGBUS: no events, but EFAULT for system calls and SIGBUS for programs', async () => {
    const found = await child(async ({ opened, kernelReads, silent, filled, PAGE }) => {
      const { uffd, view, registration } = opened(2, ['missing'], { features: ['SIGBUS'] });
      const refused = kernelReads(view, 0);
      const quiet = await silent(uffd);
      registration.copy(PAGE, filled(4));
      return { refused, quiet, filled: view[PAGE] };
    });
    assert.deepEqual(found, { refused: 'EFAULT', quiet: true, filled: 4 });
    const killed = child(async ({ opened }) => {
      const { view } = opened(1, ['missing'], { features: ['SIGBUS'] });
      return view[0];
    });
    await assert.rejects(killed, /signal SIGBUS/);
  });

  it('THREAD_ID: names the thread that waits; without it there is none', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, PAGE }) => {
      const fs = process.getBuiltinModule('node:fs');
      const results: unknown[] = [];
      for (const features of [['THREAD_ID'], []] as const) {
        const { uffd, view } = opened(2, ['missing'], { features });
        const toucher = new Toucher(view);
        const reading = toucher.read(PAGE);
        const { threadId } = await nextFault(uffd);
        // It is one of this process's, and in handle_userfault, where the kernel lets us see that.
        const exists = threadId !== undefined && threadId !== process.pid && fs.existsSync(`/proc/self/task/${threadId}`);
        const where = threadId === undefined ? '' : fs.readFileSync(`/proc/self/task/${threadId}/status`, 'utf8');
        results.push(exists, /State:\s+S/.test(where));
        uffd.close();
        await reading;
      }
      return results;
    });
    assert.deepEqual(found, [true, true, false, false]);
  });

  it('EXACT_ADDRESS: tells the byte; without it only the page', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, PAGE }) => {
      const results: unknown[] = [];
      for (const features of [['EXACT_ADDRESS'], []] as const) {
        const { uffd, view } = opened(2, ['missing'], { features });
        const reading = new Toucher(view).read(PAGE + 1234);
        const { byteOffset, byteLength, exactByteOffset } = await nextFault(uffd);
        results.push([byteOffset, byteLength, exactByteOffset ?? null]);
        uffd.close();
        await reading;
      }
      return results;
    });
    assert.deepEqual(found, [
      [PAGE, PAGE, PAGE + 1234],
      [PAGE, PAGE, null],
    ]);
  });

  it('WP_UNPOPULATED: protects pages that are not there yet; without it they are passed over', async () => {
    const found = await child(async ({ opened, Toucher, next, waits, PAGE }) => {
      const results: unknown[] = [];
      for (const features of [['WP_UNPOPULATED'], []] as const) {
        const { uffd, view, registration } = opened(2, ['wp'], { features });
        registration.writeProtect(0, 2 * PAGE);
        const writing = new Toucher(view).write(PAGE, 1);
        if (await waits(writing)) {
          const event = await next(uffd);
          results.push(event.type === 'pagefault' && event.wp);
        } else results.push('not protected');
        uffd.close();
        await writing;
      }
      return results;
    });
    assert.deepEqual(found, [true, 'not protected']);
  });

  it('WP_ASYNC: the kernel takes the protection off by itself, and no event comes', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, silent, waits, PAGE }) => {
      const { uffd, view, registration } = opened(2, ['wp'], { features: ['WP_ASYNC'] });
      view.fill(1);
      const protect = registration.writeProtect(0, 2 * PAGE);
      const written = await new Toucher(view).write(PAGE, 2);
      const quiet = await silent(uffd);
      uffd.close();
      // The same without it waits.
      const other = opened(2, ['wp']);
      other.view.fill(1);
      other.registration.writeProtect(0, 2 * PAGE);
      const writing = new Toucher(other.view).write(PAGE, 2);
      const { wp } = await nextFault(other.uffd);
      const blocked = await waits(writing);
      other.uffd.close();
      return { features: uffd.features, protect, written, quiet, wp, blocked, after: await writing };
    });
    assert.deepEqual(found, {
      features: ['WP_UNPOPULATED', 'WP_ASYNC'],
      protect: { byteLength: 2 * PAGE, error: null },
      written: 2,
      quiet: true,
      wp: true,
      blocked: true,
      after: 2,
    });
  });
});
