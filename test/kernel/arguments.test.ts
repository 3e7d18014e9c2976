import assert from 'node:assert/strict';
import { addon, type LoadingColumns, PAGE_SIZE } from '../../lib/kernel/addon.js';
import { userfaultfdVerbs } from '../userfaultfd/verbs.js';
import { withRegion } from './support.js';

/** What versions are added to: nothing. */
function loading(): LoadingColumns {
  return [new Uint8Array(), new Uint8Array(), new Uint32Array(), new Uint32Array(), new Uint8Array(), new Uint32Array(3)];
}

describe('kernel: types of arguments', () => {
  it('throws a TypeError for each argument of a wrong type', () => {
    withRegion(4, (id, view) => {
      const runs = new Uint32Array();
      const good: Record<string, unknown[]> = {
        allocate: [PAGE_SIZE, false],
        mapFile: ['/dev/shm/no-such-file', 0, 0, false],
        mappedBytes: [view],
        memoryChange: [new Uint8Array(addon().allocate(PAGE_SIZE, false)), 0],
        regionOpen: [new Uint8Array(addon().allocate(PAGE_SIZE, false))],
        regionExtend: [id, view],
        regionReset: [id, view],
        regionScan: [id, view, true],
        regionPopulated: [id, view, 0],
        regionHuge: [id, view],
        regionGiveBack: [id, view, runs],
        copyPages: [id, view, runs, 0, new Uint8Array(), new Int32Array(), new Uint32Array(), new Uint32Array(), 1],
        regionFill: [id, new Uint8Array(), new Uint32Array()],
        regionZero: [id, runs],
        regionBecomeLazy: [id, new Uint32Array(), false, () => {}],
        regionEndServing: [1],
        regionFaults: [1],
        regionMissing: [1, 0, 1],
        regionStillMissing: [1, new Uint32Array()],
        regionExpect: [1, new Uint32Array()],
        regionTouched: [1, 1],
        regionSupply: [1, new Uint8Array(), new Uint32Array(), false, 0, 0, new Uint32Array(), new Uint8Array()],
        regionPoison: [1, runs],
        regionResidence: [1],
        regionFetch: [id, runs],
        regionPoisoned: [id, false],
        exiting: [0],
        tableStored: [new Uint8Array()],
        tableDifferences: [new Uint8Array(), new Uint8Array()],
        pick: [new Uint32Array(), new Uint32Array()],
        tableSum: [0, new Uint8Array()],
        decodeLayer: [new Uint8Array(), 0, 0, true],
        decodeExtents: [Uint8Array.of(0), 0, 1],
        tableAddRuns: [
          ...loading(),
          0,
          new Uint8Array(),
          new Float64Array(),
          new Uint32Array(),
          new Uint32Array(),
          new Uint8Array(),
          new Uint8Array(),
        ],
        ringCreate: [1],
        ringJoin: [1],
        ringAcquire: [1, 1, 1],
        ringRelease: [1, new Int32Array()],
        ringStarved: [1],
        ringFree: [1],
        ringClose: [1],
        shadowsCreate: [PAGE_SIZE],
        shadowsJoin: [1],
        shadowsUsed: [1],
        shadowsClose: [1],
        shadowOpen: [1],
        shadowClose: [1, 1],
        shadowFail: [1, 1, 0],
        shadowDrop: [1, 1, 0],
        shadowForget: [1, 1, runs],
        shadowPut: [1, 1, new Uint32Array(), new Uint8Array(), new Uint32Array(), new Uint8Array()],
        shadowSkip: [1, new Uint32Array(7)],
        shadowEncode: [
          1,
          new Uint32Array(7),
          new Uint32Array(),
          new Uint32Array(),
          new Uint8Array(),
          new Uint8Array(),
          new Uint8Array(),
          new Uint32Array(),
          new Uint32Array(),
        ],
        shadowCorrupt: [1, 1],
        regionRead: [id, new Uint32Array(), new Uint32Array(), new Uint8Array(), new Int32Array()],
        assemblePages: [new Uint8Array(), true, new Uint32Array(), new Uint8Array(), new Int32Array()],
        crc32c: [new Uint8Array()],
        crc32cPages: [new Uint8Array(), new Uint32Array()],
        stateSum: [0, new Uint32Array(), new Uint32Array()],
        storeLock: ['/'],
        storeUnlock: [1],
        keepLoaded: ['/no-such-library/'],
        syncLogs: ['/'],
        ...userfaultfdVerbs(),
        regionClose: [id],
      };
      const verbs = addon() as unknown as Record<string, (...args: unknown[]) => unknown>;
      assert.deepEqual(Object.keys(verbs).sort(), [...Object.keys(good), 'probe'].sort());
      const bad = [
        undefined,
        null,
        'x',
        {},
        [],
        Symbol('s'),
        () => 1,
        1n,
        new DataView(new ArrayBuffer(8)),
        new Float64Array(2),
        new Uint8ClampedArray(8),
        new BigInt64Array(1),
      ];
      for (const [name, args] of Object.entries(good)) {
        for (let i = 0; i < args.length; i++) {
          for (const value of bad) {
            if (typeof value === typeof args[i] && ['string', 'function'].includes(typeof value)) continue;
            if (value instanceof Float64Array && args[i] instanceof Float64Array) continue;
            const wrong = args.with(i, value);
            assert.throws(
              () => verbs[name]?.(...wrong),
              (error) => error instanceof TypeError,
              `${name} with ${String(value)} as argument ${i}`,
            );
          }
        }
        assert.throws(() => verbs[name]?.(), TypeError);
      }
      for (const value of [-1, 0.5, NaN, Infinity, 2 ** 32])
        assert.throws(() => addon().regionScan(value, view, false), RangeError);
      assert.throws(() => addon().storeLock(''), TypeError);
      assert.throws(() => addon().storeLock('a\0b'), TypeError);
      assert.throws(() => addon().crc32c(new Uint8Array(1), -1), RangeError);
      assert.throws(() => addon().crc32cPages(new Uint8Array(4095), new Uint32Array(1)), RangeError);
      assert.throws(() => addon().crc32cPages(new Uint8Array(8192), new Uint32Array(1)), RangeError);
      assert.throws(() => addon().stateSum(0, new Uint32Array(1), new Uint32Array(2)), RangeError);
      assert.throws(() => addon().allocate(0, false), RangeError);
      assert.throws(() => addon().allocate(2 ** 50, false), RangeError);
      // More than there are addresses, or than a buffer can have.
      for (const length of [2 ** 47, 2 ** 47 - 65536])
        assert.throws(
          () => addon().allocate(length, false),
          (error) => error instanceof RangeError || (error as NodeJS.ErrnoException).code === 'ENOMEM',
        );
      assert.throws(() => addon().ringCreate(0), RangeError);
    });
  });
});
