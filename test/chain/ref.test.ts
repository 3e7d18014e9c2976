import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { Kind, openRecord, packRecord, recordKey } from '../../lib/chain/record.js';
import { decodeRef, encodeRef, type Ref } from '../../lib/chain/ref.js';
import { TidemarkError } from '../../lib/errors.js';
import { CheckpointStore } from '../../lib/index.js';
import { SampleStore } from './sample-store.js';
import { code, logEntries, mutate, random, STORE, withDatabase } from './support.js';

const ref: fc.Arbitrary<Ref> = fc.record({
  type: fc.constantFrom('branch', 'label'),
  name: fc.stringMatching(/^[A-Za-z_][\w.-]{0,127}$/),
  id: fc.integer({ min: 1, max: 2 ** 52 }),
  uid: fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => Buffer.from(bytes).toString('hex')),
  createdAt: fc.integer({ min: 0, max: 2 ** 45 }),
});
const LABEL: Ref = {
  type: 'label',
  name: 'nightly-2026',
  id: 300,
  uid: '0123456789abcdef'.repeat(2),
  createdAt: 1_795_000_000_000,
};

/** A refusal that has a code of damage or of a newer version; any other error is a bug. */
function refused(decode: () => unknown): boolean {
  try {
    decode();
    return false;
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    assert.ok(['TIDEMARK_DAMAGED', 'TIDEMARK_STORE_FORMAT'].includes(error.code), error.message);
    return true;
  }
}

describe('chain: ref', () => {
  it('is the same after encoding and decoding, also from its record', () => {
    fc.assert(
      fc.property(ref, fc.integer({ min: 1, max: 2 ** 48 }), (value, number) => {
        const payload = encodeRef(value).slice();
        assert.deepEqual(decodeRef(payload, number), { ...value, number });
        const record = packRecord(Kind.ref, number, STORE, payload);
        assert.deepEqual(decodeRef(openRecord(record, Kind.ref, number, STORE), number), { ...value, number });
      }),
      { numRuns: 400, seed: 1 },
    );
  });

  it('is laid out as docs/format.md says', () => {
    const expected = [2, 1, 12, ...Buffer.from('nightly-2026'), 0xac, 0x02, ...Buffer.from(LABEL.uid, 'hex')];
    const payload = encodeRef(LABEL);
    assert.deepEqual([...payload.subarray(0, expected.length)], expected);
    assert.equal(encodeRef({ ...LABEL, type: 'branch' })[0], 1);
  });

  it('is refused at every cut and with bytes behind its end', () => {
    const payload = encodeRef(LABEL).slice();
    for (let length = 0; length < payload.length; length++)
      assert.throws(() => decodeRef(payload.subarray(0, length), 5), code('TIDEMARK_DAMAGED'), `cut at ${length}`);
    assert.throws(() => decodeRef(Uint8Array.from([...payload, 0]), 5), code('TIDEMARK_DAMAGED'));
    assert.throws(() => decodeRef(new Uint8Array(0), 77), /ref 77/);
  });

  it('is refused with any other byte anywhere in its record', () => {
    const record = packRecord(Kind.ref, 9, STORE, encodeRef(LABEL));
    for (let at = 0; at < record.length; at++) {
      for (const flip of [0x01, 0x80, 0xff]) {
        const mutant = record.slice();
        mutant[at]! ^= flip;
        assert.ok(
          refused(() => decodeRef(openRecord(mutant, Kind.ref, 9, STORE), 9)),
          `byte ${at} ^ ${flip}`,
        );
      }
    }
  });

  it('is read or refused, whatever its payload is', () => {
    const pick = random(3);
    const original = encodeRef(LABEL).slice();
    const memory = process.memoryUsage().arrayBuffers;
    let count = 0;
    for (let k = 0; k < 20_000; k++) {
      const mutant = mutate(original, pick);
      if (refused(() => decodeRef(mutant, 5))) count++;
    }
    // Text is decoded without a copy of what is only claimed.
    assert.ok(process.memoryUsage().arrayBuffers - memory < 64 << 20);
    assert.ok(count > 5000, `${count} were refused`);
    for (const size of [[0xff, 0xff, 0x7f], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x07], new Array(9).fill(0xff)])
      assert.throws(() => decodeRef(Uint8Array.from([1, 1, ...size, 65, 65]), 5), code('TIDEMARK_DAMAGED'));
  });

  it('of no type is damage; a change that is not known is one of a newer version', () => {
    const payload = encodeRef(LABEL).slice();
    for (const [type, op, expected] of [
      [0, 1, 'TIDEMARK_DAMAGED'],
      [3, 1, 'TIDEMARK_DAMAGED'],
      [255, 1, 'TIDEMARK_DAMAGED'],
      [2, 0, 'TIDEMARK_STORE_FORMAT'],
      [2, 2, 'TIDEMARK_STORE_FORMAT'],
      [7, 2, 'TIDEMARK_STORE_FORMAT'],
    ] as const) {
      payload.set([type, op]);
      assert.throws(() => decodeRef(payload, 5), code(expected), `type ${type}, op ${op}`);
    }
  });

  for (const index of ['kept', 'deleted']) {
    it(`a change that is not known keeps the store closed, and nothing in the log is touched (index ${index})`, async () => {
      await SampleStore.with(async (store) => {
        await store.take(['sync', 'relaxed']);
        const opened = await CheckpointStore.open(store.path);
        await opened.label('known', 1);
        await opened.close();
        const last = (await logEntries(store.path)).at(-1)!;
        const uuid = last.value.slice(24, 40);
        const payload = encodeRef({ ...LABEL, id: 1 }).slice();
        payload[1] = 2;
        const [orphan, unknown] = [recordKey(last.number + 5, Kind.extent), recordKey(last.number + 6, Kind.ref)];
        await withDatabase(join(store.path, 'log'), (db) =>
          db.batch([
            { type: 'put', key: orphan, value: packRecord(Kind.extent, last.number + 5, uuid, new Uint8Array(100)) },
            { type: 'put', key: unknown, value: packRecord(Kind.ref, last.number + 6, uuid, payload) },
          ]),
        );
        if (index === 'deleted') rmSync(join(store.path, 'index'), { recursive: true });
        const before = await logEntries(store.path);
        for (let times = 0; times < 2; times++)
          await assert.rejects(CheckpointStore.open(store.path), code('TIDEMARK_STORE_FORMAT'));
        assert.deepEqual(await logEntries(store.path), before);
        // The version that knows it is the one to go on with: without it everything is as before.
        await withDatabase(join(store.path, 'log'), (db) => db.del(unknown));
        await store.check([1, 2], 2);
        const again = await CheckpointStore.open(store.path);
        assert.equal((await again.find('known'))?.id, 1);
        await again.close();
      });
    });
  }
});
