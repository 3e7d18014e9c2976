import { addon, PAGE_SIZE } from '../../lib/kernel/addon.js';

/** The verbs of the low-level door, each with arguments of the right types, for the test that tries wrong ones. */
export function userfaultfdVerbs(): Record<string, unknown[]> {
  const view = new Uint8Array(addon().allocate(PAGE_SIZE, false));
  const inPlace = [1, 1, view, 0, PAGE_SIZE, 0];
  const fromSource = [1, 1, view, 0, view, 0];
  return {
    uffdOpen: [true, true, 0, false, false],
    uffdOffered: [true, true],
    uffdClose: [1],
    uffdRegister: [1, view, 1],
    uffdUnregister: [1, 1, view],
    uffdForget: [1, 1],
    uffdRanges: [1],
    uffdWake: inPlace,
    uffdZeropage: inPlace,
    uffdWriteProtect: inPlace,
    uffdContinue: inPlace,
    uffdPoison: inPlace,
    uffdCopy: fromSource,
    uffdMove: fromSource,
    uffdListen: [1, () => {}],
    uffdKeepAlive: [1, true],
    uffdTake: [1],
    uffdMapTwice: [PAGE_SIZE, false],
    uffdRemap: [view, view],
    uffdRenew: [view],
    uffdFork: [view],
    uffdReap: [1],
  };
}
