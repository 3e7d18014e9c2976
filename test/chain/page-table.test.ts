import assert from 'node:assert/strict';
import { constants } from 'node:buffer';
import { join } from 'node:path';
import { ByteReader, ByteWriter } from '../../lib/chain/bytes.js';
import { applyLevelTable, decodeLevelTable } from '../../lib/chain/level-table.js';
import { loadPageTable, readManifest } from '../../lib/chain/load.js';
import { deletion } from '../../lib/chain/log.js';
import { LEVELS, levelSpan, PageTable, pendingLevels, RegionTable, tableLevel, Version } from '../../lib/chain/page-table.js';
import { Kind, packRecord, recordKey } from '../../lib/chain/record.js';
import { code, PAGE, random, withFolder } from './support.js';
import { SyntheticChain } from './synthetic-chain.js';

function versionsOf(region: RegionTable, page: number): number[][] {
  const versions: number[][] = [];
  region.versions(page, (...version) => versions.push(version));
  return versions;
}

/** Everything that a page table says, as plain data. */
function contents(table: PageTable): object {
  const regions = [...table.regions.values()].map((region) => ({
    name: region.name,
    number: region.number,
    byteLength: region.byteLength,
    pages: Array.from({ length: region.pageCount }, (_, page) =>
      region.isStored(page)
        ? [region.crc[page], ...versionsOf(region, page)]
        : region.kind(page) === Version.zero
          ? 'zero'
          : 'absent',
    ),
    pending: Array.from({ length: LEVELS }, (_, k) => [...region.pendingPages(k + 1)]),
  }));
  return { depth: table.depth, state: table.state, boundaries: [...table.boundaries], regions };
}

/** Records that a load of this depth reads: one a manifest on the way, two where there is a table. */
function mostReads(depth: number): number {
  let reads = 1;
  for (let level = 0, rest = depth; rest > 0; level++, rest = Math.floor(rest / 16)) reads += (level === 0 ? 1 : 2) * (rest % 16);
  return reads;
}

