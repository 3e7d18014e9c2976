import { EVENT, PAGEFAULT } from '../kernel/userfaultfd-header.js';
import type { Registration } from './registration.js';
import type { Userfaultfd } from './userfaultfd.js';

/** Which bytes an event is about. */
export interface EventPlace {
  /** Undefined for memory that no registration of this object knows, as after `mremap(2)` to elsewhere; the offset is 0 then. */
  readonly registration: Registration | undefined;
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** `UFFD_EVENT_PAGEFAULT`: a thread waits for a page. `byteOffset` and `byteLength` are those of the page. */
export interface PagefaultEvent extends EventPlace {
  readonly type: 'pagefault';
  /** `UFFD_PAGEFAULT_FLAG_WRITE`: it wanted to write. */
  readonly write: boolean;
  /** `UFFD_PAGEFAULT_FLAG_WP`: the page is write-protected. */
  readonly wp: boolean;
  /** `UFFD_PAGEFAULT_FLAG_MINOR`: shared memory has the page, this mapping does not. Neither `wp` nor `minor`: it is missing. */
  readonly minor: boolean;
  /** The kernel's number of the thread, with `THREAD_ID`; else undefined. */
  readonly threadId: number | undefined;
  /** Which byte was touched, with `EXACT_ADDRESS`; else undefined. */
  readonly exactByteOffset: number | undefined;
}

/** `UFFD_EVENT_FORK`: the process has forked. */
export interface ForkEvent {
  readonly type: 'fork';
  /** Serves the faults of the child, with registrations as the parent had them; to be closed. Undefined unless opened with `forks: 'keep'`: its descriptor was closed. */
  readonly child: Userfaultfd | undefined;
}

/** `UFFD_EVENT_REMAP`: `mremap(2)` has moved these pages. */
export interface RemapEvent extends EventPlace {
  readonly type: 'remap';
  /** Where to, if that is memory of a registration. */
  readonly to: { readonly registration: Registration; readonly byteOffset: number } | undefined;
}

/** `UFFD_EVENT_REMOVE`: `madvise(2)` drops these pages (`MADV_DONTNEED`, `MADV_REMOVE`): they are missing now, whatever was there. */
export interface RemoveEvent extends EventPlace {
  readonly type: 'remove';
}

/** `UFFD_EVENT_UNMAP`: the memory is unmapped, and not registered any more. */
export interface UnmapEvent extends EventPlace {
  readonly type: 'unmap';
}

export type UserfaultfdEvent = PagefaultEvent | ForkEvent | RemapEvent | RemoveEvent | UnmapEvent;

/** @internal What numbers stand for. */
export interface Directory {
  /** Undefined for one that was unregistered meanwhile. */
  registration(id: number): Registration | undefined;
  child(id: number): Userfaultfd;
  threadIds: boolean;
  exact: boolean;
}

const FIELDS = 10;

/** @internal Events as native code gives them; those about memory that was unregistered meanwhile are left out: the kernel has woken who waited. */
export function* decode(flat: Float64Array, directory: Directory): Generator<UserfaultfdEvent> {
  for (let at = 0; at < flat.length; at += FIELDS) {
    const event = decodeOne(flat.subarray(at, at + FIELDS), directory);
    if (event !== undefined) yield event;
  }
}

function decodeOne(fields: Float64Array, directory: Directory): UserfaultfdEvent | undefined {
  const [type, flags, thread, range, byteOffset, byteLength, exact, toRange, toOffset, child] = fields as unknown as number[];
  if (type === EVENT.FORK) return { type: 'fork', child: child === 0 ? undefined : directory.child(child!) };
  const registration = directory.registration(range!);
  if (range !== 0 && registration === undefined) return undefined;
  const place = { registration, byteOffset: byteOffset!, byteLength: byteLength! };
  if (type === EVENT.REMOVE) return { type: 'remove', ...place };
  if (type === EVENT.UNMAP) return { type: 'unmap', ...place };
  if (type === EVENT.REMAP) {
    const target = directory.registration(toRange!);
    return { type: 'remap', ...place, to: target === undefined ? undefined : { registration: target, byteOffset: toOffset! } };
  }
  return {
    type: 'pagefault',
    ...place,
    write: (flags! & PAGEFAULT.WRITE) !== 0,
    wp: (flags! & PAGEFAULT.WP) !== 0,
    minor: (flags! & PAGEFAULT.MINOR) !== 0,
    threadId: directory.threadIds ? thread : undefined,
    exactByteOffset: directory.exact && registration !== undefined ? exact : undefined,
  };
}
