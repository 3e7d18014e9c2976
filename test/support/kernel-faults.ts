import assert from 'node:assert/strict';
import { capabilities } from '../../lib/index.js';

/** How memory is restored lazily here by tests that touch it from JavaScript only. */
export const LAZY = capabilities().kernelFaults ? true : 'user-faults';

/**
 * `describe` for tests that hand missing pages to system calls. Where this user has no userfaultfd that serves faults of the kernel, one test says so in their place:
 * none may be skipped in silence.
 */
export function describeWithKernelFaults(title: string, body: () => void): void {
  describe(title, () => {
    if (capabilities().kernelFaults) return body();
    it('is not run: this user may not serve faults from inside the kernel', () => {
      const { descriptor, tracking } = capabilities();
      assert.deepEqual({ descriptor, tracking }, { descriptor: 'syscall-user-mode', tracking: true });
    });
  });
}
