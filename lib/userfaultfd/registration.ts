import { TidemarkError } from '../errors.js';
import { type Addon, addon, type UffdOutcome, type UffdRange } from '../kernel/addon.js';
import {
  CONTINUE_WP,
  COPY_WP,
  DONTWAKE,
  fromBits,
  ioctlsOf,
  MODES,
  MOVE_ALLOW_SRC_HOLES,
  type UserfaultfdIoctl,
  type UserfaultfdMode,
  WRITEPROTECT_DONTWAKE,
  WRITEPROTECT_WP,
} from '../kernel/userfaultfd-header.js';
import { isNumber } from '../options.js';
import { translating } from './errors.js';
import { type Memory, present } from './memory.js';
import { flags } from './options.js';
import type { Userfaultfd } from './userfaultfd.js';

/**
 * What one ioctl did: never repeated here, so that whoever serves faults stays in charge. `byteLength`: bytes done, from the beginning. `error`: why not all of them
 * (`'EEXIST'`: the next page is there already, `'EAGAIN'`: it stopped, or an event is waiting to be read; try what is left again), null when all is done.
 */
export type Outcome = Readonly<UffdOutcome>;

export interface WakeOption {
  /** `MODE_DONTWAKE`: threads that wait for these pages go on waiting, for `wake`. Default: false. */
  dontWake?: boolean;
}
export interface CopyOptions extends WakeOption {
  /** `MODE_WP`: the pages are write-protected in the same step. Needs a registration with `'wp'`. Default: false. */
  wp?: boolean;
}
export interface MoveOptions extends WakeOption {
  /** `MODE_ALLOW_SRC_HOLES`: missing pages of the source are passed over instead of ENOENT. Default: false. */
  allowSrcHoles?: boolean;
}
export interface WriteProtectOptions extends WakeOption {
  /** `MODE_WP`; false takes the protection off and wakes who waits for that. Default: true. */
  wp?: boolean;
}

const NONE = new Uint8Array(0);

type InPlace = 'uffdWake' | 'uffdZeropage' | 'uffdWriteProtect' | 'uffdContinue' | 'uffdPoison';

/**
 * Memory that is registered with a {@link Userfaultfd}, and the ioctls on it. Offsets and lengths are bytes from its start, multiples of `pageSize`; what lies outside is a
 * RangeError before the kernel is asked. All of them throw `TIDEMARK_CLOSED`, and `TIDEMARK_TRACKING_LOST` when the buffer was detached, transferred or shrunk.
 */
export class Registration {
  readonly #userfaultfd: Userfaultfd;
  readonly #object: number;
  readonly #id: number;
  /** Undefined for memory of a forked process. */
  readonly #memory: Memory | undefined;
  readonly #forget: () => void;
  #known: UffdRange;

  /** @internal */
  constructor(userfaultfd: Userfaultfd, object: number, known: UffdRange, memory: Memory | undefined, forget: () => void) {
    this.#userfaultfd = userfaultfd;
    this.#object = object;
    this.#id = known.range;
    this.#known = known;
    this.#memory = memory;
    this.#forget = forget;
  }

  /** @internal The same memory was registered again. */
  update(known: UffdRange): void {
    this.#known = known;
  }

  /** @internal The buffer is detached or too small: nothing can be done with the registration any more. */
  get lost(): boolean {
    return this.#memory !== undefined && this.#memory.view() === undefined;
  }

  /** @internal */
  get nativeId(): number {
    return this.#id;
  }

  get userfaultfd(): Userfaultfd {
    return this.#userfaultfd;
  }

