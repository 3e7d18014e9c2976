import { TidemarkError } from '../errors.js';
import { ByteReader, ByteWriter } from './bytes.js';
import { damaged } from './damage.js';
import { uidBytes, uidText } from './manifest.js';

/** A change of a name that no manifest makes: a branch that begins at an existing checkpoint, or a label given or moved later. */
export interface Ref {
  type: 'branch' | 'label';
  name: string;
  /** The checkpoint that it names from now on. */
  id: number;
  uid: string;
  /** Milliseconds since 1970, UTC. */
  createdAt: number;
}

/** A ref with the number of its record: of two for one name the higher one counts. */
export interface NumberedRef extends Ref {
  number: number;
}

const TYPES = ['branch', 'label'] as const;
const SET = 1;

export function encodeRef(ref: Ref): Uint8Array {
  const out = new ByteWriter(256);
  out.u8(TYPES.indexOf(ref.type) + 1);
  out.u8(SET);
  out.text(ref.name);
  out.varint(ref.id);
  out.raw(uidBytes(ref.uid));
  out.varint(ref.createdAt);
  return out.bytes();
}

/** @throws `TIDEMARK_DAMAGED`; `TIDEMARK_STORE_FORMAT` for a change that this version does not know */
export function decodeRef(payload: Uint8Array, number: number): NumberedRef {
  const what = `ref ${number}`;
  const read = new ByteReader(payload, what);
  const type = TYPES[read.u8() - 1];
  const op = read.u8();
  if (op !== SET) {
    throw new TidemarkError('TIDEMARK_STORE_FORMAT', `${what} is a change that this version of tidemark does not know`, {
      hint: 'use the version that wrote it, or a newer one',
    });
  }
  if (type === undefined) throw damaged(`${what} is neither of a branch nor of a label`);
  const name = read.text();
  const id = read.varint();
  const uid = uidText(read.raw(16));
  const createdAt = read.varint();
  read.end();
  return { type, name, id, uid, createdAt, number };
}
