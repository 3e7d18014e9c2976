import { ByteReader, ByteWriter } from '../chain/bytes.js';
import { damaged } from '../chain/damage.js';

/** The attachment that the order in which pages were first touched is stored as. */
export const WORKING_SET = 'tidemark.working-set';
/** Pages that are remembered: 256 MiB. More than that is no working set, and would take long to write down in a capture. */
export const WORKING_SET_PAGES = 65_536;

/** Pages of regions, in the order in which they were touched. */
export type WorkingSet = ReadonlyMap<string, Uint32Array>;

export function encodeWorkingSet(regions: WorkingSet): Uint8Array {
  const out = new ByteWriter(4096);
  out.varint(regions.size);
  for (const [name, pages] of regions) {
    out.text(name);
    out.varint(pages.length);
    let before = 0;
    for (const page of pages) {
      out.signed(page - before);
      before = page;
    }
  }
  return out.bytes().slice();
}

/** @throws {TidemarkError} `TIDEMARK_DAMAGED` */
export function decodeWorkingSet(bytes: Uint8Array): WorkingSet {
  const read = new ByteReader(bytes, 'the working set');
  const regions = new Map<string, Uint32Array>();
  for (let left = read.varint(); left > 0; left--) {
    const name = read.text();
    const count = read.varint();
    if (count > read.remaining) throw damaged(`the working set claims ${count} pages`);
    const pages = new Uint32Array(count);
    let page = 0;
    for (let k = 0; k < pages.length; k++) {
      page += read.signed();
      pages[k] = page;
    }
    regions.set(name, pages);
  }
  read.end();
  return regions;
}
