import { random, text } from '../random.js';
import type { Connection, PagedDatabase } from './database.js';

const accounts = 2000;
const openingBalance = 10_000;
const keptOrders = 12_000;
const keptJournal = 4000;

/**
 * One row, one column: JSON that says what is in the database, for the metadata of a checkpoint. It is plain SQL, so
 * that any SQLite can answer it: the digests are sums over all rows of what would change with any column.
 */
export const fingerprintQuery = `
SELECT json_object(
  'transactions', (SELECT coalesce(max(id), 0) FROM journal),
  'accounts',     (SELECT count(*) FROM accounts),
  'balance',      (SELECT sum(balance) FROM accounts),
  'orders',       (SELECT count(*) FROM orders),
  'lastOrder',    (SELECT max(id) FROM orders),
  'digest', (SELECT sum((id * 1000003 + balance * 8191 + updated * 127 + length(owner) * 31 + unicode(substr(owner, 1 + id % length(owner)))) % 2147483647) FROM accounts)
          + (SELECT sum((id * 999983 + account * 8209 + amount * 131 + length(note) * 37 + unicode(state) + unicode(substr(note, 1 + id % length(note)))) % 2147483647) FROM orders)
          + (SELECT coalesce(sum((id * 999979 + debit * 8219 + credit * 8221 + amount) % 2147483647), 0) FROM journal)
)`;

export type Fingerprint = {
  transactions: number;
  accounts: number;
  balance: number;
  orders: number;
  lastOrder: number | null;
  digest: number;
};

export function fingerprint(db: Connection): Fingerprint {
  return JSON.parse(String(db.selectValue(fingerprintQuery))) as Fingerprint;
}

/** Empty when the database is whole; otherwise what SQLite found, and what breaks the rules of the workload. */
export function problems(db: Connection): string[] {
  const found = db.selectValues('PRAGMA integrity_check').map(String);
  const { balance } = fingerprint(db);
  if (balance !== accounts * openingBalance) found.push(`the balances add up to ${balance}, not to ${accounts * openingBalance}`);
  const lost = Number(db.selectValue('SELECT max(id) - min(id) + 1 - count(*) FROM journal'));
  if (lost !== 0) found.push(`${lost} transactions are missing in the journal`);
  return found.filter((line) => line !== 'ok');
}

/** A small shop: money moves between accounts, orders come, change and go, and a journal counts the transactions. */
export class Workload {
  readonly #database: PagedDatabase;
  #done: number;

  constructor(database: PagedDatabase) {
    this.#database = database;
    if (database.length() === 0) createTables(database);
    this.#done = fingerprint(database.db).transactions;
  }

  /** How many transactions the database has seen, in this process and before. */
  get transactions(): number {
    return this.#done;
  }

  run(count: number): void {
    const { db } = this.#database;
    const prepared = [
      'UPDATE accounts SET balance = balance + ?, updated = ? WHERE id = ?',
      'INSERT INTO orders (account, amount, state, note) VALUES (?, ?, ?, ?)',
      'UPDATE orders SET state = ?, note = ? WHERE id = (SELECT id FROM orders WHERE account = ? AND state = ? ORDER BY id LIMIT 1)',
      'DELETE FROM orders WHERE id <= (SELECT max(id) FROM orders) - ? AND id % 7 <> ?',
      'INSERT INTO journal (id, debit, credit, amount) VALUES (?, ?, ?, ?)',
      'DELETE FROM journal WHERE id <= ?',
    ].map((sql) => db.prepare(sql));
    const run = (statement: number, ...values: (number | string)[]) => prepared[statement]?.bind(values).stepReset();
    try {
      for (let i = 0; i < count; i++) {
        const id = this.#done + 1;
        // They depend on the transaction and nothing else: a run that was killed and goes on does what it would have done.
        const next = random(id);
        this.#database.transaction(() => {
          const debit = 1 + next(accounts);
          const credit = 1 + next(accounts);
          const amount = 1 + next(500);
          run(0, -amount, id, debit);
          run(0, amount, id, credit);
          for (let orders = 1 + next(4); orders > 0; orders--)
            run(1, 1 + next(accounts), 1 + next(9000), 'open', text(next, 4 + next(12)));
          for (let changes = next(4); changes > 0; changes--)
            run(2, 'sent', text(next, 3 + next(20)), 1 + next(accounts), 'open');
          if (id % 10 === 0) run(3, keptOrders, next(7));
          run(4, id, debit, credit, amount);
          if (id % 10 === 0) run(5, id - keptJournal);
        });
        this.#done = id;
      }
    } finally {
      for (const statement of prepared) statement.finalize();
    }
  }
}

function createTables(database: PagedDatabase): void {
  const next = random(0);
  database.transaction((db) => {
    db.exec(`
      CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance INTEGER NOT NULL, updated INTEGER NOT NULL);
      CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, account INTEGER NOT NULL REFERENCES accounts, amount INTEGER NOT NULL, state TEXT NOT NULL, note TEXT NOT NULL);
      CREATE INDEX orders_of_account ON orders (account, state);
      CREATE TABLE journal (id INTEGER PRIMARY KEY, debit INTEGER NOT NULL, credit INTEGER NOT NULL, amount INTEGER NOT NULL);`);
    const insert = db.prepare('INSERT INTO accounts VALUES (?, ?, ?, 0)');
    try {
      for (let id = 1; id <= accounts; id++) insert.bind([id, text(next, 2 + next(4)), openingBalance]).stepReset();
    } finally {
      insert.finalize();
    }
  });
}
