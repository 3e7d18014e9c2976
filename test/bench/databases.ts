import { random, text } from '../../examples/random.js';
import { PagedDatabase } from '../../examples/sqlite-pages/database.js';
import { Workload } from '../../examples/sqlite-pages/workload.js';

/** A database in memory, and what is done to it between two checkpoints. */
export interface Database {
  database: PagedDatabase;
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
