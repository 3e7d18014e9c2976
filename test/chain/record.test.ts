import assert from 'node:assert/strict';
import { Codec, Kind, openRecord, packRecord, parseKey, RECORD_HEADER, recordKey, writeHeader } from '../../lib/chain/record.js';
import { addon } from '../../lib/kernel/addon.js';
import { code, random, STORE } from './support.js';

const NUMBER = 2 ** 41 + 12345;
const text = (length: number) => Uint8Array.from({ length }, (_, k) => 'tidemark '.charCodeAt(k % 9));
function noise(length: number): Uint8Array {
  const pick = random(length + 1);
  return Uint8Array.from({ length }, () => pick(256));
}

/** The header's checksum made right again: a record that a newer version, or another store, has written. */
function resealed(record: Uint8Array, change: (view: DataView) => void): Uint8Array {
  const changed = record.slice();
  const view = new DataView(changed.buffer);
  change(view);
  view.setUint32(52, addon().crc32c(changed.subarray(0, 52)), true);
  return changed;
}

describe('chain: record envelope', () => {
  it('gives back any payload, compressed only where that helps', () => {
    for (const payload of [text(0), text(1), text(255), text(256), text(100_000), noise(255), noise(256), noise(100_000)]) {
      const record = packRecord(Kind.manifest, NUMBER, STORE, payload);
      assert.deepEqual(openRecord(record, Kind.manifest, NUMBER, STORE), payload);
      assert.ok(record.length <= RECORD_HEADER + payload.length);
    }
    assert.equal(packRecord(Kind.table, 1, STORE, noise(5000)).length, RECORD_HEADER + 5000);
    assert.ok(packRecord(Kind.table, 1, STORE, text(5000)).length < 200);
  });

  it('is read wherever it lies in memory', () => {
    const record = packRecord(Kind.table, 9, STORE, text(700));
    const inside = new Uint8Array(record.length + 7);
    inside.set(record, 5);
    assert.deepEqual(openRecord(inside.subarray(5, 5 + record.length), Kind.table, 9, STORE), text(700));
  });

  it('has its fields where docs/format.md says', () => {
    const payload = text(40);
    const record = packRecord(Kind.manifest, NUMBER, STORE, payload);
    const view = new DataView(record.buffer);
    assert.equal(Buffer.from(record.subarray(0, 4)).toString(), 'TMRK');
    assert.deepEqual([...record.subarray(4, 8)], [2, 1, 0, 0]);
    assert.equal(view.getBigUint64(8, true), 0n);
    assert.equal(view.getBigUint64(16, true), BigInt(NUMBER));
    assert.deepEqual(record.subarray(24, 40), STORE);
    assert.deepEqual(
      [40, 44, 48, 52].map((at) => view.getUint32(at, true)),
      [40, 40, addon().crc32c(payload), addon().crc32c(record.subarray(0, 52))],
    );
  });

  it('notices every bit of the header and of the payload', () => {
    for (const payload of [text(20), text(400)]) {
      const record = packRecord(Kind.manifest, NUMBER, STORE, payload);
      for (let bit = 0; bit < record.length * 8; bit++) {
        record[bit >> 3]! ^= 1 << (bit & 7);
        assert.throws(() => openRecord(record, Kind.manifest, NUMBER, STORE), code('TIDEMARK_DAMAGED'), `bit ${bit}`);
        record[bit >> 3]! ^= 1 << (bit & 7);
      }
      openRecord(record, Kind.manifest, NUMBER, STORE);
    }
  });

  it('is damaged when it is cut or lengthened', () => {
    const record = packRecord(Kind.extent, 1, STORE, noise(300));
    for (let length = 0; length < record.length; length++)
      assert.throws(() => openRecord(record.subarray(0, length), Kind.extent, 1, STORE), code('TIDEMARK_DAMAGED'));
    assert.throws(() => openRecord(Uint8Array.from([...record, 0]), Kind.extent, 1, STORE), code('TIDEMARK_DAMAGED'));
  });

  it('is refused as a newer format, not as damage, when only its version, codec, flags or key id are unknown', () => {
    const record = packRecord(Kind.extent, 1, STORE, text(30));
    const changes: ((view: DataView) => void)[] = [
      (view) => view.setUint8(5, 2),
      (view) => view.setUint8(5, 0),
      (view) => view.setUint8(6, 2),
      (view) => view.setUint32(8, 1, true),
      (view) => view.setUint32(8, 0x8000_0000, true),
      (view) => view.setUint32(12, 1, true),
    ];
    for (const change of changes)
      assert.throws(() => openRecord(resealed(record, change), Kind.extent, 1, STORE), code('TIDEMARK_STORE_FORMAT'));
  });

  it('is damaged under the key of another record, of another kind, and in another store', () => {
    const record = packRecord(Kind.extent, 7, STORE, text(30));
    const other = STORE.slice();
    other[15]! ^= 1;
    assert.throws(() => openRecord(record, Kind.extent, 8, STORE), code('TIDEMARK_DAMAGED'));
    assert.throws(() => openRecord(record, Kind.table, 7, STORE), code('TIDEMARK_DAMAGED'));
    assert.throws(() => openRecord(record, Kind.extent, 7, other), code('TIDEMARK_DAMAGED'));
  });

  it('is damaged when the decompressed length is not what the header says', () => {
    const record = packRecord(Kind.table, 7, STORE, text(5000));
    for (const claim of [0, 1, 4999, 5001, 1 << 20]) {
      const changed = resealed(record, (view) => view.setUint32(44, claim, true));
      assert.throws(() => openRecord(changed, Kind.table, 7, STORE), code('TIDEMARK_DAMAGED'), `${claim} bytes`);
    }
    const frame = noise(400);
    const forged = new Uint8Array(RECORD_HEADER + frame.length);
    forged.set(frame, RECORD_HEADER);
    writeHeader(forged, Kind.table, 7, STORE, {
      length: frame.length,
      rawLength: 5000,
      crc: addon().crc32c(frame),
      codec: Codec.zstd,
    });
    assert.throws(() => openRecord(forged, Kind.table, 7, STORE), code('TIDEMARK_DAMAGED'));
  });

  it('has keys that ascend with the number and then the kind', () => {
    const numbers = [0, 1, 255, 256, 2 ** 31, 2 ** 32, 2 ** 32 + 1, NUMBER, 2 ** 53 - 1];
    const keys = numbers.flatMap((number) =>
      [Kind.extent, Kind.manifest, Kind.table].map((kind) => Buffer.from(recordKey(number, kind))),
    );
    for (let k = 1; k < keys.length; k++) assert.equal(Buffer.compare(keys[k - 1]!, keys[k]!), -1);
    for (const number of numbers) assert.deepEqual(parseKey(recordKey(number, Kind.table)), { number, kind: Kind.table });
    for (const length of [0, 8, 10]) assert.throws(() => parseKey(new Uint8Array(length)), code('TIDEMARK_DAMAGED'));
  });
});
