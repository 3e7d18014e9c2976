import { toPages } from '../../../lib/chain/runs.js';
import { Region } from '../../../lib/index.js';
import { PAGE_SIZE } from '../../../lib/kernel/addon.js';
import { Records } from '../support/data.js';
import { type Database, ORDERS, regionOf, shop, transactions, virtualMachine } from '../support/databases.js';

/** What was written between two checkpoints. */
export interface Epoch {
  /** Ascending; their contents are packed in `bytes`. */
  pages: Uint32Array;
  bytes: Uint8Array;
  /** Pages that are zero. */
  zeros: Uint32Array;
}

/** What a program wrote, recorded once, so that it can be encoded in many ways. The first epoch is everything that was there. */
export interface Workload {
  name: string;
  what: string;
  epochs: Epoch[];
}

/** Takes epochs of a region as a capture would. */
export class Recorder {
  readonly epochs: Epoch[] = [];
  readonly #region: Region;

  constructor(region: Region) {
    this.#region = region;
    region.takeDirtyRanges();
    this.#take(region.populated());
  }

  take(): void {
    this.#take(this.#region.takeDirtyRanges());
  }

  #take(runs: Uint32Array): void {
    const view = this.#region.view();
    const zero = Buffer.alloc(PAGE_SIZE);
    const dirty = toPages(runs);
    const contents = (page: number): Uint8Array => view.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    const isZero = dirty.map((page) => (zero.equals(contents(page)) ? 1 : 0));
    const pages = dirty.filter((_, k) => isZero[k] === 0);
    const bytes = new Uint8Array(pages.length * PAGE_SIZE);
    for (const [k, page] of pages.entries()) bytes.set(contents(page), k * PAGE_SIZE);
    this.epochs.push({ pages, bytes, zeros: dirty.filter((_, k) => isZero[k] === 1) });
  }
}

/** Records of 64 bytes in a region, and what `write` does to them before each epoch but the first. */
function recordRecords(
  mib: number,
  epochs: number,
  write: (records: Records, memory: Uint8Array, epoch: number) => void,
): Epoch[] {
  const region = Region.allocate(mib << 20);
  const memory = new Uint8Array(region.buffer);
  const records = new Records();
  records.fill(memory);
  const recorder = new Recorder(region);
  for (let epoch = 0; epoch < epochs; epoch++) {
    write(records, memory, epoch);
    recorder.take();
  }
  region.close();
  return recorder.epochs;
}

/** One record in each of 1 % of the pages, at random. */
export function uniform(mib: number, epochs: number): Workload {
  const count = Math.floor((mib << 20) / PAGE_SIZE / 100);
  return {
    name: 'D',
    what: `${mib} MiB of records, one of 64 bytes rewritten in each of ${count} pages at random, ${epochs} times`,
    epochs: recordRecords(mib, epochs, (records, memory) => records.touch(memory, count)),
  };
}

/** One record in each page of the same 1 %, every time. */
export function hot(mib: number, epochs: number): Workload {
  const count = Math.floor((mib << 20) / PAGE_SIZE / 100);
  return {
    name: 'D, hot',
    what: `the same, in the same ${count} pages every time, ${epochs} times`,
    epochs: recordRecords(mib, epochs, (records, memory) => {
      const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
      for (let k = 0; k < count; k++) records.write(view, memory, k * 100 * PAGE_SIZE + records.below(64) * 64);
    }),
  };
}

/** From 1 to all of the 64 records of a page: this is where the threshold decides. */
export function parts(mib: number, epochs: number): Workload {
  const count = Math.floor((mib << 20) / PAGE_SIZE / 100);
  return {
    name: 'parts of pages',
    what: `${mib} MiB of records, 1 to 64 of them rewritten in each of ${count} pages at random, ${epochs} times`,
    epochs: recordRecords(mib, epochs, (records, memory) => {
      const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
      for (let k = 0; k < count; k++) {
        const page = records.below(memory.length / PAGE_SIZE);
        for (let record = records.below(64); record >= 0; record--) records.write(view, memory, page * PAGE_SIZE + record * 64);
      }
    }),
  };
}

/** A database that transactions run on, each epoch as many as `write` makes. */
async function recordDatabase(name: string, what: string, epochs: number, make: () => Promise<Database>): Promise<Workload> {
  const program = await make();
  const { database, write } = program;
  const region = regionOf(program);
  const recorder = new Recorder(region);
  for (let epoch = 0; epoch < epochs; epoch++) {
    write();
    recorder.take();
  }
  region.close();
  database.close();
  return { name, what: `${what}, ${epochs} times`, epochs: recorder.epochs };
}

/** One transaction of as many updates at random as inserts. */
export function sqlite(epochs: number, changes: number): Promise<Workload> {
  const what = `a transaction of ${changes} updates and inserts on the database of examples/sqlite-pages, ${ORDERS} orders`;
  return recordDatabase('SQLite', what, epochs, () => transactions(changes));
}

/** What examples/sqlite-pages does, which also deletes. */
export function sqliteShop(epochs: number, changes: number): Promise<Workload> {
  const what = `transactions of examples/sqlite-pages, ${changes} rows changed`;
  return recordDatabase('SQLite, shop', what, epochs, () => shop(changes));
}

/** The interpreter of examples/durable-vm, a step an epoch. */
export function vm(epochs: number): Promise<Workload> {
  return recordDatabase('VM', 'a step of examples/durable-vm', epochs, virtualMachine);
}
