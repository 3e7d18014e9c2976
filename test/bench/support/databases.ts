import { Interpreter } from '../../../examples/durable-vm/interpreter.js';
import { boot, load, makeStep } from '../../../examples/durable-vm/vm.js';
import { random, text } from '../../../examples/random.js';
import { PagedDatabase } from '../../../examples/sqlite-pages/database.js';
import { Workload } from '../../../examples/sqlite-pages/workload.js';
import { Region, type WasmMemory } from '../../../lib/index.js';

/** A program whose state is one memory, and what is done to it between two checkpoints. */
export interface Database {
  database: { memory: WasmMemory; byteOffset?: number; byteLength?: number; close(): void };
  write(): void;
}

/** Orders in the database before the first checkpoint. */
export const ORDERS = 60_000;
/** Transactions of the example before the first checkpoint. */
const WARM_UP = 3000;
const ACCOUNTS = 2000;

/** One transaction of `changes` rows: half of them updates at random, half inserts. */
export async function transactions(changes: number): Promise<Database> {
  const database = await PagedDatabase.open();
  // It makes the tables.
  new Workload(database);
  const next = random(1);
  const insert = (): void => {
    const values = [1 + next(ACCOUNTS), 1 + next(9000), 'open', text(next, 4 + next(12))];
    database.db.exec('INSERT INTO orders (account, amount, state, note) VALUES (?, ?, ?, ?)', { bind: values });
  };
  const update = (): void => {
    database.db.exec('UPDATE orders SET amount = ? WHERE id = ?', { bind: [1 + next(9000), 1 + next(ORDERS)] });
  };
  database.transaction(() => {
    for (let k = 0; k < ORDERS; k++) insert();
  });
  const write = (): void =>
    database.transaction(() => {
      for (let k = 0; k < changes; k += 2) {
        update();
        insert();
      }
    });
  return { database, write };
}

/** As many transactions of the example as change `changes` rows. */
export async function shop(changes: number): Promise<Database> {
  const database = await PagedDatabase.open();
  const workload = new Workload(database);
  workload.run(WARM_UP);
  const write = (): void => {
    for (const before = database.db.changes(true); database.db.changes(true) - before < changes; ) workload.run(1);
  };
  return { database, write };
}

/** The interpreter of examples/durable-vm and its program: a step each time. */
export async function virtualMachine(): Promise<Database> {
  const loaded = await load();
  const interpreter = new Interpreter(loaded);
  boot(interpreter, loaded);
  let step = 0;
  return { database: { memory: interpreter.memory, close: () => {} }, write: () => void makeStep(interpreter, ++step) };
}

/** The memory of a program as a region: a part of it, or all. */
export function regionOf({ database: { memory, byteOffset, byteLength } }: Database): Region {
  return byteOffset === undefined
    ? Region.of(memory)
    : Region.of(memory, { byteOffset, ...(byteLength === undefined ? {} : { byteLength }) });
}
