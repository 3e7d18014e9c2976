/** The low-level door: linux/userfaultfd.h for JavaScript. `docs/userfaultfd.md`. */

export type { UserfaultfdFeature, UserfaultfdIoctl, UserfaultfdMode } from '../kernel/userfaultfd-header.js';
export type {
  EventPlace,
  ForkEvent,
  PagefaultEvent,
  RemapEvent,
  RemoveEvent,
  UnmapEvent,
  UserfaultfdEvent,
} from './events.js';
export type { RegisterOptions, UserfaultfdOptions } from './options.js';
export type { CopyOptions, MoveOptions, Outcome, Registration, WakeOption, WriteProtectOptions } from './registration.js';
export { type Offered, Userfaultfd } from './userfaultfd.js';
