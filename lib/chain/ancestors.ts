import { broken } from './damage.js';
import type { Header } from './header.js';

/** How headers are read: one by its id, or a page of them from an id downwards. */
export interface HeaderSource {
  byId(id: number): Promise<Header>;
  downFrom(id: number, limit: number): Promise<Header[]>;
}

/** Headers read at once where the chain has most of them: a branch of 100,000 checkpoints must not cost as many look-ups. */
const MOST_AT_ONCE = 256;

/**
 * The first checkpoint on the way from one towards the root that `found` accepts; undefined when the root is reached. Reads more at once as long as
 * what it reads lies on the way: in a store with a thousand branches most does not.
 */
export async function ancestor(
  from: Header,
  source: HeaderSource,
  found: (header: Header) => boolean,
): Promise<Header | undefined> {
  let header = from;
  let read = new Map<number, Header>();
  let size = 1;
  let used = 0;
  while (!found(header)) {
    const { id, parent } = header.checkpoint;
    if (parent === null) return undefined;
    let next = read.get(parent);
    if (next === undefined) {
      size = used * 2 >= size ? Math.min(size * 2, MOST_AT_ONCE) : 1;
      used = 0;
      const headers = size === 1 ? [await source.byId(parent)] : await source.downFrom(parent, size);
      read = new Map(headers.map((one) => [one.checkpoint.id, one]));
      next = read.get(parent);
    }
    if (next === undefined) throw broken(`checkpoint ${id} builds on ${parent}, which is missing`);
    used++;
    header = next;
  }
  return header;
}
