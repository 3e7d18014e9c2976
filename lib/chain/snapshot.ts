import type { Engine } from '../engine/engine.js';
import { TidemarkError } from '../errors.js';
import { isNumber, isOptions, isString, option } from '../options.js';
import type { Checkpoint } from './header.js';

const CHUNK = 1 << 20;
/** A Uint8Array ends here on Node 20; more is what `stream` is for. */
const MAX_READ = 2 ** 30;

/** A checkpoint that is open for reading: any bytes of its regions, while others are taken. */
export class Snapshot implements AsyncDisposable {
  readonly checkpoint: Checkpoint;
  readonly #engine: Engine;
  readonly #id: number;
  readonly #onClose: () => void;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(engine: Engine, id: number, checkpoint: Checkpoint, onClose: () => void) {
    this.#engine = engine;
    this.#id = id;
    this.checkpoint = checkpoint;
    this.#onClose = onClose;
  }

  /**
   * Bytes of a region; what was never written is zero. At most 1 GiB at once.
   * @throws {RangeError} outside the region
   * @throws {TidemarkError} `TIDEMARK_NOT_FOUND` (no such region), `TIDEMARK_DAMAGED`, `TIDEMARK_CHAIN_BROKEN`, `TIDEMARK_CLOSED`
   */
  async read(region: string, byteOffset: number, byteLength: number): Promise<Uint8Array> {
    this.#check(region, byteOffset, byteLength);
    if (byteLength > MAX_READ) throw new RangeError('at most 1 GiB can be read at once; use stream()');
    return this.#engine.call('readSnapshot', this.#id, region, byteOffset, byteLength);
  }

  /** The bytes of a region in pieces of up to 1 MiB. Default range: its meaningful `length`. Errors as `read`. */
  async *stream(region: string, range: { byteOffset?: number; byteLength?: number } = {}): AsyncGenerator<Uint8Array> {
    isOptions('stream', range, ['byteOffset', 'byteLength']);
    const size = this.#region(region).length;
    const start = option(range.byteOffset, (value) => isNumber('byteOffset', value, 0, Number.MAX_SAFE_INTEGER)) ?? 0;
    const length =
      option(range.byteLength, (value) => isNumber('byteLength', value, 0, Number.MAX_SAFE_INTEGER)) ?? Math.max(0, size - start);
    this.#check(region, start, length);
    const piece = (at: number) => this.read(region, at, Math.min(CHUNK, start + length - at));
    let next = length > 0 ? piece(start) : undefined;
    for (let at = start; next !== undefined; ) {
      const bytes = await next;
      at += bytes.length;
      next = at < start + length ? piece(at) : undefined;
      // Whoever stops reading must not leave a rejection that nobody sees.
      next?.catch(() => {});
      yield bytes;
    }
  }

  /** The bytes of an attachment. @throws {TidemarkError} `TIDEMARK_NOT_FOUND`, `TIDEMARK_DAMAGED`, `TIDEMARK_CHAIN_BROKEN`, `TIDEMARK_CLOSED` */
  async attachment(name: string): Promise<Uint8Array> {
    if (this.#closing !== undefined) throw new TidemarkError('TIDEMARK_CLOSED', 'the snapshot is closed');
    return this.#engine.call('readSnapshotAttachment', this.#id, isString('name', name));
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#engine
      .call('closeSnapshot', this.#id)
      .catch(() => {})
      .then(() => this.#onClose());
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #region(name: string): { byteLength: number; length: number } {
    if (this.#closing !== undefined) throw new TidemarkError('TIDEMARK_CLOSED', 'the snapshot is closed');
    const region = Object.hasOwn(this.checkpoint.regions, isString('region', name)) ? this.checkpoint.regions[name] : undefined;
    if (region === undefined) {
      throw new TidemarkError('TIDEMARK_NOT_FOUND', `checkpoint ${this.checkpoint.id} has no region ${name}`, {
        hint: `it has ${Object.keys(this.checkpoint.regions).join(', ')}`,
      });
    }
    return region;
  }

  #check(name: string, byteOffset: number, byteLength: number): void {
    const { byteLength: size } = this.#region(name);
    isNumber('byteOffset', byteOffset, 0, size);
    isNumber('byteLength', byteLength, 0, size - byteOffset);
  }
}
