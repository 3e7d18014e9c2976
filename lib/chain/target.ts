import type { PlainTarget } from '../engine/protocol.js';
import { isName, isNumber, isOptions, option } from '../options.js';

/**
 * Which checkpoint: an id (`17`), a name (a branch, meaning its newest, or a label), or the beginning of a uid (8 hex digits or more; names win).
 * Behind any of these: `~n` for n steps towards the root, or `@time` for the newest one on the way to the root that was taken at that time or before
 * (ISO 8601; without a zone it is UTC, a date alone means its beginning). As text, or taken apart: `branch` (also a label; default `'main'`), `back` or `time`.
 */
export type Target = number | string | { branch?: string; back?: number; time?: Date };

const TEXT = /^(\d{1,15}|[A-Za-z_][\w.-]{0,127}|[0-9a-f]{8,32})(?:~(\d{1,9})|@(.{1,40}))?$/;
const TIME = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)(Z|[+-]\d\d:?\d\d)?)?$/;

/** @throws {TypeError} when it is no target */
export function parseTarget(target: Target): PlainTarget {
  if (typeof target === 'number') return { id: isNumber('target', target, 1, Number.MAX_SAFE_INTEGER) };
  if (typeof target === 'string') return parseText(target);
  isOptions('target', target, ['branch', 'back', 'time']);
  const name = option(target.branch, (value) => isName('branch', value)) ?? 'main';
  if (target.time === undefined) return { name, back: option(target.back, (value) => isNumber('back', value, 0, 2 ** 32)) ?? 0 };
  if (target.back !== undefined) throw new TypeError('a target has back or time, not both');
  if (!(target.time instanceof Date) || Number.isNaN(target.time.getTime())) throw new TypeError('time must be a valid Date');
  return { name, until: target.time.getTime() };
}

function parseText(text: string): PlainTarget {
  const parts = TEXT.exec(text);
  const until = parts?.[3] === undefined ? undefined : parseTime(parts[3]);
  if (parts === null || Number.isNaN(until))
    throw new TypeError(
      `${JSON.stringify(text)} is not a target: an id, a branch, a label, or 8 or more digits of a uid, and perhaps ~n or @time behind it`,
    );
  const start = parts[1]!;
  const walk = until === undefined ? { back: Number(parts[2] ?? 0) } : { until };
  return /^\d{1,15}$/.test(start)
    ? { id: isNumber('target', Number(start), 0, Number.MAX_SAFE_INTEGER), text: start, ...walk }
    : { name: start, ...walk };
}

/** Milliseconds since 1970; NaN when it is no time. */
function parseTime(text: string): number {
  const parts = TIME.exec(text);
  if (parts === null) return Number.NaN;
  const [, year, month, day, clock = '00:00', zone = 'Z'] = parts;
  // Date takes the 30th of February for the 2nd of March.
  const date = new Date(Date.UTC(Number(year), Number(month) - 1, Number(day)));
  if (date.getUTCDate() !== Number(day) || date.getUTCMonth() !== Number(month) - 1) return Number.NaN;
  return Date.parse(`${year}-${month}-${day}T${clock}${zone.replace(/^([+-]\d\d)(\d\d)$/, '$1:$2')}`);
}
