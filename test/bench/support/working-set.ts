import { join } from 'node:path';
import { PagedDatabase } from '../../../examples/sqlite-pages/database.js';
import { Checkpointer, Region } from '../../../lib/index.js';
import { engineFor } from './pair.js';
import { show, spread } from './spread.js';
import type { Bench } from './suite.js';

/** Rows of about 200 bytes with two indexes. */
const ROW_BYTES = 320;
/** Keys of the query: as many rows, each somewhere else. */
const KEYS = 200;

type Way = 'eager' | 'lazy' | 'lazy, with the working set of the time before';

/** SQLite as of examples/sqlite-pages with a large database: until its first query is answered after a restore. */
export async function measureWorkingSet({ report, quick, scratch }: Bench): Promise<void> {
  const capacity = (quick ? 32 : 256) << 20;
  const folder = join(scratch, 'working-set');
  const { length, answer } = await store(folder, capacity);
  const ways: { way: Way; id: number; lazy: boolean }[] = [
    { way: 'eager', id: 1, lazy: false },
    { way: 'lazy', id: 1, lazy: true },
    { way: 'lazy, with the working set of the time before', id: 2, lazy: true },
  ];
  const rows = new Map<Way, { ms: number[]; faults: number[]; usable: number[] }>(
    ways.map(({ way }) => [way, { ms: [], faults: [], usable: [] }]),
  );
  for (let round = 0; round < (quick ? 2 : 5); round++) {
    for (const { way, id, lazy } of ways) {
      const found = await restored(folder, capacity, length, id, lazy);
      if (found.answer !== answer) throw new Error(`${way}: another answer`);
      const row = rows.get(way)!;
      row.ms.push(found.ms);
      row.faults.push(found.faults);
      row.usable.push(found.usable);
    }
  }
  report.table({
    title: `SQLite in ${capacity >> 20} MiB of memory, restored: its first query, which reads ${KEYS} rows by an index`,
    columns: ['restore', 'until the memory can be used', 'until the query is answered', 'pages that the query waited for'],
    rows: [...rows].map(([way, { ms, faults, usable }]) => [
      way,
      show(spread(usable), 'ms'),
      show(spread(ms), 'ms'),
      way === 'eager' ? '' : show(spread(faults), ''),
    ]),
  });
}

async function store(folder: string, capacity: number): Promise<{ length: number; answer: string }> {
  const made = await PagedDatabase.open(capacity);
  const rows = Math.floor((capacity * 0.8) / ROW_BYTES);
  made.db.exec(`CREATE TABLE item (id INTEGER PRIMARY KEY, code INTEGER, name TEXT, data BLOB);
    CREATE INDEX item_code ON item (code);
    WITH RECURSIVE n (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n WHERE k < ${rows})
      INSERT INTO item SELECT k, (k * 7919) % 1000003, 'item ' || k, zeroblob(100) || hex(k * 2654435761) || hex(k * 40503 * k) FROM n;`);
  const length = made.length();
  const answer = query(made, rows);
  const region = Region.of(made.memory as never, { byteOffset: made.byteOffset, byteLength: made.byteLength });
  const checkpointer = await Checkpointer.open(folder, { regions: { database: region }, engine: engineFor(capacity) });
  await checkpointer.checkpoint({ lengths: { database: length } });
  await checkpointer.close();
  region.close();
  made.close();
  // Once lazily, with what is touched noted: the second checkpoint.
  await restored(folder, capacity, length, 1, true, true);
  return { length, answer };
}

function query(database: PagedDatabase, rows: number): string {
  let sum = '';
  for (let k = 0; k < KEYS; k++) {
    const code = (((k * 104_729) % rows) * 7919) % 1_000_003;
    sum += String(database.db.selectValue('SELECT group_concat(name) FROM item WHERE code = ?', [code]));
  }
  return sum;
}

async function restored(
  folder: string,
  capacity: number,
  length: number,
  id: number,
  lazy: boolean,
  takes = false,
): Promise<{ ms: number; usable: number; faults: number; answer: string }> {
  const database = await PagedDatabase.open(capacity);
  const region = Region.of(database.memory as never, { byteOffset: database.byteOffset, byteLength: database.byteLength });
  const engine = engineFor(capacity);
  const checkpointer = await Checkpointer.open(folder, { regions: { database: region }, engine, workingSet: takes });
  const start = performance.now();
  const restoration = await checkpointer.restore(id, { lazy });
  const usable = performance.now() - start;
  database.reopen(length);
  const answer = query(database, Math.floor((capacity * 0.8) / ROW_BYTES));
  const ms = performance.now() - start;
  const faults = restoration.stats().lazy?.faults ?? 0;
  if (takes) await checkpointer.checkpoint({ lengths: { database: length } });
  await restoration.done;
  await checkpointer.close();
  await engine.close();
  region.close();
  database.close();
  return { ms, usable, faults, answer };
}
