import type { IndexCache } from '../chain/index-cache.js';
import type { Log, LogOperation } from '../chain/log.js';
import type { LogDamage } from '../chain/tail.js';
import type { Captured } from '../engine/protocol.js';
import { TidemarkError } from '../errors.js';
import { type Built, buildManifest } from './build-manifest.js';
import type { InFlight } from './in-flight.js';
import { type Naming, Namings, nameTaken } from './naming.js';
import type { Pending, Session } from './session.js';

/** A manifest in the batch that is being written. */
export interface Committing {
  session: Session;
  pending: Pending;
  built: Built;
}

/** What becomes of a batch that is written: manifests, and names beside them. */
export interface Batch {
  committing: Committing[];
  namings: Naming[];
}

/** Decides what can be committed now, refuses what must not be, and makes the records. */
export class BatchBuilder {
  readonly namings = new Namings();
  readonly #log: Log;
  readonly #index: IndexCache;
  readonly #inFlight: InFlight;
  #lastManifest: number;

  constructor(log: Log, index: IndexCache, inFlight: InFlight) {
    this.#log = log;
    this.#index = index;
    this.#inFlight = inFlight;
    this.#lastManifest = index.applied;
  }

  /**
   * Puts the records of everything that is ready into a batch.
   * @param garbage what is deleted with it
   * @param damage of the log: with any nothing is committed
   */
  build(operations: LogOperation[], garbage: number[], damage: readonly LogDamage[]): Batch {
    const names = new Set<string>();
    const committing = this.#buildReady(operations, names, damage);
    // What was refused only now is not below the low-water mark of what commits: it goes with this very batch.
    for (const record of this.#inFlight.takeGarbage(operations)) garbage.push(record);
    if (damage.length > 0) this.namings.failAll(damage[0]!.error);
    const isOpenBranch = (name: string) => this.#inFlight.onBranch(name) !== undefined;
    return {
      committing,
      namings: this.namings.take(this.#log, { index: this.#index, isOpenBranch, inBatch: names }, operations),
    };
  }

  /** The manifests whose extents are all in this batch or in earlier ones, in the order of each session. */
  #buildReady(operations: LogOperation[], names: Set<string>, damage: readonly LogDamage[]): Committing[] {
    const ready = this.#ready(names, damage);
    // What commits with this batch lives or dies with it: only what is in flight beside it has to be protected.
    const lowWater = this.#inFlight.lowWater(new Set(ready.map(({ pending }) => pending)));
    const committing: Committing[] = [];
    let id = this.#index.lastId;
    for (const { session, pending } of ready) {
      const captured = pending.captured!;
      // One before it of the same session was refused here.
      if (session.gone(pending.ticket)) {
        names.delete(captured.info.label ?? '');
        continue;
      }
      let built: Built;
      try {
        built = buildManifest(captured, pending, {
          log: this.#log,
          id: id + 1,
          branch: session.branch,
          base: committing.at(-1)?.session === session ? committing.at(-1)!.built.header : session.base,
          table: session.table,
          lowWater,
          previousManifest: this.#lastManifest,
          encodeMs: pending.encodedAt - captured.capturedAt,
        });
      } catch (error) {
        this.#inFlight.fail(session, session.generation, error, pending.ticket.sequence);
        names.delete(captured.info.label ?? '');
        continue;
      }
      id++;
      this.#lastManifest = built.header.manifest;
      session.table = built.table;
      operations.push(...built.operations);
      pending.committing = true;
      committing.push({ session, pending, built });
    }
    return committing;
  }

  /** The checkpoints that can be committed now, those of one session together and in their order. What must not be is failed here. */
  #ready(names: Set<string>, damage: readonly LogDamage[]): { session: Session; pending: Pending }[] {
    const ready: { session: Session; pending: Pending }[] = [];
    for (const session of this.#inFlight.active) {
      let first = true;
      for (const pending of session.pendings) {
        if (!pending.complete || !pending.segments.every(({ written }) => written)) break;
        // It arrived while the tables of other sessions were loaded; its own comes next time.
        if (session.base !== undefined && session.table === undefined) break;
        const captured = pending.captured!;
        try {
          if (first) this.#checkHead(session);
          if (pending.segments.length > pending.expectedSegments) throw new Error('more segments than were captured');
          if (damage.length > 0) throw damage[0]!.error;
          this.#checkReady(captured, !first || session.base !== undefined, names);
        } catch (error) {
          this.#inFlight.fail(session, session.generation, error, pending.ticket.sequence);
          break;
        }
        first = false;
        if (captured.info.label !== undefined) names.add(captured.info.label);
        ready.push({ session, pending });
      }
    }
    return ready;
  }

  #checkHead(session: Session): void {
    if (this.#index.names.get(session.branch)?.id === session.expectedHead) return;
    throw new TidemarkError('TIDEMARK_BRANCH_BUSY', `branch ${session.branch} has moved since it was opened`, {
      hint: 'open the checkpointer again',
    });
  }

  #checkReady({ full, info: { label } }: Captured, hasBase: boolean, names: Set<string>): void {
    if (full === hasBase) throw new Error(`a capture that is ${full ? '' : 'not '}full does not fit what its branch builds on`);
    if (label === undefined) return;
    const isBranch = this.#inFlight.onBranch(label) !== undefined;
    if (this.#index.names.has(label) || names.has(label) || isBranch)
      throw nameTaken(label, isBranch ? 'branch' : this.#index.names.get(label)?.type);
  }
}
