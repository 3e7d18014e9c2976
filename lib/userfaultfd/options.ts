import { FEATURES, MODES, toBits, type UserfaultfdFeature, type UserfaultfdMode } from '../kernel/userfaultfd-header.js';
import { isBoolean, isOptions, oneOf, option } from '../options.js';

export interface UserfaultfdOptions {
  /** `'device'`: /dev/userfaultfd, whose file permission decides; `'syscall'`: userfaultfd(2). Default: the device, and the system call where that cannot be opened. */
  via?: 'device' | 'syscall';
  /** `UFFD_USER_MODE_ONLY`: a fault of the kernel (`read(2)` into a missing page) is EFAULT instead of an event. Needs no privilege. Default: false. */
  userModeOnly?: boolean;
  /** What the kernel shall do. One that it does not have is an error. Default: none. */
  features?: readonly UserfaultfdFeature[];
  /** With `EVENT_FORK`: `'close'` the child's descriptor, so that what is missing reads as zero there, or `'keep'` it for the event. Default: `'close'`. */
  forks?: 'close' | 'keep';
  /**
   * What becomes of pages that are still missing at `close()`, at the end of the thread, or when the object is collected. `'zero'`: what the kernel does, threads that wait read zeros.
   * `'poison'`: they get SIGBUS, system calls EFAULT; needs and switches on `POISON`. Default: `'zero'`.
   */
  whenClosed?: 'zero' | 'poison';
}

/** @internal */
export interface CheckedOptions {
  via: 'device' | 'syscall' | undefined;
  userModeOnly: boolean;
  features: number;
  keepForks: boolean;
  poisonAtClose: boolean;
}

/** @internal */
export function checkOptions(options: UserfaultfdOptions): CheckedOptions {
  isOptions('Userfaultfd.open', options, ['via', 'userModeOnly', 'features', 'forks', 'whenClosed']);
  const poisonAtClose = option(options.whenClosed, (value) => oneOf('whenClosed', value, ['zero', 'poison'])) === 'poison';
  const features = names('features', options.features ?? [], FEATURES);
  return {
    via: option(options.via, (value) => oneOf('via', value, ['device', 'syscall'])),
    userModeOnly: option(options.userModeOnly, (value) => isBoolean('userModeOnly', value)) ?? false,
    features: poisonAtClose ? features | toBits(['POISON'], FEATURES) : features,
    keepForks: option(options.forks, (value) => oneOf('forks', value, ['close', 'keep'])) === 'keep',
    poisonAtClose,
  };
}

export interface RegisterOptions {
  /** Which faults become events; at least one. */
  modes: readonly UserfaultfdMode[];
  /** Of a source that is not a view. Bytes, a multiple of the page. Default: 0. */
  byteOffset?: number;
  /** Bytes, a multiple of the page. Default: to the end. */
  byteLength?: number;
}

/** @internal The modes as bits. */
export function checkRegister(options: RegisterOptions): number {
  isOptions('register', options, ['modes', 'byteOffset', 'byteLength']);
  const modes = names('modes', options.modes, MODES);
  if (modes === 0) throw new RangeError('modes must name at least one');
  return modes;
}

function names<T extends string>(what: string, value: unknown, all: readonly T[]): number {
  if (!Array.isArray(value)) throw new TypeError(`${what} must be an array`);
  return toBits(
    value.map((name: unknown) => oneOf(`${what}: ${String(name)}`, name, all)),
    all,
  );
}

/** @internal A mode of an ioctl: the bits of the flags that are true. */
export function flags(verb: string, options: object, bits: Readonly<Record<string, number>>): number {
  isOptions(verb, options, Object.keys(bits));
  let mode = 0;
  for (const [name, value] of Object.entries(options)) if (value !== undefined && isBoolean(name, value)) mode |= bits[name]!;
  return mode;
}
