import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { ExtentReader, encodeExtent, FULL_PAGES } from '../../../lib/chain/extent.js';
import { KEY_BYTES } from '../../../lib/chain/header.js';
import { Log, type LogOperation } from '../../../lib/chain/log.js';
import { Codec, Kind, openRecord, RECORD_HEADER, recordKey, writeHeader } from '../../../lib/chain/record.js';
import { frameContext, zstd } from '../../../lib/chain/zstd.js';
import { addon, PAGE_SIZE, SEGMENT_PAGES } from '../../../lib/kernel/addon.js';
import { Records } from './data.js';
import { writtenBytes } from './memory-usage.js';

/** How pages are put into records. */
export interface Layout {
  framePages: number;
  /** In a record. */
  frames: number;
}

export const pagesOf = ({ framePages, frames }: Layout): number => framePages * frames;

/** What one layout costs, in one round. */
export interface Figures {
  /** Of the pages stored once, with headers and keys. */
  storedBytes: number;
  /** MB of pages a second of CPU: nothing else runs in the process meanwhile. */
  compress: number;
  /** A page at random, us: the median, and that of what LevelDB takes of it. */
  page: number;
  get: number;
  /** CPU in LevelDB, us for each page that was written. */
  cpu: number;
  /** Bytes that went to the disk, for each that was stored. */
  disk: number;
  /** MB of pages a second, of all of them in order. */
  read: number;
}

export interface Effort {
  /** Pages are compressed until they make so many bytes. */
  compressBytes: number;
  /** Records are written, over and over with new numbers, until they make so many. */
  writeBytes: number;
  /** Pages read at random. */
  reads: number;
}

/** zstd level of pages that are stored full: the default of a checkpointer. */
const LEVEL = 1;
/** What the writer of a log puts into a batch where much is waiting. */
const BATCH_BYTES = 4 << 20;
/** Pages that a restore reads at once: 8 records of as many pages as a segment has. */
const PAGES_AT_ONCE = 8 * SEGMENT_PAGES;

/** A record as it will be written, with room for its header. */
interface Encoded {
  record: Uint8Array;
  crc: number;
  /** Its first page. */
  first: number;
  count: number;
}

/** Pages in LevelDB, in one layout: everything is done as the library does it, on this thread. */
export class LayoutStore {
  readonly #pages: Uint8Array;
  readonly #crcs: Uint32Array;
  readonly #layout: Layout;
  readonly #folder: string;
  readonly #uuid = randomBytes(16);
  #encoded: Encoded[] = [];
  /** Of the first record of each copy. */
  readonly #numbers: number[] = [];

  constructor(pages: Uint8Array, crcs: Uint32Array, layout: Layout, folder: string) {
    this.#pages = pages;
    this.#crcs = crcs;
    this.#layout = layout;
    this.#folder = folder;
  }

