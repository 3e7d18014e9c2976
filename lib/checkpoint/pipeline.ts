import type { Checkpoint, CheckpointAttachment } from '../chain/header.js';
import type { Engine, SessionListener } from '../engine/engine.js';
import type { StorageEvent, Ticket } from '../engine/protocol.js';
import { abortedBy, fromPlain, TidemarkError } from '../errors.js';
import { Ahead } from './ahead.js';
import { compareAttachments } from './attachments.js';
import { type Capture, capture, captureError, giveBack, type RegionInput, type Scanned } from './capture.js';
import { now } from './clock.js';
import type { Member, Members } from './members.js';
import type { CheckedCheckpoint } from './options.js';
import { Tally } from './tally.js';

/** A checkpoint that was captured and is not settled. */
interface InFlight {
  readonly ticket: Ticket;
  /** What was taken of the regions, to be given back if it fails. */
  readonly scanned: readonly Scanned[];
  readonly members: readonly Member[];
  /** Those of which everything was taken: they are fresh again if it fails. */
  readonly fresh: readonly Member[];
  /** What the next capture is compared with. */
  readonly sizes: ReadonlyMap<string, number>;
  readonly attachments: Readonly<Record<string, CheckpointAttachment>>;
  readonly signal: AbortSignal | undefined;
  promise: Promise<Checkpoint>;
  resolve(checkpoint: Checkpoint): void;
  reject(error: TidemarkError): void;
}

interface PipelineOptions {
  engine: Engine;
  session: number;
  branch: string;
  level: number;
  startOver: boolean;
  head: Checkpoint | undefined;
  base: Checkpoint | undefined;
}

/**
 * The caller's half of a checkpointer: what its memory descends from, what is captured and not settled, what was taken ahead. Whatever fails is given
 * back to the kernel here.
 */
export class Pipeline implements SessionListener {
  readonly members: Members;
  readonly tally = new Tally();
  /** The newest checkpoint of the branch. */
  head: Checkpoint | undefined;
  /** The newest committed checkpoint that the memory descends from. */
  base: Checkpoint | undefined;
  /** Why nothing can be asked of the storage thread any more. */
  lostBy: TidemarkError | undefined;
  /** It has ended. */
  storageEnded = false;
  onProgress: ((donePages: number, totalPages: number) => void) | undefined;
  /** Told when all pages of the lazy restore that is under way are there, or some cannot be had. */
  onResident: ((error: TidemarkError | undefined) => void) | undefined;
  readonly #engine: Engine;
  readonly #session: number;
  readonly #branch: string;
  readonly #level: number;
  #startOver: boolean;
  #generation = 0;
  #sequence = 0;
  readonly #inFlight: InFlight[] = [];
  #ahead: Ahead | undefined;
  /** What a precopy that is under way is to fail with. */
  #aheadFailure: TidemarkError | undefined;
  /** Settles when the precopies called so far have: they take turns. */
  #precopied: Promise<unknown> = Promise.resolve();
  /** How often somebody has ended the precopies called until then. */
  #ends = 0;

  constructor(members: Members, options: PipelineOptions) {
    this.members = members;
    this.#engine = options.engine;
    this.#session = options.session;
    this.#branch = options.branch;
    this.#level = options.level;
    this.#startOver = options.startOver;
    this.head = options.head;
    this.base = options.base;
  }

  get inFlight(): number {
    return this.#inFlight.length;
  }

  // --- capture ------------------------------------------------------------------------------------------

