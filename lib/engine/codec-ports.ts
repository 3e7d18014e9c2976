import { setTimeout } from 'node:timers/promises';
import type { MessagePort } from 'node:worker_threads';
import { fromPlain, TidemarkError } from '../errors.js';
import type { AttachCodecs, CodecJob, Done, Encoded, EncodeFailed } from './protocol.js';
import { Staging } from './staging.js';

/** Milliseconds between two looks for free staging. */
const LOOK_AGAIN_MS = 1;

interface Waiting {
  resolve(wrong: Uint32Array): void;
  reject(error: unknown): void;
  port: MessagePort;
}

/** Segments of staging, and which. */
export interface Lent {
  staging: Staging;
  segments: Int32Array;
}

/** The codec threads as the storage thread sees them: what they encoded arrives here, what is to be decoded goes out. */
export class CodecPorts {
  #ports: MessagePort[] = [];
  #staging: Staging | undefined;
  #waiting = new Map<number, Waiting>();
  #nextJob = 1;
  readonly #onStarved: () => void;
  /** Restores that wait for staging. */
  #starving = 0;
  readonly #onEncoded: (message: Encoded | EncodeFailed, staging: Staging) => void;

  /** @param onStarved somebody waits for staging: what is ready to be written must not wait for more */
  constructor(onEncoded: (message: Encoded | EncodeFailed, staging: Staging) => void, onStarved: () => void) {
    this.#onEncoded = onEncoded;
    this.#onStarved = onStarved;
  }

  /** A new set of codec threads, in place of the one before, whose unfinished jobs fail. */
  attach(codecs: AttachCodecs): void {
    this.detach();
    const staging = new Staging({ ring: codecs.ring, memory: codecs.staging });
    staging.join();
    this.#staging = staging;
    this.#ports = codecs.ports;
    for (const port of codecs.ports) {
      port.on('message', (message: Encoded | EncodeFailed | Done) => {
        if (message.type === 'done') this.#done(message);
        else this.#onEncoded(message, staging);
      });
    }
  }

  detach(): void {
    for (const port of this.#ports) port.close();
    this.#ports = [];
    this.#staging = undefined;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting)
      reject(new TidemarkError('TIDEMARK_STALLED', 'a codec thread ended while it decoded', { hint: 'try again' }));
  }

  /** How many jobs are worth having under way at once. */
  get width(): number {
    return Math.max(1, this.#ports.length * 3);
  }

  /** Their memory; undefined while there are none. */
  get staging(): Staging | undefined {
    return this.#staging;
  }

  starved(): boolean {
    return this.#starving > 0 || (this.#staging?.starved() ?? false);
  }

  /**
   * Up to `want` segments of staging, if there are any to be had. Half of what is free is left to others: captures must go on beside what is kept until a
   * caller has answered, which may itself be in such a capture.
   */
  lend(want: number): Lent | undefined {
    return this.#lend((free) => Math.min(want, Math.floor(free / 2)));
  }

  /**
   * One segment, as soon as there is one.
   * @param check throws when it is not to wait any longer
   */
  async reserve(check: () => void): Promise<Lent> {
    const take = (): Lent | undefined => {
      check();
      if (this.#staging === undefined)
        throw new TidemarkError('TIDEMARK_STALLED', 'no codec thread is running', { hint: 'try again' });
      return this.#lend((free) => Math.min(1, free));
    };
    let lent = take();
    if (lent !== undefined) return lent;
    this.#starving++;
    try {
      for (; lent === undefined; lent = take()) {
        this.#onStarved();
        await setTimeout(LOOK_AGAIN_MS);
      }
    } finally {
      this.#starving--;
    }
    return lent;
  }

  #lend(count: (free: number) => number): Lent | undefined {
    const staging = this.#staging;
    if (staging === undefined) return undefined;
    try {
      const want = count(staging.free());
      const segments = want === 0 ? undefined : staging.tryAcquire(want);
      return segments === undefined ? undefined : { staging, segments };
    } catch (cause) {
      // The thread that made it has closed it; that is told in a message that is still to come.
      throw new TidemarkError('TIDEMARK_STALLED', 'the codec threads of the engine were replaced', { cause, hint: 'try again' });
    }
  }

  /** Sends a job to the codec thread with the fewest; which pages of a FinishJob are wrong. */
  run(job: CodecJob): Promise<Uint32Array> {
    if (this.#ports.length === 0)
      return Promise.reject(new TidemarkError('TIDEMARK_STALLED', 'no codec thread is running', { hint: 'try again' }));
    const ring = job.type === 'decode' ? job.part?.ring : job.ring;
    if (ring !== undefined && ring !== this.#staging?.handle.ring)
      return Promise.reject(new TidemarkError('TIDEMARK_STALLED', 'the codec threads were replaced', { hint: 'try again' }));
    const load = new Map<MessagePort, number>(this.#ports.map((port) => [port, 0]));
    for (const { port } of this.#waiting.values()) load.set(port, (load.get(port) ?? 0) + 1);
    const port = this.#ports.reduce((least, candidate) => (load.get(candidate)! < load.get(least)! ? candidate : least));
    const id = this.#nextJob++;
    // What LevelDB gives may be a part of a larger buffer: only a record that is alone in its memory can be handed over.
    const alone = job.type === 'decode' && job.record.byteLength === job.record.buffer.byteLength;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, port });
      port.postMessage({ ...job, job: id }, alone ? [job.record.buffer as ArrayBuffer] : []);
    });
  }

  #done(answer: Done): void {
    const waiting = this.#waiting.get(answer.job);
    this.#waiting.delete(answer.job);
    if (answer.error === undefined) waiting?.resolve(answer.wrong ?? NONE);
    else waiting?.reject(fromPlain(answer.error));
  }
}

const NONE = new Uint32Array(0);
