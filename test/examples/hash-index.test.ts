import assert from 'node:assert/strict';
import { HashIndex } from '../../examples/survive-kill/hash-index.js';
import { apply, Model } from '../../examples/survive-kill/workload.js';

const key = (name: string) => Buffer.from(name);

/** An index and its model after so many operations. */
function indexAfter(operations: number, size = 1 << 22): { bytes: Uint8Array; index: HashIndex; model: Model } {
  const bytes = new Uint8Array(size);
  const index = HashIndex.create(bytes);
  for (let n = 1; n <= operations; n++) {
    apply(index, n, 5);
    index.operations = n;
  }
  const model = new Model(5);
  model.goTo(operations);
  return { bytes, index, model };
}

describe('examples: hash index', () => {
  it('holds what a Map holds, and is whole, while it grows and is emptied', () => {
    const bytes = new Uint8Array(1 << 23).fill(0xa5);
    const index = HashIndex.create(bytes);
    const model = new Model(5);
    let most = 0;
    let fewest = Number.POSITIVE_INFINITY;
    for (let n = 1; n <= 40_000; n++) {
      apply(index, n, 5);
      index.operations = n;
      if (n % 1000 !== 0) continue;
      model.goTo(n);
      assert.deepEqual(model.differences(index), []);
      fewest = index.size < most ? Math.min(fewest, index.size / most) : fewest;
      most = Math.max(most, index.size);
    }
    assert.ok(index.tables > 4, `there were ${index.tables} tables`);
    assert.ok(fewest < 0.9, 'it never became smaller');
  });

  it('goes on in a copy of its memory', () => {
    const { bytes, model } = indexAfter(5000);
    const copy = HashIndex.open(bytes.slice());
    for (let n = 5001; n <= 6000; n++) apply(copy, n, 5);
    copy.operations = 6000;
    model.goTo(6000);
    assert.deepEqual(model.differences(copy), []);
  });

  it('notices a page of another time', () => {
    const { bytes, index, model } = indexAfter(3000);
    const earlier = bytes.slice();
    for (let n = 3001; n <= 3400; n++) apply(index, n, 5);
    index.operations = 3400;
    model.goTo(3400);
    let [noticed, meaningless] = [0, 0];
    for (let page = 0; page < bytes.length; page += 4096) {
      const now = bytes.slice(page, page + 4096);
      const then = earlier.subarray(page, page + 4096);
      if (Buffer.compare(now, then) === 0) continue;
      bytes.set(then, page);
      if (index.check().length > 0) noticed++;
      else {
        // What is free and differs is nothing that was lost.
        assert.deepEqual(model.differences(index), [], `page ${page / 4096}`);
        meaningless++;
      }
      bytes.set(now, page);
    }
    assert.ok(noticed > 50 && meaningless < noticed / 4, `${noticed} noticed, ${meaningless} not`);
    assert.deepEqual(model.differences(index), []);
  });

  it('notices a bit that is wrong in a key or a value', () => {
    const { bytes, index } = indexAfter(1000);
    for (const views of index.entries()) {
      for (const view of views) {
        if (view.length === 0) continue;
        const at = view.byteOffset + (view.length >> 1);
        bytes[at]! ^= 1;
        assert.notDeepEqual(index.check(), []);
        bytes[at]! ^= 1;
      }
      if (views[1].length > 400) break;
    }
    assert.deepEqual(index.check(), []);
  });

  it('is as it was when something does not fit', () => {
    const index = HashIndex.create(new Uint8Array(1 << 16));
    index.put(key('small'), key('value'));
    assert.throws(() => index.put(key('small'), Buffer.alloc(1 << 15)), RangeError);
    assert.throws(() => index.put(key('large'), Buffer.alloc(1 << 15)), RangeError);
    assert.deepEqual(index.check(), []);
    assert.deepEqual(Buffer.from(index.get(key('small'))!).toString(), 'value');
    assert.equal(index.size, 1);
    assert.throws(() => {
      for (let n = 0; ; n++) index.put(key(`key ${n}`), Buffer.alloc(n % 300));
    }, RangeError);
    assert.deepEqual(index.check(), []);
    for (const [stored] of [...index.entries()]) assert.equal(index.delete(stored.slice()), true);
    assert.deepEqual(index.check(), []);
    assert.equal(index.size, 0);
    assert.equal(index.contentBytes, 0);
  });

  it('is not opened where there is none', () => {
    assert.throws(() => HashIndex.open(new Uint8Array(1 << 16)), /no index/);
    assert.throws(() => HashIndex.create(new Uint8Array(100_000)), RangeError);
  });
});
