/** As consumer.ts, of `tidemark/userfaultfd`. */
import {
  type CopyOptions,
  type EventPlace,
  type ForkEvent,
  type MoveOptions,
  type Offered,
  type Outcome,
  type PagefaultEvent,
  type RegisterOptions,
  type Registration,
  type RemapEvent,
  type RemoveEvent,
  type UnmapEvent,
  Userfaultfd,
  type UserfaultfdEvent,
  type UserfaultfdFeature,
  type UserfaultfdIoctl,
  type UserfaultfdMode,
  type UserfaultfdOptions,
  type WakeOption,
  type WriteProtectOptions,
} from 'tidemark/userfaultfd';

/** Fails to compile when the types are not the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(_: Same<A, B>): void {}

const options: UserfaultfdOptions = {
  via: 'device',
  userModeOnly: false,
  features: ['EVENT_REMOVE', 'POISON'],
  forks: 'keep',
  whenClosed: 'poison',
};
const uffd: Userfaultfd = Userfaultfd.open(options);
Userfaultfd.open();
const offered: Offered = Userfaultfd.offered({ via: 'syscall', userModeOnly: true });
const features: readonly UserfaultfdFeature[] = offered.features;
Userfaultfd.open({ features });
// @ts-expect-error no such feature
Userfaultfd.open({ features: ['POISONED'] });
// @ts-expect-error no such option
Userfaultfd.open({ poison: true });
// @ts-expect-error opened, not made
new Userfaultfd();
// @ts-expect-error read only
uffd.closed = true;

const modes: UserfaultfdMode[] = ['missing', 'wp', 'minor'];
const register: RegisterOptions = { modes, byteOffset: 0, byteLength: 4096 };
declare const memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
const registration: Registration = uffd.register(memory, register);
uffd.register(new SharedArrayBuffer(1), { modes: ['missing'] });
uffd.register(new Uint8Array(1), { modes: ['missing'] });
// @ts-expect-error modes are needed
uffd.register(new Uint8Array(1), {});
// @ts-expect-error no such mode
uffd.register(new Uint8Array(1), { modes: ['lost'] });
// @ts-expect-error not memory
uffd.register('memory', { modes: ['missing'] });
const ioctls: readonly UserfaultfdIoctl[] = registration.ioctls;
void [ioctls, registration.modes, registration.pageSize, registration.byteLength, registration.bytes.length, uffd.registrations];
// @ts-expect-error internal
void registration.nativeId;

const source = new Uint8Array(4096);
const wake: WakeOption = { dontWake: true };
const copy: CopyOptions = { ...wake, wp: true };
const move: MoveOptions = { ...wake, allowSrcHoles: true };
const protect: WriteProtectOptions = { wp: false };
const outcomes: Outcome[] = [
  registration.copy(0, source, copy),
  registration.move(0, source, move),
  registration.zeropage(0, 4096, wake),
  registration.writeProtect(0, 4096, protect),
  registration.continue(0, 4096, copy),
  registration.poison(0, 4096),
  registration.wake(0, 4096),
];
for (const { byteLength, error } of outcomes) void (error === null ? byteLength : error.length);
// @ts-expect-error a length is needed
registration.zeropage(0);
// @ts-expect-error no such option
registration.poison(0, 4096, { wp: true });
// @ts-expect-error the source is bytes
registration.copy(0, new Float64Array(512));

for await (const event of uffd) {
  same<typeof event, UserfaultfdEvent>(true);
  if (event.type === 'pagefault') {
    const fault: PagefaultEvent = event;
    event.registration?.copy(event.byteOffset, source);
    void [fault.write, fault.wp, fault.minor, fault.threadId, fault.exactByteOffset];
  } else if (event.type === 'fork') {
    const fork: ForkEvent = event;
    fork.child?.close();
  } else if (event.type === 'remap') {
    const remap: RemapEvent = event;
    void remap.to?.registration;
  } else {
    same<typeof event, RemoveEvent | UnmapEvent>(true);
    const place: EventPlace = event;
    void place.byteLength;
  }
}
const iterator = uffd.events();
void (await iterator.next()).done;
const disposable: Disposable = uffd;
disposable[Symbol.dispose]();
registration.unregister();
uffd.close();
