import { channel, tracingChannel } from 'node:diagnostics_channel';
import type { Upkeep } from './engine/protocol.js';
import { fromPlain } from './errors.js';

/**
 * What tidemark tells `node:diagnostics_channel`: tracing channels `tidemark:checkpoint`, `tidemark:precopy`, `tidemark:restore` and `tidemark:upkeep`, and the
 * channel `tidemark:warning`. Documented in docs/api.md.
 */
export type Traced = 'checkpoint' | 'precopy' | 'restore' | 'upkeep';

/** Something that went wrong and was made up for. */
export interface Warning {
  name:
    | 'codec-thread-ended'
    | 'storage-thread-ended'
    | 'tracking-reset'
    | 'give-back-failed'
    | 'memory-moved'
    | 'no-shadows'
    | 'pages-lost';
  message: string;
  cause?: unknown;
}

const channels = {
  checkpoint: tracingChannel('tidemark:checkpoint'),
  precopy: tracingChannel('tidemark:precopy'),
  restore: tracingChannel('tidemark:restore'),
  upkeep: tracingChannel('tidemark:upkeep'),
};
const warnings = channel('tidemark:warning');

/** Runs an asynchronous operation with its tracing channel told of it. */
export function traced<T>(name: Traced, context: object, run: () => Promise<T>): Promise<T> {
  const traces = channels[name];
  const { start, end, asyncStart, asyncEnd, error } = traces;
  // `tracePromise` costs a few promises, and nobody listens most of the time.
  if (![start, end, asyncStart, asyncEnd, error].some(({ hasSubscribers }) => hasSubscribers)) return run();
  return traces.tracePromise(run, context) as Promise<T>;
}

const running = new Map<string, object>();

/** What the storage thread does by itself, as it tells of it. */
export function upkeep({ what, store, phase, error }: Upkeep): void {
  const { start, end, asyncStart, asyncEnd, error: failed } = channels.upkeep;
  const key = `${what} ${store}`;
  if (phase === 'start') {
    const context = { what, store, ...(error === undefined ? {} : { reason: fromPlain(error) }) };
    running.set(key, context);
    start.publish(context);
    end.publish(context);
    return;
  }
  const context = running.get(key) ?? { what, store };
  running.delete(key);
  if (error !== undefined) failed.publish(Object.assign(context, { error: fromPlain(error) }));
  asyncStart.publish(context);
  asyncEnd.publish(context);
}

export function warn(warning: Warning): void {
  if (warnings.hasSubscribers) warnings.publish(warning);
}
