import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { TidemarkError } from '../../lib/index.js';
import { capabilities } from '../../lib/kernel/capabilities.js';
import { FEATURES } from '../../lib/kernel/userfaultfd-header.js';
import { Userfaultfd, type UserfaultfdOptions } from '../../lib/userfaultfd/index.js';
import { child } from './support.js';

describe('userfaultfd: opening', () => {
  it('UFFDIO_API: gives the features and ioctls that the kernel has, by each way', () => {
    for (const via of ['device', 'syscall'] as const) {
      for (const userModeOnly of [false, true]) {
        const { features, ioctls } = Userfaultfd.offered({ via, userModeOnly });
        assert.deepEqual(features, capabilities().features);
        assert.deepEqual(ioctls, ['REGISTER', 'UNREGISTER', 'API']);
        const uffd = Userfaultfd.open({ via, userModeOnly, features: ['THREAD_ID'] });
        assert.deepEqual([uffd.via, uffd.userModeOnly, uffd.features], [via, userModeOnly, ['THREAD_ID']]);
        assert.deepEqual(uffd.offered, { features, ioctls });
        uffd.close();
      }
    }
  });

  it('switches every feature on that the kernel has, alone and all together', () => {
    const { features } = Userfaultfd.offered();
    for (const feature of features) {
      const uffd = Userfaultfd.open({ features: [feature] });
      const implied = feature === 'WP_ASYNC' ? ['WP_UNPOPULATED', 'WP_ASYNC'] : [feature];
      assert.deepEqual(uffd.features, implied);
      uffd.close();
    }
    const all = Userfaultfd.open({ features });
    assert.deepEqual(all.features, features);
    all.close();
  });

  it('says of a feature that the kernel does not have that it does not have it', () => {
    const { features } = Userfaultfd.offered();
    for (const feature of FEATURES.filter((name) => !features.includes(name)))
      assert.throws(() => Userfaultfd.open({ features: [feature] }), { code: 'TIDEMARK_KERNEL_UNSUPPORTED' });
  });

  it('takes the device where no way is named, and the system call where that cannot be opened', async () => {
    const uffd = Userfaultfd.open();
    assert.equal(uffd.via, existsSync('/dev/userfaultfd') ? 'device' : 'syscall');
    uffd.close();
    if (process.getuid?.() !== 0) return;
    const found = await child(async ({ Userfaultfd, codeOf }) => {
      process.setgroups!([]);
      process.setgid!(65534);
      process.setuid!(65534);
      return {
        either: Userfaultfd.open({ userModeOnly: true }).via,
        device: codeOf(() => Userfaultfd.open({ via: 'device', userModeOnly: true })),
        privileged: codeOf(() => Userfaultfd.open({ via: 'syscall' })),
        forks: codeOf(() => Userfaultfd.open({ userModeOnly: true, features: ['EVENT_FORK'] })),
      };
    });
    // Where the machine lets everybody (vm.unprivileged_userfaultfd), there is nothing to refuse.
    if (found.privileged !== '') assert.equal(found.privileged, 'TIDEMARK_PERMISSION');
    assert.deepEqual([found.either, found.device, found.forks], ['syscall', 'TIDEMARK_PERMISSION', 'TIDEMARK_PERMISSION']);
  });

  it('UFFD_USER_MODE_ONLY: a fault of the kernel is EFAULT; without it, an event', async () => {
    const found = await child(async ({ opened, Toucher, nextFault, filled, PAGE }) => {
      const results: unknown[] = [];
      for (const via of ['device', 'syscall'] as const) {
        const only = opened(4, ['missing'], { via, userModeOnly: true });
        const careful = new Toucher(only.view);
        results.push(await careful.kernel(PAGE));
        // The program's own faults are served as ever.
        const read = careful.read(PAGE);
        await nextFault(only.uffd);
        only.registration.copy(PAGE, filled(5));
        results.push(await read);

        const { uffd, view, registration } = opened(4, ['missing'], { via });
        const toucher = new Toucher(view);
        const reading = toucher.kernel(PAGE);
        const { byteOffset, write } = await nextFault(uffd);
        registration.copy(byteOffset, filled(0));
        results.push(write, await reading);
      }
      return results;
    });
    assert.deepEqual(found, ['EFAULT', 5, true, 1, 'EFAULT', 5, true, 1]);
  });

  it('refuses misuse', () => {
    const wrong: [object, typeof TypeError | typeof RangeError][] = [
      [{ way: 'device' }, TypeError],
      [{ via: 'file' }, TypeError],
      [{ userModeOnly: 1 }, TypeError],
      [{ features: 'POISON' }, TypeError],
      [{ features: ['POISONS'] }, TypeError],
      [{ forks: true }, TypeError],
      [{ whenClosed: 'never' }, TypeError],
    ];
    for (const [options, error] of wrong) assert.throws(() => Userfaultfd.open(options as UserfaultfdOptions), error);
    assert.throws(() => Userfaultfd.offered({ forks: 'keep' } as object), TypeError);
    const uffd = Userfaultfd.open();
    uffd.close();
    uffd.close();
    const closed = (error: unknown) => error instanceof TidemarkError && error.code === 'TIDEMARK_CLOSED';
    assert.throws(() => uffd.register(new Uint8Array(4096), { modes: ['missing'] }), closed);
  });
});
