import { TidemarkError } from '../errors.js';
import { addon, type UffdOpened } from '../kernel/addon.js';
import {
  FEATURES,
  featuresOf,
  fromBits,
  ioctlsOf,
  toBits,
  type UserfaultfdFeature,
  type UserfaultfdIoctl,
} from '../kernel/userfaultfd-header.js';
import { isBoolean, isOptions, oneOf, option } from '../options.js';
import type { RegionSource } from '../region/source.js';
import { translated, translating } from './errors.js';
import { type Directory, decode, type UserfaultfdEvent } from './events.js';
import { memoryOf, present } from './memory.js';
import { type CheckedOptions, checkOptions, checkRegister, type RegisterOptions, type UserfaultfdOptions } from './options.js';
import { Queue } from './queue.js';
import { Registration } from './registration.js';

/** What a kernel has. */
export interface Offered {
  readonly features: readonly UserfaultfdFeature[];
  readonly ioctls: readonly UserfaultfdIoctl[];
}

interface Made {
  opened: UffdOpened;
  checked: CheckedOptions;
  via: 'device' | 'syscall';
  child: boolean;
}

const BLOCKING = toBits(['EVENT_FORK', 'EVENT_REMAP', 'EVENT_REMOVE', 'EVENT_UNMAP'], FEATURES);
const WP_ASYNC = toBits(['WP_ASYNC'], FEATURES);
const WP_UNPOPULATED = toBits(['WP_UNPOPULATED'], FEATURES);

/** Of this thread. */
const open = new Set<number>();
const finalizer = new FinalizationRegistry<number>((id) => {
  open.delete(id);
  addon().uffdClose(id);
});
/** Those that somebody waits for: only native code refers to them otherwise. */
const awaited = new Set<Userfaultfd>();
let watchingExit = false;

/**
 * A `userfaultfd(2)`: the whole of linux/userfaultfd.h (Linux 6.8), typed, without addresses. docs/userfaultfd.md has every entry, and what is dangerous: **a page that is missing and
 * that nobody serves blocks the thread that touches it for ever**, so memory must be touched by other threads than the one that serves it.
 *
 * It belongs to the thread that made it, and is to be kept: when it is collected, it is closed.
 */
export class Userfaultfd {
  /** How the descriptor was had. */
  readonly via: 'device' | 'syscall';
  readonly userModeOnly: boolean;
  /** Switched on. */
  readonly features: readonly UserfaultfdFeature[];
  /** All that the kernel has. */
  readonly offered: Offered;
  readonly #id: number;
  readonly #checked: CheckedOptions;
  readonly #child: boolean;
  readonly #registrations = new Map<number, Registration>();
  readonly #events: Queue<UserfaultfdEvent>;
  #listening = false;
  #closed = false;

