import { KEY_BYTES } from '../chain/header.js';
import { deletion, type Log, type LogOperation } from '../chain/log.js';
import { Codec, Kind, RECORD_HEADER, recordKey, writeHeader } from '../chain/record.js';
import type { Captured, Encoded, Precopied, StorageEvent, Ticket } from '../engine/protocol.js';
import type { Staging } from '../engine/staging.js';
import { TidemarkError, toPlain } from '../errors.js';
import { WrongShadow } from './build-manifest.js';
import { now } from './clock.js';
import type { Pending, PendingSegment, QueuedSegment, Session } from './session.js';

/**
 * What the checkpointers of one store have in flight, on the storage thread: extents that arrived and wait for a batch, captures, what
 * failed and has to be deleted. It decides nothing about when to write.
 */
export class InFlight {
  readonly #sessions = new Map<number, Session>();
  readonly #branches = new Map<string, Session>();
  /** Those that have something in flight: with a thousand checkpointers nothing done for a commit may walk over the idle ones. */
  readonly #active = new Set<Session>();
  readonly #log: Log;
  readonly #emit: (event: StorageEvent) => void;
  #queue: QueuedSegment[] = [];
  #queuedBytes = 0;
  /** Records of checkpoints that failed, to be deleted with the next batch; until then they hold the low-water mark down. */
  #garbage: number[] = [];

  constructor(log: Log, emit: (event: StorageEvent) => void) {
    this.#log = log;
    this.#emit = emit;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** The oldest checkpoint of some session has everything it needs. */
  get anyComplete(): boolean {
    for (const session of this.#active) if (session.pendings[0]?.complete) return true;
    return false;
  }

  /** Checkpointers with something in flight; may be changed while it is walked over. */
  get active(): Session[] {
    return [...this.#active];
  }

  /** Somebody waits for extents that wait for a batch. */
  get awaited(): boolean {
    return this.#queue.some(({ pending }) => pending.awaited);
  }

  /** Every open checkpointer. */
  get all(): Iterable<Session> {
    return this.#sessions.values();
  }

  session(id: number): Session | undefined {
    return this.#sessions.get(id);
  }

  onBranch(branch: string): Session | undefined {
    return this.#branches.get(branch);
  }

  add(session: Session): void {
    this.#sessions.set(session.id, session);
    this.#branches.set(session.branch, session);
  }

  remove(id: number): void {
    const session = this.#sessions.get(id);
    if (session === undefined) return;
    this.fail(session, session.generation, new TidemarkError('TIDEMARK_CLOSED', 'the checkpointer was closed'));
    this.#sessions.delete(id);
    this.#branches.delete(session.branch);
  }

  /** The checkpoint of a ticket, which is in flight from now on. */
  #pending(session: Session, ticket: Ticket): Pending {
    this.#active.add(session);
    return session.pending(ticket);
  }

  /** A checkpoint is no longer in flight. */
  settled(session: Session, pending: Pending): void {
    session.pendings = session.pendings.filter((other) => other !== pending);
    pending.end();
    if (session.pendings.length === 0) this.#active.delete(session);
  }

  /** Resolves when what has been taken ahead of the next checkpoint of a session is written, or has failed. */
  async aheadWritten(session: Session): Promise<void> {
    await session.pendings.at(-1)?.written();
  }

  /** A codec thread has turned a segment into records of extents. */
  segmentArrived(encoded: Encoded, staging: Staging): void {
    const session = this.#sessions.get(encoded.session);
    const place = encoded.segment;
    if (session === undefined || session.gone(encoded)) {
      if (place !== null) staging.release(place);
      return;
    }
    const pending = this.#pending(session, encoded);
    const { slot, ordinal, kinds, crcs, bases } = encoded;
    const extents = encoded.extents.map(({ kind, payloadLength }) => ({
      kind,
      record: this.#log.nextNumber(),
      storedBytes: RECORD_HEADER + payloadLength + KEY_BYTES,
    }));
    const segment = { slot, ordinal, extents, kinds, crcs, bases, written: place === null || extents.length === 0 };
    pending.segments.push(segment);
    pending.encodedAt = now();
    if (place === null || segment.written) {
      if (place !== null) staging.release(place);
      pending.noteWritten();
      return;
    }
    pending.firstRecord = Math.min(pending.firstRecord, extents[0]!.record);
    this.#queue.push({ segment, place, encoded: encoded.extents, pending, staging });
    this.#queuedBytes += bytesOf(segment);
  }

  /** The caller has finished a capture. */
  captureArrived(captured: Captured): void {
    const session = this.#sessions.get(captured.session);
    if (session === undefined || session.gone(captured)) return;
    const pending = this.#pending(session, captured);
    if (captured.full) {
      // The caller has forgotten what its memory descended from (a restore tore it), and nothing else of it is in flight.
      session.base = undefined;
      session.table = undefined;
    }
    pending.captured = captured;
    pending.encodedAt = Math.max(pending.encodedAt, captured.capturedAt);
  }

  /** The caller has taken a part of a checkpoint ahead of its capture. */
  aheadArrived(precopied: Precopied): void {
    const session = this.#sessions.get(precopied.session);
    if (session === undefined || session.gone(precopied)) return;
    this.#pending(session, precopied).takeAhead(precopied.slot, precopied.slice);
  }

  /** Fails a checkpoint that its caller does not want any more, and what was captured after it; one that is being committed is left alone. */
  abort(ticket: Ticket): void {
    const session = this.#sessions.get(ticket.session);
    const pending = session?.pendings.find((candidate) => candidate.ticket.sequence === ticket.sequence);
    if (session === undefined || pending === undefined || pending.committing) return;
    const error = new TidemarkError('TIDEMARK_ABORTED', 'the checkpoint was aborted', {
      hint: 'what it would have stored is in the next one',
    });
    this.fail(session, ticket.generation, error, ticket.sequence);
  }

  /** A capture failed half-way: what was sent of it is dropped, the checkpoints before and after it stand. */
  dropCapture(ticket: Ticket): void {
    const session = this.#sessions.get(ticket.session);
    if (session === undefined || session.generation !== ticket.generation) return;
    session.dropped.add(ticket.sequence);
    const pending = session.pendings.find((candidate) => candidate.ticket.sequence === ticket.sequence);
    if (pending !== undefined) this.discard(session, pending);
    this.reportFailure(session);
  }

  /**
   * Everything a session has in flight from the checkpoint `from` on fails; what was captured before that stands. The caller hears of it once,
   * when what stands is settled, and starts a new generation. What is in the batch that is being written is not touched: it fails or
   * not with that batch.
   * @param suspect the shadows may be what is wrong
   */
  fail(session: Session, generation: number, error: unknown, from = 0, suspect = error instanceof WrongShadow): void {
    if (generation !== session.generation) return;
    const plain = toPlain(error, 'TIDEMARK_WRITE_FAILED');
    const before = session.failure;
    // What one of them has brought upon itself (a signal, a label that is taken) is no answer to those before it.
    const isWider = before !== undefined && before.from > from && plain.code !== 'TIDEMARK_ABORTED';
    const told = before === undefined || isWider ? plain : before.error;
    session.failure = {
      from: Math.min(from, before?.from ?? from),
      error: told,
      suspect: suspect || before?.suspect === true,
    };
    for (const pending of session.pendings) {
      if (!pending.committing && session.gone(pending.ticket)) this.discard(session, pending);
    }
    this.reportFailure(session);
  }

  /** Fails every session that has something in flight. */
  failAll(error: unknown): void {
    for (const session of this.active) this.fail(session, session.generation, error);
  }

  /** Tells the caller of a failure, once nothing of the session is in flight that stands. */
  reportFailure(session: Session): void {
    if (session.failure === undefined || session.pendings.length > 0) return;
    const { generation } = session;
    const { error, suspect } = session.failure;
    session.failure = undefined;
    session.generation++;
    session.dropped.clear();
    session.table = undefined;
    this.#emit({ type: 'failed', session: session.id, generation, error, suspect, hasBase: session.base !== undefined });
  }

  discard(session: Session, pending: Pending): void {
    for (const { record } of pending.extents) this.#garbage.push(record);
    this.#queue = this.#queue.filter((queued) => {
      if (queued.pending !== pending) return true;
      queued.staging.release(queued.place);
      this.#queuedBytes -= bytesOf(queued.segment);
      return false;
    });
    this.settled(session, pending);
  }

