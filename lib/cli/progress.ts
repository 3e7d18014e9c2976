const EVERY_MS = 100;

/** One line on stderr that is rewritten while work goes on; nothing at all when stderr is no terminal. */
export class Progress {
  readonly #enabled = process.stderr.isTTY === true;
  #last = 0;
  #shown = false;
  #timer: NodeJS.Timeout | undefined;

  show(text: () => string): void {
    if (!this.#enabled) return;
    const now = performance.now();
    if (now - this.#last < EVERY_MS) return;
    this.#last = now;
    this.#shown = true;
    process.stderr.write(`\r\x1b[K${text()}`);
  }

  /** For work that does not say how far it is: the seconds. */
  tick(what: string): void {
    if (!this.#enabled) return;
    const started = performance.now();
    this.#timer = setInterval(() => this.show(() => `${what} ... ${Math.floor((performance.now() - started) / 1000)} s`), 500);
  }

  /** Takes the line away again. */
  end(): void {
    clearInterval(this.#timer);
    if (this.#shown) process.stderr.write('\r\x1b[K');
    this.#shown = false;
  }
}