  get modes(): readonly UserfaultfdMode[] {
    return fromBits(this.#known.mode, MODES);
  }

  /** The ioctls that the kernel takes for this memory. */
  get ioctls(): readonly UserfaultfdIoctl[] {
    return ioctlsOf(this.#known.ioctls);
  }

  /** Bytes. */
  get byteLength(): number {
    return this.#known.byteLength;
  }

  /** Bytes that one fault is about: the host's page, in hugetlbfs that of the mapping. */
  get pageSize(): number {
    return this.#known.pageSize;
  }

  /**
   * The memory as it is now. Reading a page that is missing blocks the thread until it is served.
   * @throws {TidemarkError} `TIDEMARK_TRACKING_LOST`; `TIDEMARK_NOT_FOUND` for memory of a forked process
   */
  get bytes(): Uint8Array {
    if (this.#memory === undefined) throw new TidemarkError('TIDEMARK_NOT_FOUND', 'the memory is in another process');
    return present(this.#memory);
  }

  /** `UFFDIO_COPY`: puts `source` (whole pages, any alignment, not missing itself) into missing pages. */
  copy(byteOffset: number, source: Uint8Array, options: CopyOptions = {}): Outcome {
    return this.#fill('uffdCopy', byteOffset, source, flags('copy', options, { dontWake: DONTWAKE, wp: COPY_WP }));
  }

  /** `UFFDIO_MOVE`: the pages of `source`, which begins at a page, become those of the registration; `source` is zero afterwards. Private memory only. */
  move(byteOffset: number, source: Uint8Array, options: MoveOptions = {}): Outcome {
    const mode = flags('move', options, { dontWake: DONTWAKE, allowSrcHoles: MOVE_ALLOW_SRC_HOLES });
    return this.#fill('uffdMove', byteOffset, source, mode);
  }

  /** `UFFDIO_ZEROPAGE`: missing pages become zero. Not in hugetlbfs. */
  zeropage(byteOffset: number, byteLength: number, options: WakeOption = {}): Outcome {
    return this.#change('uffdZeropage', byteOffset, byteLength, flags('zeropage', options, { dontWake: DONTWAKE }));
  }

  /** `UFFDIO_WRITEPROTECT`: the next write to these pages waits for an event to be served; with `WP_ASYNC` it goes on and the kernel notes it. Entirely or not at all. */
  writeProtect(byteOffset: number, byteLength: number, options: WriteProtectOptions = {}): Outcome {
    const mode = flags('writeProtect', { wp: true, ...options }, { wp: WRITEPROTECT_WP, dontWake: WRITEPROTECT_DONTWAKE });
    return this.#change('uffdWriteProtect', byteOffset, byteLength, mode);
  }

  /** `UFFDIO_CONTINUE`: maps what shared memory has there already, after a minor fault. */
  continue(byteOffset: number, byteLength: number, options: CopyOptions = {}): Outcome {
    return this.#change(
      'uffdContinue',
      byteOffset,
      byteLength,
      flags('continue', options, { dontWake: DONTWAKE, wp: CONTINUE_WP }),
    );
  }

  /** `UFFDIO_POISON`: whoever touches these pages, which must be missing, gets SIGBUS; a system call EFAULT. It stays when the descriptor is closed. */
  poison(byteOffset: number, byteLength: number, options: WakeOption = {}): Outcome {
    return this.#change('uffdPoison', byteOffset, byteLength, flags('poison', options, { dontWake: DONTWAKE }));
  }

  /** `UFFDIO_WAKE`: threads that wait for these pages try again. */
  wake(byteOffset: number, byteLength: number): Outcome {
    return this.#change('uffdWake', byteOffset, byteLength, 0);
  }

  /**
   * `UFFDIO_UNREGISTER`: pages that are missing are zero from now on, and who waits for them goes on. Idempotent.
   * @throws {TidemarkError} `TIDEMARK_TRACKING_LOST`
   */
  unregister(): void {
    if (this.userfaultfd.closed || !this.userfaultfd.registrations.includes(this)) return;
    if (this.#memory === undefined) throw new TypeError('memory of a forked process is unregistered by closing its userfaultfd');
    const view = present(this.#memory);
    translating(() => addon().uffdUnregister(this.#object, this.#id, view));
    this.#forget();
  }

  #fill(verb: 'uffdCopy' | 'uffdMove', byteOffset: number, source: Uint8Array, mode: number): Outcome {
    if (!(source instanceof Uint8Array)) throw new TypeError('source must be a Uint8Array');
    this.#within(byteOffset, source.byteLength);
    return this.#ask((native, view) => native[verb](this.#object, this.#id, view, byteOffset, source, mode));
  }

  #change(verb: InPlace, byteOffset: number, byteLength: number, mode: number): Outcome {
    this.#within(byteOffset, byteLength);
    return this.#ask((native, view) => native[verb](this.#object, this.#id, view, byteOffset, byteLength, mode as 0));
  }

  #within(byteOffset: number, byteLength: number): void {
    isNumber('byteOffset', byteOffset, 0, this.byteLength);
    isNumber('byteLength', byteLength, 1, this.byteLength - byteOffset);
  }

  #ask(call: (native: Addon, view: Uint8Array) => UffdOutcome): Outcome {
    if (this.userfaultfd.closed) throw new TidemarkError('TIDEMARK_CLOSED', 'the userfaultfd is closed');
    const view = this.#memory === undefined ? NONE : present(this.#memory);
    return translating(() => call(addon(), view));
  }
}
