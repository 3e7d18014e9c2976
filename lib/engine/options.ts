import { availableParallelism } from 'node:os';
import { memoryShare } from '../memory-limit.js';
import { isNumber, isOptions, option } from '../options.js';

export interface EngineOptions {
  /** Codec threads. Default: one for each core the process may use, at most 4. */
  workers?: number;
  /** Memory for checkpoints in flight, in bytes. Default: an eighth of the memory the process may use, 16 MiB to 256 MiB. */
  maxStagingBytes?: number;
  /**
   * Memory for copies of captured pages, in bytes: a page that has one is stored as what changed in it. 0: none. Default: an eighth of the memory the process may
   * use, 16 MiB to 4 GiB (none, with a warning, where so much address space cannot be had); taken only as pages are captured. An eighth of it is for the lists of what deltas build on.
   */
  maxShadowBytes?: number;
  /** A page is stored full at the latest after so many deltas: what reading one may cost. 1 to 64. Default: 32. */
  maxDeltas?: number;
  /** A capture that waits for staging fails when nothing was released for so many milliseconds. Default: 60,000. */
  stallMs?: number;
}

/** Options of an engine, checked and with their defaults. */
export interface CheckedEngine {
  workers: number;
  stagingBytes: number;
  shadowBytes: number;
  /** It was asked for; else less will do. */
  shadowsAsked: boolean;
  maxDeltas: number;
  stallMs: number;
}

const MIB = 1 << 20;
const GIB = 2 ** 30;

/** @throws {TypeError | RangeError} */
export function checkEngine(options: EngineOptions): CheckedEngine {
  isOptions('Engine', options, ['workers', 'maxStagingBytes', 'maxShadowBytes', 'maxDeltas', 'stallMs']);
  const number = (name: keyof EngineOptions, min: number, max: number): number | undefined =>
    option(options[name], (value) => isNumber(name, value, min, max));
  return {
    workers: number('workers', 1, 64) ?? Math.min(4, availableParallelism()),
    stagingBytes: number('maxStagingBytes', 4 * MIB, 64 * GIB) ?? memoryShare(8, 16 * MIB, 256 * MIB),
    shadowBytes: number('maxShadowBytes', 0, 2 ** 43) ?? memoryShare(8, 16 * MIB, 4 * GIB),
    shadowsAsked: options.maxShadowBytes !== undefined,
    maxDeltas: number('maxDeltas', 1, 64) ?? 32,
    stallMs: number('stallMs', 1, 2 ** 31) ?? 60_000,
  };
}
