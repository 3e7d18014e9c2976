import { TidemarkError } from '../errors.js';
import { addon } from '../kernel/addon.js';
import { damaged } from './damage.js';
import { compressBytes, decompressBytes } from './zstd.js';

/**
 * The envelope around everything in the log: LevelDB does not check what it reads back (block checksums are only verified with an
 * option that classic-level does not expose), so every record proves by itself what it is and that it is whole.
 */
export const RECORD_HEADER = 56;
const MAGIC = 0x4b524d54; // "TMRK"
const VERSION = 1;
/** What a payload can be decompressed to at most: more is not allocated, whatever a header claims. zstd does not expand further than about this. */
const MAX_RAW = 2 ** 30;
const MAX_EXPANSION = 2 ** 16;

export const Kind = { extent: 1, manifest: 2, ref: 3, table: 4 } as const;
export type Kind = (typeof Kind)[keyof typeof Kind];

export const Codec = { none: 0, zstd: 1 } as const;

/** The key of a record: its number, big endian, so that keys ascend in the order of writing, then its kind, so that kinds are listed without reading values. */
export function recordKey(number: number, kind: Kind): Uint8Array {
  const key = new Uint8Array(9);
  const view = new DataView(key.buffer);
  view.setBigUint64(0, BigInt(number));
  key[8] = kind;
  return key;
}

export function parseKey(key: Uint8Array): { number: number; kind: Kind } {
  if (key.length !== 9) throw damaged(`a key of ${key.length} bytes in the log`);
  const number = Number(new DataView(key.buffer, key.byteOffset, 9).getBigUint64(0));
  return { number, kind: key[8] as Kind };
}

/** Writes the header of a record whose payload of `payloadLength` bytes follows it. `store` is the store's uuid, 16 bytes. */
export function writeHeader(
  target: Uint8Array,
  kind: Kind,
  number: number,
  store: Uint8Array,
  payload: { length: number; rawLength: number; crc: number; codec: number },
): void {
  const view = new DataView(target.buffer, target.byteOffset, RECORD_HEADER);
  view.setUint32(0, MAGIC, true);
  view.setUint8(4, kind);
  view.setUint8(5, VERSION);
  view.setUint8(6, payload.codec);
  view.setUint8(7, 0);
  view.setUint32(8, 0, true); // flags that a reader must understand: none yet
  view.setUint32(12, 0, true); // key id: not encrypted
  view.setBigUint64(16, BigInt(number), true);
  target.set(store, 24);
  view.setUint32(40, payload.length, true);
  view.setUint32(44, payload.rawLength, true);
  view.setUint32(48, payload.crc, true);
  view.setUint32(52, addon().crc32c(target.subarray(0, 52)), true);
}

/** A whole record; the payload is compressed where that helps. */
export function packRecord(kind: Kind, number: number, store: Uint8Array, payload: Uint8Array): Uint8Array {
  const packed = payload.length >= 256 ? compressBytes(payload) : undefined;
  const stored = packed !== undefined && packed.length < payload.length ? packed : payload;
  const record = new Uint8Array(RECORD_HEADER + stored.length);
  record.set(stored, RECORD_HEADER);
  writeHeader(record, kind, number, store, {
    length: stored.length,
    rawLength: payload.length,
    crc: addon().crc32c(stored),
    codec: stored === payload ? Codec.none : Codec.zstd,
  });
  return record;
}

/**
 * Checks a record and gives its payload, decompressed.
 * @throws {TidemarkError} `TIDEMARK_DAMAGED`, `TIDEMARK_STORE_FORMAT` when it was written by a newer version
 */
export function openRecord(record: Uint8Array, kind: Kind, number: number, store: Uint8Array): Uint8Array {
  const what = `record ${number}`;
  if (record.length < RECORD_HEADER) throw damaged(`${what} is shorter than a header`);
  const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
  if (view.getUint32(0, true) !== MAGIC) throw damaged(`${what} does not begin like a record`);
  if (addon().crc32c(record.subarray(0, 52)) !== view.getUint32(52, true))
    throw damaged(`${what}: the checksum of its header does not match`);
  if (
    view.getUint8(5) !== VERSION ||
    view.getUint32(8, true) !== 0 ||
    view.getUint32(12, true) !== 0 ||
    view.getUint8(6) > Codec.zstd
  ) {
    throw new TidemarkError('TIDEMARK_STORE_FORMAT', `${what} uses a format that this version of tidemark does not know`, {
      hint: 'read the store with the version that wrote it, or a newer one',
    });
  }
  if (view.getUint8(4) !== kind || Number(view.getBigUint64(16, true)) !== number) {
    throw damaged(`${what} is stored under the key of another record`);
  }
  for (let k = 0; k < 16; k++) if (record[24 + k] !== store[k]) throw damaged(`${what} belongs to another store`);
  const length = view.getUint32(40, true);
  if (length !== record.length - RECORD_HEADER)
    throw damaged(`${what} has ${record.length - RECORD_HEADER} bytes of payload instead of ${length}`);
  const payload = record.subarray(RECORD_HEADER);
  if (addon().crc32c(payload) !== view.getUint32(48, true)) throw damaged(`${what}: the checksum of its payload does not match`);
  if (view.getUint8(6) === Codec.none) return payload;
  const rawLength = view.getUint32(44, true);
  if (rawLength > MAX_RAW || rawLength > length * MAX_EXPANSION) throw damaged(`${what} claims ${rawLength} bytes`);
  return decompressBytes(payload, rawLength, what);
}