describe('chain: page tables', () => {
  it('has a table of level k at every multiple of 16^k', () => {
    assert.deepEqual(
      [0, 1, 15, 16, 17, 32, 255, 256, 272, 4096, 65536, 2 ** 20].map(tableLevel),
      [0, 0, 0, 1, 0, 1, 0, 2, 1, 3, 4, 4],
    );
    assert.equal(levelSpan(3), 4096);
  });

  it('knows which levels a change is news for', () => {
    assert.equal(pendingLevels(5, 7), 0b1111);
    assert.equal(pendingLevels(16, 16), 0b1110);
    assert.equal(pendingLevels(16, 40), 0b1110);
    assert.equal(pendingLevels(33, 40), 0b1111);
    assert.equal(pendingLevels(256, 300), 0b1100);
  });

  it('keeps record numbers up to 2^48 and grows without forgetting', () => {
    const region = new RegionTable(3, 'r', 4096, 4096, 1);
    region.setStored(0, Version.full, 2 ** 48 - 1, 255, 0xffff_ffff, 0b1111);
    region.grow(5000);
    assert.deepEqual([region.record(0), region.slot[0], region.crc[0]], [2 ** 48 - 1, 255, 0xffff_ffff]);
    assert.equal(region.kind(4999), Version.absent);
    region.clearPending(LEVELS);
    region.setZero(0, 0b0010);
    assert.deepEqual([region.kind(0), [...region.pendingPages(1)], [...region.pendingPages(2)]], [Version.zero, [], [0]]);
  });

  it('is the same loaded as replayed after each of 600 checkpoints, and reads a bounded number of records', async () => {
    await withFolder(async (folder) => {
      const chain = await SyntheticChain.open(join(folder, 'store'));
      const pick = random(11);
      for (let depth = 0; depth <= 600; depth++) {
        await chain.checkpoint(pick);
        chain.reads = 0;
        const loaded = await loadPageTable(chain.log, chain.head, chain.find);
        assert.ok(chain.reads <= mostReads(depth), `depth ${depth}: ${chain.reads} records read, ${mostReads(depth)} needed`);
        if (depth === 300) assert.ok(chain.reads <= 20, `${chain.reads} records for depth 300`);
        assert.deepEqual(contents(loaded), contents(chain.table), `depth ${depth}`);
        chain.checkAgainstReplay(loaded);
        // What is loaded must be as good to go on from as what was kept.
        if (pick(3) === 0) chain.table = loaded;
      }
      await chain.log.close();
    });
  });

  it('is right for checkpoints in the past, and for branches that fork from them', async () => {
    await withFolder(async (folder) => {
      const chain = await SyntheticChain.open(join(folder, 'store'));
      const pick = random(12);
      const saved: { header: typeof chain.head; contents: object }[] = [];
      for (let k = 0; k < 200; k++) {
        await chain.checkpoint(pick);
        saved.push({ header: chain.head, contents: contents(chain.table) });
        if (k % 23 === 22) await chain.fork(saved[pick(saved.length)]!.header);
      }
      for (const { header, contents: expected } of saved)
        assert.deepEqual(contents(await loadPageTable(chain.log, header, chain.find)), expected);
      await chain.log.close();
    });
  });

  it('is CHAIN_BROKEN or DAMAGED when any record on the way is missing or is another one', async () => {
    await withFolder(async (folder) => {
      const chain = await SyntheticChain.open(join(folder, 'store'));
      const pick = random(13);
      const headers = [];
      for (let k = 0; k <= 35; k++) {
        await chain.checkpoint(pick);
        headers.push(chain.head);
      }
      const { head } = chain;
      const load = () => loadPageTable(chain.log, head, chain.find);
      // 35 = 2 * 16 + 3: manifests 35, 34, 33, 32, its table and 16 with its table, the root.
      for (const depth of [35, 34, 33, 32, 16, 0]) {
        const header = headers[depth]!;
        const manifest = await readManifest(chain.log, header.manifest);
        for (const [number, kind] of [[header.manifest, Kind.manifest] as const, [manifest.tableRecord, Kind.table] as const]) {
          if (number === 0) continue;
          const record = Uint8Array.from((await chain.log.record(number, kind))!);
          await chain.log.write([deletion(number, kind)], false);
          await assert.rejects(load(), code('TIDEMARK_CHAIN_BROKEN'), `${depth} without record ${number}`);
          await chain.log.write([{ type: 'put', key: recordKey(number, kind), value: record }], false);
          const damaged = record.slice();
          damaged[damaged.length - 1]! ^= 1;
          await chain.log.write([{ type: 'put', key: recordKey(number, kind), value: damaged }], false);
          await assert.rejects(load(), code('TIDEMARK_DAMAGED'));
          await chain.log.write([{ type: 'put', key: recordKey(number, kind), value: record }], false);
        }
      }
      await load();
      // A whole record with a right checksum, but of another checkpoint.
      const manifests = [headers[34]!.manifest, headers[16]!.manifest];
      const stolen = await chain.log.payload(headers[20]!.manifest, Kind.manifest);
      for (const number of manifests) {
        const record = Uint8Array.from((await chain.log.record(number, Kind.manifest))!);
        const forged = packRecord(Kind.manifest, number, chain.log.store, stolen);
        await chain.log.write([{ type: 'put', key: recordKey(number, Kind.manifest), value: forged }], false);
        await assert.rejects(load(), code('TIDEMARK_CHAIN_BROKEN', 'TIDEMARK_DAMAGED'));
        await chain.log.write([{ type: 'put', key: recordKey(number, Kind.manifest), value: record }], false);
      }
      const tables = [];
      for (const depth of [16, 32]) tables.push((await readManifest(chain.log, headers[depth]!.manifest)).tableRecord);
      const payload = await chain.log.payload(tables[0]!, Kind.table);
      assert.equal(decodeLevelTable(payload, tables[0]!).level, 1);
      await chain.log.write(
        [
          {
            type: 'put',
            key: recordKey(tables[1]!, Kind.table),
            value: packRecord(Kind.table, tables[1]!, chain.log.store, payload),
          },
        ],
        false,
      );
      await assert.rejects(load(), code('TIDEMARK_DAMAGED'));
      await chain.log.close();
    });
  });

  it('takes no memory for pages that are only claimed', () => {
    const far = {
      records: Float64Array.of(5),
      firsts: Uint32Array.of(100_000_000),
      lengths: Uint32Array.of(1),
      slots: Uint8Array.of(0),
    };
    const nothing = { ...far, lengths: Uint32Array.of(0) };
    const before = process.memoryUsage().rss;
    const region = new RegionTable(0, 'r', 2 ** 39, 2 ** 39, 2 ** 27);
    region.addRuns(Uint8Array.of(Version.full), nothing, undefined, 0);
    assert.equal(region.crc.length, 0);
    region.addRuns(Uint8Array.of(Version.full), far, new Uint8Array(4), 0);
    assert.equal(region.record(100_000_000), 5);
    assert.ok(process.memoryUsage().rss - before < 64 << 20, `${process.memoryUsage().rss - before} bytes`);
    // More than an array can have: damage, and not an error that says nothing.
    const huge = new RegionTable(0, 'r', 2 ** 44, 2 ** 44, 2 ** 32);
    const last = { ...far, firsts: Uint32Array.of(2 ** 32 - 1) };
    if (constants.MAX_LENGTH < 2 ** 35)
      assert.throws(() => huge.addRuns(Uint8Array.of(Version.full), last, new Uint8Array(4), 0), code('TIDEMARK_DAMAGED'));
  });

  it('has no older versions but below deltas', () => {
    const layers = (kind: number, below: number[]) => {
      const out = new ByteWriter();
      for (const field of [0, 3, kind, 2]) out.varint(field);
      out.u8(0);
      out.raw(new Uint8Array(12));
      out.varint(below.length);
      for (const count of below) {
        for (const field of [1, 0, count, Version.delta, 2]) out.varint(field);
        out.u8(0);
      }
      const table = new PageTable();
      table.regions.set('r', new RegionTable(0, 'r', 100 * PAGE, 100 * PAGE, 100));
      const read = new ByteReader(out.bytes().slice(), 'the test');
      applyLevelTable({ uid: '', level: 1, base: '', regions: [{ number: 0, entries: 1, pageCount: 100, read }] }, table, 0, 7);
    };
    layers(Version.delta, [3, 3]);
    layers(Version.delta, [2, 1]);
    for (const below of [[4], [3, 4], [2, 3]]) assert.throws(() => layers(Version.delta, below), code('TIDEMARK_DAMAGED'));
    assert.throws(() => layers(Version.full, [1]), code('TIDEMARK_DAMAGED'));
  });
});