  async measure(effort: Effort): Promise<Figures> {
    mkdirSync(this.#folder);
    try {
      const compress = this.#compress(effort.compressBytes);
      const storedBytes = this.#encoded.reduce((sum, { record }) => sum + record.length + KEY_BYTES, 0);
      const written = await this.#write(Math.ceil(effort.writeBytes / storedBytes), storedBytes);
      const { log } = written;
      const one = await this.#readSome(log, effort.reads);
      const read = await this.#readAll(log);
      await log.close();
      return { storedBytes, compress, ...one, cpu: written.cpu, disk: written.disk, read };
    } finally {
      rmSync(this.#folder, { recursive: true });
    }
  }

  #compress(wanted: number): number {
    const { framePages } = this.#layout;
    const most = pagesOf(this.#layout);
    const context = frameContext(LEVEL);
    const scratch = new Uint8Array(zstd().compressBound(framePages * PAGE_SIZE));
    // The directory takes 8 bytes and 4 for each frame.
    const target = new Uint8Array(8 + 4 * this.#layout.frames + most * PAGE_SIZE);
    const total = this.#crcs.length;
    let spent = 0;
    let done = 0;
    while (done < wanted) {
      this.#encoded = [];
      for (let first = 0; first < total; first += most) {
        const count = Math.min(most, total - first);
        const pages = this.#pages.subarray(first * PAGE_SIZE, (first + count) * PAGE_SIZE);
        const start = process.cpuUsage();
        const length = encodeExtent(target, pages, count, context, scratch, { ...FULL_PAGES, framePages });
        const { user, system } = process.cpuUsage(start);
        spent += user + system;
        const record = new Uint8Array(RECORD_HEADER + length);
        record.set(target.subarray(0, length), RECORD_HEADER);
        this.#encoded.push({ record, crc: addon().crc32c(record.subarray(RECORD_HEADER)), first, count });
      }
      done += total * PAGE_SIZE;
    }
    return done / spent;
  }

  /** Batches as a full checkpoint has them, all of it prepared: what is measured is LevelDB, until everything is in its tables. */
  async #write(copies: number, storedBytes: number): Promise<{ log: Log; cpu: number; disk: number }> {
    const writing = await Log.open(this.#folder, this.#uuid, true);
    const batches = this.#batches(writing, copies);
    const cpu = process.cpuUsage();
    const written = writtenBytes();
    for (const [k, batch] of batches.entries()) await writing.write(batch, k === batches.length - 1);
    // Closed in the middle of writing a table LevelDB throws it away, and writes it again when it is opened.
    while (readdirSync(writing.folder).filter((name) => name.endsWith('.log')).length > 1) await setTimeout(5);
    await writing.close();
    // What is still in LevelDB's own log becomes a table when it is opened again.
    const log = await Log.open(this.#folder, this.#uuid, false);
    const { user, system } = process.cpuUsage(cpu);
    const disk = writtenBytes() - written;
    return { log, cpu: (user + system) / (copies * this.#crcs.length), disk: disk / (copies * storedBytes) };
  }

  #batches(log: Log, copies: number): LogOperation[][] {
    const batches: LogOperation[][] = [[]];
    let bytes = 0;
    for (let copy = 0; copy < copies; copy++) {
      for (const [k, { record, crc }] of this.#encoded.entries()) {
        const number = log.nextNumber();
        if (k === 0) this.#numbers.push(number);
        const value = record.slice();
        const length = value.length - RECORD_HEADER;
        writeHeader(value, Kind.extent, number, log.store, { length, rawLength: length, crc, codec: Codec.none });
        if (bytes >= BATCH_BYTES) {
          batches.push([]);
          bytes = 0;
        }
        batches.at(-1)!.push({ type: 'put', key: recordKey(number, Kind.extent), value });
        bytes += value.length;
      }
    }
    return batches;
  }

  /** A page at random: its record out of LevelDB, both checksums, one frame. */
  async #readSome(log: Log, reads: number): Promise<{ page: number; get: number }> {
    const choice = new Records();
    const random = (below: number): number => Math.floor((choice.random() / 2 ** 32) * below);
    const gets: number[] = [];
    const all: number[] = [];
    const most = pagesOf(this.#layout);
    for (let k = 0; k < reads; k++) {
      const page = random(this.#crcs.length);
      const number = this.#numbers[random(this.#numbers.length)]! + Math.floor(page / most);
      const start = performance.now();
      const record = await log.record(number, Kind.extent);
      const got = performance.now();
      const reader = new ExtentReader(openRecord(record!, Kind.extent, number, log.store), number);
      const crc = addon().crc32c(reader.page(page % most));
      all.push(performance.now() - start);
      gets.push(got - start);
      if (crc !== this.#crcs[page]) throw new Error(`page ${page} is not what was stored`);
    }
    return { page: 1000 * median(all), get: 1000 * median(gets) };
  }

  /** Everything once, in order, as much at a time as a restore reads. */
  async #readAll(log: Log): Promise<number> {
    const most = pagesOf(this.#layout);
    const atOnce = Math.max(1, Math.floor(PAGES_AT_ONCE / most));
    const target = new Uint8Array(most * PAGE_SIZE);
    const room = new Uint8Array(Math.max(SEGMENT_PAGES, most) * PAGE_SIZE);
    const found = new Uint32Array(most);
    const first = this.#numbers.at(-1)!;
    const start = performance.now();
    for (let k = 0; k < this.#encoded.length; k += atOnce) {
      const some = this.#encoded.slice(k, k + atOnce);
      const records = await log.records(
        some.map((_, j) => first + k + j),
        Kind.extent,
      );
      for (const [j, { first: page, count }] of some.entries()) {
        const number = first + k + j;
        const reader = new ExtentReader(openRecord(records[j]!, Kind.extent, number, log.store), number, room);
        for (let slot = 0; slot < count; slot++) target.set(reader.page(slot), slot * PAGE_SIZE);
        addon().crc32cPages(target.subarray(0, count * PAGE_SIZE), found.subarray(0, count));
        for (let slot = 0; slot < count; slot++) {
          if (found[slot] !== this.#crcs[page + slot]) throw new Error(`page ${page + slot} is not what was stored`);
        }
      }
    }
    return this.#pages.length / (performance.now() - start) / 1000;
  }
}

function median(samples: number[]): number {
  return samples.sort((a, b) => a - b)[Math.floor(samples.length / 2)]!;
}
