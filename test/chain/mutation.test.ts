import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ExtentReader, encodeExtent, scratchSize } from '../../lib/chain/extent.js';
import { applyLevelTable, decodeLevelTable, encodeLevelTable } from '../../lib/chain/level-table.js';
import { decodeManifest, encodeManifest } from '../../lib/chain/manifest.js';
import { PageTable, RegionTable, Version } from '../../lib/chain/page-table.js';
import { Kind, openRecord, packRecord } from '../../lib/chain/record.js';
import { zstd } from '../../lib/chain/zstd.js';
import { TidemarkError } from '../../lib/errors.js';
import { addon } from '../../lib/kernel/addon.js';
import { manifest } from './manifest-arbitrary.js';
import { mutate, PAGE, random, STORE } from './support.js';

const INPUTS = 20_000;
/** One input may not take longer; a garbage collection in the middle is allowed for. Of the processor: others may have it for a while. */
const SLOWEST_MS = 1000;
const MEMORY_KB = 256 << 10;

/** Feeds a decoder mutants of `originals`: a TidemarkError or a result, nothing else, and soon. */
function hammer(seed: number, originals: Uint8Array[], decode: (mutant: Uint8Array) => void): void {
  const pick = random(seed);
  const memory = process.resourceUsage().maxRSS;
  let refused = 0;
  for (let k = 0; k < INPUTS; k++) {
    const mutant = mutate(originals[k % originals.length]!, pick);
    const started = process.cpuUsage();
    try {
      decode(mutant);
    } catch (error) {
      if (!(error instanceof TidemarkError)) {
        (error as Error).message += ` (input ${k}: ${Buffer.from(mutant.subarray(0, 200)).toString('hex')})`;
        throw error;
      }
      assert.ok(['TIDEMARK_DAMAGED', 'TIDEMARK_STORE_FORMAT', 'TIDEMARK_CHAIN_BROKEN'].includes(error.code), error.message);
      refused++;
    }
    const { user, system } = process.cpuUsage(started);
    assert.ok(user + system < SLOWEST_MS * 1000, `input ${k} took ${(user + system) / 1000} ms`);
  }
  assert.ok(refused > INPUTS / 4, `only ${refused} mutants were refused: are they mutants?`);
  const grown = process.resourceUsage().maxRSS - memory;
  assert.ok(grown < MEMORY_KB, `${grown} KB more memory`);
}

function levelTable(): { payload: Uint8Array; table: PageTable } {
  const pick = random(20);
  const table = new PageTable();
  table.boundaries.fill('ab'.repeat(16));
  for (const [number, pages] of [300, 1, 40].entries()) {
    const region = new RegionTable(number, `r${number}`, pages * PAGE, pages * PAGE, pages);
    table.regions.set(region.name, region);
    for (let page = 0; page < pages; page++) {
      if (pick(4) === 0) region.setZero(page, 15);
      else if (pick(3) > 0) {
        region.setStored(page, Version.full, 2 ** 33 + Math.floor(page / 7), page % 7, pick(2 ** 32), 15);
        for (let deltas = pick(3) * pick(4); deltas > 0; deltas--)
          region.setStored(page, Version.delta, 2 ** 34 + 100 * deltas + Math.floor(page / 9), page % 9, pick(2 ** 32), 15);
      }
    }
  }
  return { payload: encodeLevelTable('cd'.repeat(16), 2, table).slice(), table };
}

function versionsOf(region: RegionTable, page: number): number[][] {
  const versions: number[][] = [];
  if (region.isStored(page)) region.versions(page, (...version) => versions.push(version));
  return versions;
}

function extents(): Uint8Array[] {
  const context = new (zstd().CCtx)();
  const scratch = new Uint8Array(scratchSize());
  return [1, 17, 40].map((count) => {
    const pick = random(count);
    const pages = Uint8Array.from({ length: count * PAGE }, (_, k) => ((k >> 12) % 3 === 0 ? pick(256) : k % 50));
    const target = new Uint8Array(pages.length + 4096);
    return target.slice(0, encodeExtent(target, pages, count, context, scratch));
  });
}

describe('chain: decoders under mutated input', () => {
  it('manifests', () => {
    const originals = fc.sample(manifest, { numRuns: 40, seed: 21 }).map((m) => encodeManifest(m).slice());
    hammer(21, originals, (mutant) => decodeManifest(mutant, 1));
  });

  it('page tables', () => {
    const { payload, table } = levelTable();
    hammer(22, [payload], (mutant) => {
      const level = decodeLevelTable(mutant, 1);
      const fresh = new PageTable();
      for (const { number, name, byteLength, pageCount } of table.regions.values())
        fresh.regions.set(name, new RegionTable(number, name, byteLength, byteLength, pageCount));
      applyLevelTable(level, fresh, 15, 1);
    });
  });

  it('page tables decode to what was encoded', () => {
    const { payload, table } = levelTable();
    const fresh = new PageTable();
    for (const { number, name, byteLength, pageCount } of table.regions.values())
      fresh.regions.set(name, new RegionTable(number, name, byteLength, byteLength, pageCount));
    applyLevelTable(decodeLevelTable(payload, 1), fresh, 0, 1);
    for (const [name, region] of table.regions) {
      const other = fresh.regions.get(name)!;
      assert.deepEqual([...other.differences(region)], []);
      for (let page = 0; page < region.pageCount; page++) {
        assert.equal(other.kind(page), region.kind(page));
        assert.deepEqual(versionsOf(other, page), versionsOf(region, page));
        assert.equal(other.crc[page], region.crc[page]);
      }
    }
  });

  it('extents, every page of them', () => {
    hammer(23, extents(), (mutant) => {
      const reader = new ExtentReader(mutant, 1);
      // A directory may claim 65,535 pages of a few bytes each: what is read is bounded by what is asked for.
      for (let slot = 0; slot < Math.min(reader.count, 40); slot++) reader.page(slot);
    });
  });

  it('records as they are on disk', () => {
    const originals = [
      packRecord(Kind.manifest, 9, STORE, new Uint8Array(100).fill(7)),
      packRecord(Kind.manifest, 9, STORE, new Uint8Array(5000).fill(7)),
    ];
    hammer(24, originals, (mutant) => {
      const same = originals.some((original) => Buffer.from(original).equals(mutant));
      openRecord(mutant, Kind.manifest, 9, STORE);
      assert.ok(same, 'a mutant was taken for a record');
    });
  });

  it('records with right checksums', () => {
    const originals = [
      packRecord(Kind.table, 9, STORE, levelTable().payload),
      packRecord(Kind.table, 9, STORE, new Uint8Array(9000)),
    ];
    hammer(25, originals, (mutant) => {
      if (mutant.length >= 56) {
        const view = new DataView(mutant.buffer);
        view.setUint32(40, mutant.length - 56, true);
        view.setUint32(48, addon().crc32c(mutant.subarray(56)), true);
        view.setUint32(52, addon().crc32c(mutant.subarray(0, 52)), true);
      }
      openRecord(mutant, Kind.table, 9, STORE);
    });
  });
});
