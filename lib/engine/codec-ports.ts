import type { MessagePort } from 'node:worker_threads';
import { fromPlain, TidemarkError } from '../errors.js';
import type { AttachCodecs, Decoded, DecodeJob, Encoded, EncodeFailed } from './protocol.js';
import { Staging } from './staging.js';

interface Waiting {
  resolve(): void;
  reject(error: unknown): void;
  port: MessagePort;
}

/** The codec threads as the storage thread sees them: what they encoded arrives here, what is to be decoded goes out. */
export class CodecPorts {
  #ports: MessagePort[] = [];
  #staging: Staging | undefined;
  #waiting = new Map<number, Waiting>();
  #nextJob = 1;
  readonly #onEncoded: (message: Encoded | EncodeFailed, staging: Staging) => void;

  constructor(onEncoded: (message: Encoded | EncodeFailed, staging: Staging) => void) {
    this.#onEncoded = onEncoded;
  }

  /** A new set of codec threads, in place of the one before, whose unfinished jobs fail. */
  attach(codecs: AttachCodecs): void {
    this.detach();
    const staging = new Staging({ ring: codecs.ring, memory: codecs.staging });
    staging.join();
    this.#staging = staging;
    this.#ports = codecs.ports;
    for (const port of codecs.ports) {
      port.on('message', (message: Encoded | EncodeFailed | Decoded) => {
        if (message.type === 'decoded') this.#decoded(message);
        else this.#onEncoded(message, staging);
      });
    }
  }

  detach(): void {
    for (const port of this.#ports) port.close();
    this.#ports = [];
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting)
      reject(new TidemarkError('TIDEMARK_STALLED', 'a codec thread ended while it decoded', { hint: 'try again' }));
  }

  /** How many jobs are worth having under way at once. */
  get width(): number {
    return Math.max(1, this.#ports.length * 3);
  }

  starved(): boolean {
    return this.#staging?.starved() ?? false;
  }

  /** Sends a job to the codec thread with the fewest. */
  decode(job: Omit<DecodeJob, 'type' | 'job'>): Promise<void> {
    if (this.#ports.length === 0)
      return Promise.reject(new TidemarkError('TIDEMARK_STALLED', 'no codec thread is running', { hint: 'try again' }));
    const load = new Map<MessagePort, number>(this.#ports.map((port) => [port, 0]));
    for (const { port } of this.#waiting.values()) load.set(port, (load.get(port) ?? 0) + 1);
    const port = this.#ports.reduce((least, candidate) => (load.get(candidate)! < load.get(least)! ? candidate : least));
    const id = this.#nextJob++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, port });
      port.postMessage({ type: 'decode', job: id, ...job } satisfies DecodeJob);
    });
  }

  #decoded(answer: Decoded): void {
    const waiting = this.#waiting.get(answer.job);
    this.#waiting.delete(answer.job);
    if (answer.error === undefined) waiting?.resolve();
    else waiting?.reject(fromPlain(answer.error));
  }
}
