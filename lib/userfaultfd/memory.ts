import { TidemarkError } from '../errors.js';
import { isNumber, option } from '../options.js';
import { type RegionSource, wholeSource } from '../region/source.js';

/** Memory that was registered, as JavaScript has it at the moment. */
export interface Memory {
  readonly byteLength: number;
  /** Undefined when the buffer was detached or has become too small. */
  view(): Uint8Array | undefined;
}

/** The part of it that is to be registered. A view is what it covers; of other sources a range may be given, in bytes. */
export function memoryOf(source: RegionSource, range: { byteOffset?: number; byteLength?: number }): Memory {
  const isView = source instanceof Uint8Array;
  if (isView && (range.byteOffset !== undefined || range.byteLength !== undefined))
    throw new TypeError('a range cannot be given for a view: make the view the range');
  const { buffer } = wholeSource(isView ? source.buffer : source, 'memory to register is');
  const size = buffer().byteLength;
  const byteOffset = isView
    ? source.byteOffset
    : (option(range.byteOffset, (value) => isNumber('byteOffset', value, 0, size)) ?? 0);
  const byteLength = isView
    ? source.byteLength
    : (option(range.byteLength, (value) => isNumber('byteLength', value, 0, size - byteOffset)) ?? size - byteOffset);
  return {
    byteLength,
    view: () => {
      const now = buffer();
      return byteOffset + byteLength > now.byteLength ? undefined : new Uint8Array(now, byteOffset, byteLength);
    },
  };
}

/** The view, to be given to native code, which compares its address. */
export function present(memory: Memory): Uint8Array {
  const view = memory.view();
  if (view === undefined)
    throw new TidemarkError('TIDEMARK_TRACKING_LOST', 'the memory of the registration was detached, transferred or shrunk', {
      hint: 'unregister memory before that',
    });
  return view;
}
