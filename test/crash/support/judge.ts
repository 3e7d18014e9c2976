import assert from 'node:assert/strict';
import type { Acknowledged, Findings, WriterEvent } from './protocol.js';

/** What may be missing: nothing that was acknowledged, or (after a power loss) what was not synced and nothing synced builds on. */
export type Loss = 'nothing' | 'unsynced tail';

/**
 * Everything that a store was promised to hold after a crash.
 * @param events what every writer said, oldest first
 * @param lost uids that earlier crashes have taken and were allowed to take; what this one takes is added
 */
export function judge(events: WriterEvent[], findings: Findings, loss: Loss, lost = new Set<string>()): void {
  assert.equal(findings.error, undefined, 'the store could not be opened and read');
  assert.deepEqual(findings.problems, []);
  const found = new Map(findings.checkpoints.map((checkpoint) => [checkpoint.uid, checkpoint]));
  assert.equal(found.size, findings.checkpoints.length, 'a uid occurs twice');
  const ids = new Set(findings.checkpoints.map(({ id }) => id));
  assert.equal(ids.size, found.size, 'an id occurs twice');
  for (const { id, parent } of found.values())
    assert.ok(parent === null || ids.has(parent), `checkpoint ${id} is there, its parent ${parent} is not`);
  const called = new Set(events.filter((e) => e.event === 'called').map(({ branch, step }) => `${branch} ${step}`));
  for (const { branch, step, id } of found.values())
    assert.ok(called.has(`${branch} ${step}`) || step % 100_000 === 0, `checkpoint ${id} of ${branch} was never asked for`);
  for (const branch of new Set(events.flatMap((e) => (e.event === 'acknowledged' ? [e.branch] : []))))
    judgeBranch(
      events.filter((event) => 'branch' in event && event.branch === branch),
      found,
      loss,
      lost,
    );
}

function judgeBranch(
  events: WriterEvent[],
  found: Map<string, Findings['checkpoints'][number]>,
  loss: Loss,
  lost: Set<string>,
): void {
  const acknowledged = events.filter((event): event is Acknowledged => event.event === 'acknowledged');
  let durable = 0;
  let newest = 0;
  for (const event of events) {
    if (event.event === 'acknowledged' && !lost.has(event.uid)) newest = acknowledged.indexOf(event) + 1;
    if (event.event === 'acknowledged' && (event.sync || event.durable)) durable = newest;
    if (event.event === 'flushed') durable = newest;
  }
  for (const event of events)
    if (event.event === 'durable' && !lost.has(event.uid))
      assert.ok(
        found.has(event.uid),
        `the store said that checkpoint ${event.id} (branch ${event.branch}) is durable, and it is gone`,
      );
  const kept = loss === 'nothing' ? acknowledged.length : durable;
  let gone: Acknowledged | undefined;
  acknowledged.forEach((one, k) => {
    const what = `checkpoint ${one.id} (branch ${one.branch}, step ${one.step}, ${one.sync ? 'sync' : 'relaxed'})`;
    if (lost.has(one.uid)) {
      assert.ok(!found.has(one.uid), `${what} has come back`);
      return;
    }
    const there = found.get(one.uid);
    if (there === undefined) {
      assert.ok(k >= kept, `${what} was acknowledged and is gone`);
      gone = one;
      lost.add(one.uid);
      return;
    }
    assert.ok(gone === undefined, `${what} is there, but ${gone?.id} before it is gone`);
    assert.deepEqual(
      { id: there.id, step: there.step, parent: there.parent },
      { id: one.id, step: one.step, parent: one.parent },
      what,
    );
  });
}