  /** Captures now; the promise is settled by the storage thread's answer. @throws what keeps it from being captured */
  begin(checked: CheckedCheckpoint): Promise<Checkpoint> {
    const { signal, durability, info } = checked;
    if (signal?.aborted) throw abortedBy(signal, 'the checkpoint');
    const full = this.#checkCapture();
    const started = performance.now();
    const known = this.#newest();
    const attachments = compareAttachments(checked.attachments, known?.attachments ?? {}, () => this.members.nextSlot());
    // What its round has scanned and not copied goes back to the kernel, where the scan finds it.
    this.endAhead();
    const ahead = this.#ahead;
    this.#ahead = undefined;
    const ticket = ahead?.ticket ?? this.#nextTicket();
    const members = this.members.all;
    const fresh = members.filter((member) => member.fresh);
    const inputs = members.map((member) => this.#input(member, full, ahead, checked));
    let captured: Capture | undefined;
    const wanted = (scanned: readonly Scanned[]): boolean =>
      !checked.ifChanged ||
      ahead?.isEmpty === false ||
      info.label !== undefined ||
      known === undefined ||
      fresh.length > 0 ||
      scanned.some(({ runs }) => runs.length > 0) ||
      !sameSizes(sizesOf(members), known.sizes) ||
      attachments.length !== Object.keys(known.attachments).length ||
      attachments.some(({ unchanged }) => !unchanged);
    try {
      captured = capture(this.#engine, inputs, attachments, { ...ticket, level: this.#level }, wanted);
    } catch (error) {
      ahead?.drop();
      this.#engine.tell({ type: 'dropped', ...ticket });
      for (const { shadow } of members) shadow?.drop(ticket.sequence);
      throw error;
    }
    if (captured === undefined) {
      this.#ahead = ahead;
      return this.#unchanged(durability);
    }
    const captureMs = performance.now() - started;
    this.tally.captured(captureMs);
    for (const member of members) member.fresh = false;
    const { regions } = captured;
    this.#engine.tell({
      type: 'captured',
      ...ticket,
      full,
      sync: durability === 'sync',
      createdAt: Date.now(),
      capturedAt: now(),
      info: { ...info, captureMs },
      regions,
      attachments: captured.attachments,
    });
    const entry = {
      ticket,
      scanned: [...(ahead?.scanned ?? []), ...captured.scanned],
      members,
      fresh,
      sizes: sizesOf(members),
      attachments: Object.fromEntries(captured.attachments.map(({ name, byteLength, sha256 }) => [name, { byteLength, sha256 }])),
      signal,
    };
    return this.#fly(entry);
  }

