import init from '@sqlite.org/sqlite-wasm';

export type Connection = InstanceType<Awaited<ReturnType<typeof init>>['oo1']['DB']>;

// What exists and its declarations leave out.
type Sqlite = Awaited<ReturnType<typeof init>> & {
  capi: { sqlite3_get_autocommit(db: Connection): number };
  wasm: { memory: WasmMemory };
};
interface WasmMemory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

/** A page of the database is a page of the store, so that what a transaction wrote is what a checkpoint takes. */
export const pageSize = 4096;

// More than a page, so that the range is aligned on hosts with larger pages, too.
const alignment = 65_536;

/**
 * SQLite with its database in a page-aligned range of its WebAssembly memory.
 *
 * The buffer is lent to SQLite without SQLITE_DESERIALIZE_RESIZEABLE: the database grows within it, a transaction that
 * does not fit fails with SQLITE_FULL and is rolled back, and nothing ever moves it. Only the database is in the range:
 * the page cache and the rollback journal live elsewhere in the memory and are not part of a checkpoint, which is why
 * one is taken between transactions and why a restored range is opened by a new connection.
 */
export class PagedDatabase {
  readonly memory: WasmMemory;
  readonly byteOffset: number;
  readonly byteLength: number;
  readonly #sqlite: Sqlite;
  readonly #allocation: number;
  #db: Connection | undefined;

  private constructor(sqlite: Sqlite, capacity: number) {
    this.#sqlite = sqlite;
    this.memory = sqlite.wasm.memory;
    this.byteLength = Math.ceil(capacity / pageSize) * pageSize;
    this.#allocation = sqlite.wasm.alloc(this.byteLength + alignment);
    this.byteOffset = Math.ceil(this.#allocation / alignment) * alignment;
    this.#db = this.#connect(0);
  }

  /** A SQLite of its own (each call makes an instance with its own memory), with an empty database. */
  static async open(capacity = 32 * 1024 * 1024): Promise<PagedDatabase> {
    return new PagedDatabase((await init()) as Sqlite, capacity);
  }

  get db(): Connection {
    if (this.#db === undefined) throw new Error('the database is closed');
    return this.#db;
  }

  /**
   * Opens what is in the range now, after a restore: `length` bytes of database. The connection before and its statements
   * end: it would answer from its page cache, which is dropped only when the database's change counter differs, and two
   * branches may well have made as many transactions.
   */
  reopen(length: number): Connection {
    this.#db?.close();
    this.#db = undefined;
    this.#db = this.#connect(length);
    return this.#db;
  }

  /** The bytes of the range that are database. Throws inside a transaction, where the range holds only a part of it. */
  length(): number {
    const { capi, wasm } = this.#sqlite;
    if (capi.sqlite3_get_autocommit(this.db) === 0) throw new Error('in a transaction, the database is not consistent');
    const stack = wasm.pstack.pointer;
    try {
      const size = wasm.pstack.alloc(8);
      const data = capi.sqlite3_serialize(this.db, 'main', size, capi.SQLITE_SERIALIZE_NOCOPY);
      if (data !== this.byteOffset) throw new Error(`SQLite moved the database from ${this.byteOffset} to ${data}`);
      return Number(wasm.peek(size, 'i64'));
    } finally {
      wasm.pstack.restore(stack);
    }
  }

  /** A view of the database. It is detached when the memory grows: use it at once. */
  bytes(): Uint8Array {
    return new Uint8Array(this.memory.buffer, this.byteOffset, this.length());
  }

  /** All or nothing. (The one of `oo1` reports a full database as "cannot rollback", since SQLite has already done it.) */
  transaction<T>(work: (db: Connection) => T): T {
    const { db } = this;
    db.exec('BEGIN IMMEDIATE');
    try {
      const result = work(db);
      db.exec('COMMIT');
      return result;
    } catch (error) {
      if (this.#sqlite.capi.sqlite3_get_autocommit(db) === 0) db.exec('ROLLBACK');
      throw error;
    }
  }

  /** Gives the range back to SQLite's allocator: close the region on it first. */
  close(): void {
    if (this.#db === undefined) return;
    this.#db.close();
    this.#db = undefined;
    this.#sqlite.wasm.dealloc(this.#allocation);
  }

  #connect(length: number): Connection {
    const { capi, oo1 } = this.#sqlite;
    const db = new oo1.DB();
    try {
      db.checkRc(capi.sqlite3_deserialize(db, 'main', this.byteOffset, length, this.byteLength, 0));
      // This build starts databases with pages of 8 KiB. It has no effect on one that has pages already.
      db.exec(`PRAGMA page_size = ${pageSize}; PRAGMA journal_mode = MEMORY`);
      if (db.selectValue('PRAGMA page_size') !== pageSize)
        throw new Error(`the database does not have pages of ${pageSize} bytes`);
      return db;
    } catch (error) {
      db.close();
      throw error;
    }
  }
}

/** Opens a copy of a database, read-only, in a fresh SQLite, and closes it afterwards. */
export async function withDatabaseFrom<T>(bytes: Uint8Array, use: (db: Connection) => T): Promise<T> {
  const { capi, oo1, wasm } = await init();
  const copy = wasm.alloc(bytes.byteLength);
  wasm.heap8u().set(bytes, copy); // (allocFromTypedArray refuses a Buffer)
  const db = new oo1.DB();
  try {
    db.checkRc(capi.sqlite3_deserialize(db, 'main', copy, bytes.byteLength, bytes.byteLength, capi.SQLITE_DESERIALIZE_READONLY));
    return use(db);
  } finally {
    db.close();
    wasm.dealloc(copy);
  }
}
