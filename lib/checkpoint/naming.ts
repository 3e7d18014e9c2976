import type { IndexCache } from '../chain/index-cache.js';
import type { Log, LogOperation } from '../chain/log.js';
import { Kind, packRecord, recordKey } from '../chain/record.js';
import { encodeRef, type NumberedRef, type Ref } from '../chain/ref.js';
import { TidemarkError } from '../errors.js';

/** More at once wait for the next batch: it stays small, whatever is asked for. */
const MOST_IN_BATCH = 1024;

interface Request {
  ref: Ref;
  move: boolean;
  resolve(): void;
  reject(error: unknown): void;
}

/** A ref in the batch that is being written. */
export interface Naming {
  ref: NumberedRef;
  resolve(): void;
  reject(error: unknown): void;
}

/** What refs are checked against when a batch is built: names that are stored, that open branches have, that the batch itself gives. */
export interface Taken {
  index: IndexCache;
  isOpenBranch(name: string): boolean;
  inBatch: Set<string>;
}

/** Branches and labels that were asked for and wait for the next batch. */
export class Namings {
  #waiting: Request[] = [];

  get any(): boolean {
    return this.#waiting.length > 0;
  }

  /** Resolves when the name is durable. @throws (rejects) `TIDEMARK_NAME_TAKEN`, and what the write fails with */
  add(ref: Ref, move: boolean): Promise<void> {
    return new Promise((resolve, reject) => this.#waiting.push({ ref, move, resolve, reject }));
  }

  /** Puts those that may be into a batch; what may not be is settled here, what this batch itself decides waits for the next one. */
  take(log: Log, taken: Taken, operations: LogOperation[]): Naming[] {
    const namings: Naming[] = [];
    const later: Request[] = [];
    for (const request of this.#waiting.splice(0, MOST_IN_BATCH)) {
      const { ref, move, resolve, reject } = request;
      // Calls of one moment come out as they would one after the other, whatever batches they happen to meet in.
      if (taken.inBatch.has(ref.name)) {
        later.push(request);
        continue;
      }
      const stored = taken.index.names.get(ref.name);
      const isLabel = ref.type === 'label' && stored?.type === 'label';
      if (isLabel && stored.id === ref.id && stored.record <= taken.index.durable) {
        resolve();
        continue;
      }
      const free = stored === undefined || (isLabel && (move || stored.id === ref.id));
      if (!free || taken.isOpenBranch(ref.name)) {
        reject(nameTaken(ref.name, stored?.type ?? 'branch'));
        continue;
      }
      taken.inBatch.add(ref.name);
      const number = log.nextNumber();
      const value = packRecord(Kind.ref, number, log.store, encodeRef(ref));
      operations.push({ type: 'put', key: recordKey(number, Kind.ref), value });
      namings.push({ ref: { ...ref, number }, resolve, reject });
    }
    this.#waiting = [...later, ...this.#waiting];
    return namings;
  }

  /** After the log was opened again: a checkpoint that is not there any more gets no name, since its id may be another's soon. */
  async refuseLost(isThere: (uid: string) => Promise<boolean>): Promise<void> {
    for (const request of [...this.#waiting]) {
      const { id, uid } = request.ref;
      if (await isThere(uid)) continue;
      this.#waiting = this.#waiting.filter((other) => other !== request);
      request.reject(new TidemarkError('TIDEMARK_NOT_FOUND', `the file system lost checkpoint ${id} before it had a name`));
    }
  }

  failAll(error: unknown): void {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

export function nameTaken(name: string, by: 'branch' | 'label' | undefined): TidemarkError {
  const hint = by === 'label' ? 'choose another name; a label can be moved with `move: true`' : 'choose another name';
  return new TidemarkError(
    'TIDEMARK_NAME_TAKEN',
    `the name ${name} is taken by ${by === undefined ? 'another call' : `a ${by}`}`,
    {
      hint,
    },
  );
}