  /** @returns whether everything has to be taken, since the memory descends from nothing that is stored */
  #checkCapture(): boolean {
    for (const { name, region } of this.members.all) {
      if (region.torn)
        throw new TidemarkError(
          'TIDEMARK_REGION_TORN',
          `region ${name} holds bytes of two states since a restore failed or lost pages`,
          {
            hint: 'restore a checkpoint first',
          },
        );
    }
    const full = this.base === undefined && this.#inFlight.length === 0;
    if (full && this.head !== undefined && !this.#startOver) {
      throw new TidemarkError(
        'TIDEMARK_NOT_RESTORED',
        `branch ${this.#branch} has history (checkpoint ${this.head.id}) that this memory does not descend from`,
        {
          hint: 'await restore() first, or open with startOver: true to begin anew on this branch',
        },
      );
    }
    return full;
  }

  #nextTicket(): Ticket {
    return { session: this.#session, generation: this.#generation, sequence: ++this.#sequence };
  }

  #input(member: Member, full: boolean, ahead: Ahead | undefined, { lengths }: CheckedCheckpoint): RegionInput {
    const { name, region, slot, fresh, shadow } = member;
    const whole = (full || fresh) && ahead?.tookWhole(member) !== true;
    return {
      name,
      region,
      slot,
      ordinal: ahead?.ordinal(member) ?? 0,
      length: lengths.get(name),
      fresh: full || fresh,
      whole,
      shadow,
    };
  }

  /** The newest state that was captured on the way to the memory as it is; undefined when there is none that it is an increment to. */
  #newest(): Pick<InFlight, 'sizes' | 'attachments'> | undefined {
    const last = this.#inFlight.at(-1);
    if (last !== undefined) return last;
    if (this.base === undefined) return undefined;
    const { regions, attachments, uid } = this.base;
    // Memory that went back is not what the branch's head is: the next checkpoint moves it.
    const sizes =
      uid === this.head?.uid ? Object.entries(regions).map(([name, { byteLength }]) => [name, byteLength] as const) : [];
    return { sizes: new Map(sizes), attachments };
  }

  /** Nothing was written: the newest checkpoint stands for this one, as durable as it was asked for. */
  async #unchanged(durability: 'sync' | 'relaxed'): Promise<Checkpoint> {
    const newest = (await this.#inFlight.at(-1)?.promise.catch((error) => Promise.reject(behind(error)))) ?? this.base!;
    if (newest.durable || durability === 'relaxed') return newest;
    await this.#engine.call('flush', this.#session);
    // A sync that failed may have lost relaxed checkpoints, this one too: what was told before the answer to the flush says so.
    if (this.base === undefined) {
      throw new TidemarkError(
        'TIDEMARK_WRITE_FAILED',
        `the file system lost checkpoint ${newest.id}, which was to stand for this one`,
        {
          hint: 'nothing in memory is lost; take it again',
        },
      );
    }
    return this.#noteDurable({ ...newest, durable: true });
  }

  /** Makes everything committed durable; the newest of the branch. */
  async flush(): Promise<Checkpoint | undefined> {
    const newest = await this.#engine.call('flush', this.#session);
    return newest === null ? undefined : this.#noteDurable(newest);
  }

  /** What is at hand of a checkpoint says, too, that it is durable by now. */
  #noteDurable(checkpoint: Checkpoint): Checkpoint {
    if (this.head?.uid === checkpoint.uid) this.head = checkpoint;
    if (this.base?.uid === checkpoint.uid) this.base = checkpoint;
    return checkpoint;
  }

  #fly(entry: Omit<InFlight, 'promise' | 'resolve' | 'reject'>): Promise<Checkpoint> {
    const { signal, ticket } = entry;
    const abort = (): void => this.#engine.tell({ type: 'abort', ...ticket });
    signal?.addEventListener('abort', abort);
    this.#engine.hold();
    const promise = new Promise<Checkpoint>((resolve, reject) => {
      this.#inFlight.push(Object.assign(entry, { promise: undefined as unknown as Promise<Checkpoint>, resolve, reject }));
    }).finally(() => {
      signal?.removeEventListener('abort', abort);
      this.#engine.letGo();
    });
    this.#inFlight.at(-1)!.promise = promise;
    return promise;
  }

  // --- ahead --------------------------------------------------------------------------------------------

  /** Takes ahead what is dirty. @throws as `begin` */
  async precopy(signal: AbortSignal | undefined): Promise<void> {
    const ends = this.#ends;
    const before = this.#precopied;
    const taken = (async () => {
      await before;
      await this.#engine.ready();
      if (ends === this.#ends) await this.#takeAhead(signal);
    })();
    this.#precopied = taken.catch(() => {});
    return taken;
  }

  async #takeAhead(signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted) throw abortedBy(signal, 'the precopy');
    if (this.lostBy !== undefined) throw this.lostBy;
    const full = this.#checkCapture();
    this.#ahead ??= new Ahead(this.#engine, this.#nextTicket(), this.#level);
    const ahead = this.#ahead;
    this.#aheadFailure = undefined;
    try {
      await ahead.run(this.members.all, (member) => full || member.fresh, signal);
    } catch (error) {
      ahead.end();
      // What was stored until it was aborted is as good as ever.
      if (signal?.aborted && error === signal.reason) throw abortedBy(signal, 'the precopy');
      if (this.#ahead === ahead) this.#dropAhead();
      throw this.#aheadFailure ?? captureError(error);
    } finally {
      // Nobody waits for what it took: it must not keep its staging until there is more to write.
      if (ahead.ended && this.#ahead === ahead) this.#engine.call('precopied', this.#session).catch(() => {});
    }
    if (this.#aheadFailure !== undefined) throw this.#aheadFailure;
  }

  /** Ends the precopy that is under way, and those that wait for it. */
  endAhead(): void {
    this.#ends++;
    this.#ahead?.end();
  }

  /** Gives back what was taken ahead of a checkpoint that will not be, or not like this. */
  dropAhead(): void {
    this.#ends++;
    this.#dropAhead();
  }

  #dropAhead(): void {
    const ahead = this.#ahead;
    if (ahead === undefined) return;
    this.#ahead = undefined;
    ahead.drop();
    this.#engine.tell({ type: 'dropped', ...ahead.ticket });
  }

  // --- what the storage thread says ---------------------------------------------------------------------

  committed({ sequence, checkpoint, olderVersions }: { sequence: number; checkpoint: Checkpoint; olderVersions: number }): void {
    if (this.lostBy !== undefined) return;
    this.#engine.noteOlderVersions(this.#session, olderVersions);
    const done = this.#inFlight[0];
    if (done?.ticket.sequence !== sequence) {
      // Nothing that is known here can be believed, and the storage thread knows of no failure: what would be sent from now on would be void to it.
      this.lostBy = new TidemarkError('TIDEMARK_WRITE_FAILED', `checkpoint ${sequence} was committed out of order`, {
        hint: 'nothing in memory is lost: close the checkpointer and open it again, with startOver: true to store all of it anew',
        retryable: false,
      });
      this.#fail(this.lostBy, false);
      return;
    }
    this.#inFlight.shift();
    this.head = checkpoint;
    this.base = checkpoint;
    this.members.descend(done.members, checkpoint);
    this.tally.committed(checkpoint);
    done.resolve(checkpoint);
  }

  failed({ generation, error, suspect, hasBase }: Extract<StorageEvent, { type: 'failed' }>): void {
    if (generation === this.#generation) this.#fail(fromPlain(error), hasBase, suspect);
  }

  restored(donePages: number, totalPages: number): void {
    this.onProgress?.(donePages, totalPages);
  }

  resident(error: TidemarkError | undefined): void {
    this.onResident?.(error);
  }

  lost(error: TidemarkError): void {
    this.lostBy = error;
    this.storageEnded = true;
    this.onResident?.(error);
    this.#fail(error, true);
  }

  /** Everything in flight has failed: its pages go back to the kernel, so that the next capture finds them. */
  #fail(error: TidemarkError, hasBase: boolean, suspect = true): void {
    this.#generation++;
    const failed = this.#inFlight.splice(0);
    for (const { scanned, fresh } of failed) {
      giveBack(scanned);
      for (const member of fresh) member.fresh = true;
    }
    this.#ahead?.drop();
    this.#ahead = undefined;
    this.#aheadFailure = behind(error);
    // Where it may be the shadows' fault none of them is believed any more; else those that hold what is stored are as good as ever.
    const from = suspect || !hasBase ? 0 : (failed[0]?.ticket.sequence ?? 0);
    for (const { shadow } of this.members.all) shadow?.fail(from);
    if (!hasBase && this.base !== undefined) {
      // The store has lost what this memory descends from; there is nothing to restore that would be newer.
      this.base = undefined;
      this.members.descend(this.members.all, undefined);
      this.#startOver = true;
    }
    this.tally.failed(failed.length);
    for (const { signal, reject } of failed) {
      reject(signal?.aborted ? abortedBy(signal, 'the checkpoint') : behind(error));
    }
  }
}

/** An abort fails what was captured after the checkpoint that was aborted, too. */
function behind(error: TidemarkError): TidemarkError {
  if (error.code !== 'TIDEMARK_ABORTED') return error;
  return new TidemarkError('TIDEMARK_ABORTED', 'a checkpoint that was captured before this one was aborted', {
    hint: 'nothing is lost; take it again',
    retryable: true,
  });
}

function sizesOf(members: readonly Member[]): Map<string, number> {
  return new Map(members.map(({ name, region }) => [name, region.byteLength]));
}

function sameSizes(a: ReadonlyMap<string, number>, b: ReadonlyMap<string, number>): boolean {
  return a.size === b.size && [...a].every(([name, byteLength]) => b.get(name) === byteLength);
}
