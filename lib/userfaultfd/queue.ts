/** Values on their way to whoever iterates: each goes to one taker, in order. What is not taken stays for the next iteration. */
export class Queue<T> {
  readonly #values: T[] = [];
  readonly #takers: { owner: object; resolve: (result: IteratorResult<T, undefined>) => void }[] = [];
  readonly #onWaiting: (waiting: boolean) => void;
  #closed = false;

  /** `onWaiting` is told when the first begins to wait and the last has ended. */
  constructor(onWaiting: (waiting: boolean) => void) {
    this.#onWaiting = onWaiting;
  }

  put(value: T): void {
    const taker = this.#takers.shift();
    if (taker === undefined) this.#values.push(value);
    else {
      taker.resolve({ done: false, value });
      if (this.#takers.length === 0) this.#onWaiting(false);
    }
  }

  /** Iterations end. Gives what nobody has taken. */
  close(): T[] {
    this.#closed = true;
    this.#release(() => true);
    return this.#values.splice(0);
  }

  iterate(): AsyncIterableIterator<T, undefined> {
    const owner = {};
    let ended = false;
    const iterator: AsyncIterableIterator<T, undefined> = {
      [Symbol.asyncIterator]: () => iterator,
      next: () => (ended ? Promise.resolve({ done: true, value: undefined }) : this.#take(owner)),
      return: () => {
        ended = true;
        this.#release((taker) => taker === owner);
        return Promise.resolve({ done: true, value: undefined });
      },
    };
    return iterator;
  }

  #take(owner: object): Promise<IteratorResult<T, undefined>> {
    if (this.#values.length > 0) return Promise.resolve({ done: false, value: this.#values.shift()! });
    if (this.#closed) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve) => {
      this.#takers.push({ owner, resolve });
      if (this.#takers.length === 1) this.#onWaiting(true);
    });
  }

  #release(which: (owner: object) => boolean): void {
    const waited = this.#takers.length > 0;
    const released = this.#takers.filter(({ owner }) => which(owner));
    const kept = this.#takers.filter(({ owner }) => !which(owner));
    this.#takers.splice(0, this.#takers.length, ...kept);
    for (const { resolve } of released) resolve({ done: true, value: undefined });
    if (waited && kept.length === 0) this.#onWaiting(false);
  }
}