  /**
   * Moves segments of about `bytes` from the queue into a batch, as views of their segments: LevelDB copies them when it is called, and
   * only then the segments may be released.
   */
  takeSegments(bytes: number, operations: LogOperation[]): QueuedSegment[] {
    let sum = 0;
    let count = 0;
    while (count < this.#queue.length && sum < bytes) sum += bytesOf(this.#queue[count++]!.segment);
    const taken = this.#queue.splice(0, count);
    this.#queuedBytes -= sum;
    for (const { segment, place, encoded, staging } of taken) {
      for (const [k, { byteOffset, payloadLength, payloadCrc }] of encoded.entries()) {
        const number = segment.extents[k]!.record;
        const record = staging.record(place, byteOffset, RECORD_HEADER + payloadLength);
        writeHeader(record, Kind.extent, number, this.#log.store, {
          length: payloadLength,
          rawLength: payloadLength,
          crc: payloadCrc,
          codec: Codec.none,
        });
        operations.push({ type: 'put', key: recordKey(number, Kind.extent), value: record });
      }
      segment.written = true;
    }
    return taken;
  }

  /** The deletions that are due; put them back when the batch is rejected. */
  takeGarbage(operations: LogOperation[]): number[] {
    const garbage = this.#garbage;
    this.#garbage = [];
    for (const record of garbage) operations.push(deletion(record, Kind.extent));
    return garbage;
  }

  /** Records that no manifest refers to: to be deleted with the next batch. */
  addGarbage(garbage: number[]): void {
    for (const record of garbage) this.#garbage.push(record);
  }

  /** The lowest record of anything in flight but `ready`: what lies before it is either referred to by a manifest or gone. */
  lowWater(ready: ReadonlySet<Pending>): number {
    let low = this.#log.upcoming;
    for (const session of this.#active) {
      for (const pending of session.pendings) if (!ready.has(pending)) low = Math.min(low, pending.firstRecord);
    }
    for (const record of this.#garbage) low = Math.min(low, record);
    return low;
  }
}

function bytesOf({ extents }: PendingSegment): number {
  return extents.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
}
