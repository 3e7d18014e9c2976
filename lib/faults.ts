/**
 * Named fault points for the tests, chosen with the environment variable TIDEMARK_FAULTS:
 * `name[:nth[:times]]`, several separated by commas; the nth (1) passage and the `times - 1` (0) after it fail.
 * Every point is listed here and has a test.
 */
export const FAULT_POINTS = {
  'codec.encode': 'a codec thread throws while it encodes a segment',
  'codec.exit': 'a codec thread ends before it encodes a segment',
  'shadow.corrupt': 'every shadow of a region has changed before a segment of it is encoded',
  'codec.decode': 'a codec thread throws while it decodes an extent',
  'codec.fill': 'a codec thread throws when it fills pages into a region',
  'capture.scan': 'the scan of a region fails before the kernel is asked',
  'capture.copy': 'copying to staging fails after the scan has re-armed the pages',
  'lazy.begin': 'a region cannot be made to be filled when it is touched',
  'lazy.ahead': 'filling a slice of a lazy restore ahead fails',
  'lazy.hold': 'filling ahead waits for 50 ms',
  'lazy.serve': 'a fault is not answered',
  'lazy.late': 'a fault is answered 10 ms late',
  'lazy.exit': 'the storage thread ends when it is to answer a fault',
  'log.write': 'a batch is rejected before LevelDB sees it',
  'log.acknowledge': 'a batch is rejected although LevelDB has written it',
  'log.read': 'reading a record of the log fails',
  'log.reopen': 'opening the log again after a rejected write fails',
  'index.write': 'writing to the index fails',
  'storage.exit': 'the storage thread ends when it receives an extent',
  'storage.hang': 'the storage thread stops writing',
} as const;
export type FaultPoint = keyof typeof FAULT_POINTS;

interface Fault {
  nth: number;
  times: number;
  passed: number;
}

let armed: Map<string, Fault> | undefined;

function parse(): Map<string, Fault> {
  const faults = new Map<string, Fault>();
  for (const item of (process.env.TIDEMARK_FAULTS ?? '').split(',')) {
    const [name, nth, times] = item.split(':');
    if (name) faults.set(name, { nth: Number(nth ?? 1), times: Number(times ?? 1), passed: 0 });
  }
  return faults;
}

/** True when the fault point is to fail at this passage; each thread counts for itself. */
export function faulty(point: FaultPoint): boolean {
  armed ??= parse();
  const fault = armed.get(point);
  if (fault === undefined) return false;
  fault.passed++;
  return fault.passed >= fault.nth && fault.passed < fault.nth + fault.times;
}

/** Throws when the fault point is to fail at this passage. */
export function fault(point: FaultPoint): void {
  if (faulty(point)) throw Object.assign(new Error(`fault injected at ${point}`), { code: 'EIO' });
}