  private constructor({ opened, checked, via, child }: Made) {
    this.#id = opened.id;
    this.#checked = checked;
    this.#child = child;
    this.via = via;
    this.userModeOnly = checked.userModeOnly;
    // The kernel switches that on by itself.
    const implied = (checked.features & WP_ASYNC) === 0 ? 0 : WP_UNPOPULATED;
    this.features = fromBits(checked.features | implied, FEATURES);
    this.offered = Object.freeze({ features: featuresOf(opened.features), ioctls: ioctlsOf(opened.ioctls) });
    this.#events = new Queue((waiting) => this.#keepAlive(waiting));
    finalizer.register(this, this.#id, this);
    open.add(this.#id);
    closeAtExit();
  }

  /**
   * Opens a descriptor and switches `features` on.
   * @throws {TidemarkError} `TIDEMARK_PERMISSION` where the way is not allowed, or `EVENT_FORK` without CAP_SYS_PTRACE; `TIDEMARK_KERNEL_UNSUPPORTED` for a feature that the kernel does not have
   */
  static open(options: UserfaultfdOptions = {}): Userfaultfd {
    const checked = checkOptions(options);
    const { via, value } = firstWay(checked.via, (device) =>
      addon().uffdOpen(device, checked.userModeOnly, checked.features, checked.keepForks, checked.poisonAtClose),
    );
    return new Userfaultfd({ opened: value, checked, via, child: false });
  }

  /** What the kernel has, asked by a descriptor that is thrown away. @throws {TidemarkError} `TIDEMARK_PERMISSION`, `TIDEMARK_KERNEL_UNSUPPORTED` */
  static offered(options: Pick<UserfaultfdOptions, 'via' | 'userModeOnly'> = {}): Offered {
    isOptions('Userfaultfd.offered', options, ['via', 'userModeOnly']);
    const way = option(options.via, (value) => oneOf('via', value, ['device', 'syscall']));
    const userModeOnly = option(options.userModeOnly, (value) => isBoolean('userModeOnly', value)) ?? false;
    const { value } = firstWay(way, (device) => addon().uffdOffered(device, userModeOnly));
    return Object.freeze({ features: featuresOf(value.features), ioctls: ioctlsOf(value.ioctls) });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** What is registered. */
  get registrations(): readonly Registration[] {
    return [...this.#registrations.values()];
  }

  /**
   * `UFFDIO_REGISTER`: faults in this memory become events (or what the features say). It must be kept where it is until it is unregistered: not transferred, not resized below. The same memory
   * again changes the modes of its registration: modes that it has all of already change nothing, others replace what it had.
   * @throws {TidemarkError} `TIDEMARK_UNALIGNED`; `TIDEMARK_REGION_BUSY` when another userfaultfd has it; `TIDEMARK_KERNEL_UNSUPPORTED` for memory or modes that the kernel refuses; `TIDEMARK_CLOSED`
   */
  register(memory: RegionSource, options: RegisterOptions): Registration {
    this.#mustBeOpen();
    const mode = checkRegister(options);
    const range = memoryOf(memory, options);
    this.#forgetLost();
    // Whoever drops or moves registered memory waits until that is read.
    if ((this.#checked.features & BLOCKING) !== 0) this.#listen();
    const view = present(range);
    const known = translating(() => addon().uffdRegister(this.#id, view, mode));
    const before = this.#registrations.get(known.range);
    if (before !== undefined) {
      before.update(known);
      return before;
    }
    const registration = new Registration(this, this.#id, known, range, () => this.#registrations.delete(known.range));
    this.#registrations.set(known.range, registration);
    return registration;
  }

  /**
   * Events in the order in which a thread of its own reads them; each goes to one iterator. The queue has no bound, for what is not read blocks who caused it: it holds at most one fault of each
   * thread that waits, and one event for each `fork`, `mremap`, `madvise` and `munmap` since this thread was last in its event loop. Waiting for an event keeps the process alive;
   * `close()` ends the iteration and drops what was not taken.
   */
  events(): AsyncIterableIterator<UserfaultfdEvent, undefined> {
    if (!this.#closed) this.#listen();
    return this.#events.iterate();
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<UserfaultfdEvent, undefined> {
    return this.events();
  }

  /**
   * Closes the descriptor and with it all registrations: threads that wait go on, and what is missing is zero from then on, or poisoned (`whenClosed`). Memory stays. Idempotent.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    finalizer.unregister(this);
    open.delete(this.#id);
    this.#registrations.clear();
    for (const event of this.#events.close()) if (event.type === 'fork') event.child?.close();
    addon().uffdClose(this.#id);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #mustBeOpen(): void {
    if (this.#closed) throw new TidemarkError('TIDEMARK_CLOSED', 'the userfaultfd is closed');
    if (this.#child) throw new TypeError('the userfaultfd of a fork has what its parent had registered, and nothing else');
  }

  /** Memory whose buffer is gone may lie where new memory is now. */
  #forgetLost(): void {
    for (const [id, registration] of this.#registrations) {
      if (!registration.lost) continue;
      addon().uffdForget(this.#id, id);
      this.#registrations.delete(id);
    }
  }

  #listen(): void {
    if (this.#listening) return;
    const callback = Userfaultfd.#notifier(new WeakRef(this));
    translating(() => addon().uffdListen(this.#id, callback));
    this.#listening = true;
  }

  /** Native code holds it: made where `this` is not, for the object could never be collected otherwise. */
  static #notifier(self: WeakRef<Userfaultfd>): () => void {
    return () => {
      const uffd = self.deref();
      if (uffd !== undefined) uffd.#drain();
    };
  }

  #drain(): void {
    if (this.#closed) return;
    const directory: Directory = {
      registration: (id) => this.#registrations.get(id),
      child: (id) => this.#adopt(id),
      threadIds: this.features.includes('THREAD_ID'),
      exact: this.features.includes('EXACT_ADDRESS'),
    };
    for (const event of decode(addon().uffdTake(this.#id), directory)) this.#events.put(event);
  }

  #adopt(id: number): Userfaultfd {
    const opened = { id, features: [], ioctls: [] };
    const child = new Userfaultfd({ opened, checked: this.#checked, via: this.via, child: true });
    for (const known of addon().uffdRanges(id))
      child.#registrations.set(known.range, new Registration(child, id, known, undefined, () => {}));
    return child;
  }

  #keepAlive(on: boolean): void {
    if (on) awaited.add(this);
    else awaited.delete(this);
    if (!this.#closed) addon().uffdKeepAlive(this.#id, on);
  }
}

/** By the way that is asked for, or by the first that can be had. */
function firstWay<T>(
  asked: 'device' | 'syscall' | undefined,
  attempt: (device: boolean) => T,
): { via: 'device' | 'syscall'; value: T } {
  if (asked !== undefined) return { via: asked, value: translating(() => attempt(asked === 'device')) };
  try {
    return { via: 'device', value: attempt(true) };
  } catch (error) {
    // The device is not there or not ours: the other way. What it says of features, the system call would say, too.
    if ((error as { syscall?: string }).syscall !== 'open') throw translated(error);
  }
  return { via: 'syscall', value: translating(() => attempt(false)) };
}

/**
 * `process.exit()` waits for worker threads, and one that waits for a page waits for ever where nobody serves it. Native hooks of the environment run after that, so this is done before.
 */
function closeAtExit(): void {
  if (watchingExit) return;
  watchingExit = true;
  process.on('exit', () => {
    for (const id of open) addon().uffdClose(id);
    open.clear();
  });
}
