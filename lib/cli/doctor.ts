import { zstd } from '../chain/zstd.js';
import { TidemarkError } from '../errors.js';
import { type Capabilities, capabilities } from '../kernel/capabilities.js';
import { type Limits, limits } from './doctor-limits.js';
import { inspectStore, type StoreCheck } from './doctor-store.js';
import { Exit, failureOf } from './exit.js';
import { bytes, count, paint, Table } from './format.js';
import { print, printJson } from './stdout.js';
import { type Invocation, JSON_OPTION, type Verb } from './verb.js';
import { version } from './version.js';

interface Diagnosis {
  tracking: boolean;
  problems: readonly string[];
  remedies: string[];
  /** null when the addon could not be loaded. */
  capabilities: Capabilities | null;
  versions: { tidemark: string; node: string; zstd: string | null };
  limits: Limits;
  store: StoreCheck | null;
}

const DESCRIPTORS: Record<Capabilities['descriptor'], string> = {
  '': 'none',
  device: '/dev/userfaultfd',
  syscall: 'userfaultfd(2)',
  'syscall-user-mode': 'userfaultfd(2), faults of user mode only',
};

export const doctor: Verb = {
  name: 'doctor',
  summary: 'Say whether memory can be tracked here, and what to do when it cannot',
  arguments: ['[store]'],
  options: { json: JSON_OPTION },
  notes: 'Exit code 13 when tracking does not work, or the store named may not be used by this user. It changes nothing.',

  async run({ values, arguments: [path] }: Invocation): Promise<number> {
    const found = diagnose(path === undefined ? null : inspectStore(path));
    if (values.json === true) await printJson(found);
    else await print(describe(found));
    return found.tracking && found.store?.usable !== false ? Exit.done : Exit.kernel;
  },
};

function diagnose(store: StoreCheck | null): Diagnosis {
  const problems: string[] = [];
  const remedies: string[] = [];
  const attempt = <T>(what: () => T): T | null => {
    try {
      return what();
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      const { message, hint, cause } = failureOf(error);
      problems.push(cause === undefined ? message : `${message}: ${cause}`);
      if (hint !== undefined) remedies.push(hint);
      return null;
    }
  };
  const found = attempt(capabilities);
  const codec = attempt(() => zstd().versionString());
  if (found !== null) {
    problems.push(...found.problems);
    remedies.push(...remediesFor(found));
  }
  const system = limits();
  return {
    tracking: found?.tracking === true && codec !== null,
    problems,
    remedies: [...remedies, ...system.remedies],
    capabilities: found,
    versions: { tidemark: version(), node: process.versions.node, zstd: codec },
    limits: system.limits,
    store,
  };
}

function remediesFor(found: Capabilities): string[] {
  if (found.descriptor === '') {
    return [
      'in a container: pass the device (docker run --device /dev/userfaultfd), or allow the system call userfaultfd in its seccomp profile',
      'else give the user access to the device: chown, or a udev rule for KERNEL=="userfaultfd"',
      'sysctl vm.unprivileged_userfaultfd=1, or the capability CAP_SYS_PTRACE, opens the system call',
    ];
  }
  const remedies: string[] = [];
  if (!found.tracking) remedies.push('run Linux 6.7 or newer, with CONFIG_USERFAULTFD and CONFIG_PTE_MARKER_UFFD_WP');
  if (!found.kernelFaults) {
    remedies.push(
      'what does not work is restore({ lazy: true }), for faults from inside the kernel cannot be served; all else does, an eager restore too',
      'for lazy restores: access to /dev/userfaultfd (a udev rule for KERNEL=="userfaultfd"; in a container --device /dev/userfaultfd), CAP_SYS_PTRACE, or sysctl vm.unprivileged_userfaultfd=1',
      "or restore({ lazy: 'user-faults' }), with ensureResident() before memory is handed to system calls: they fail with EFAULT where a page is missing",
    );
  }
  return remedies;
}

function describe(found: Diagnosis): string {
  const { capabilities: kernel, versions, limits, store } = found;
  const yes = (value: boolean | null, otherwise = 'no') => (value === null ? 'could not be tried' : value ? 'yes' : otherwise);
  const limit = (value: number | null, show = count) => (value === null ? 'no limit' : show(value));
  const sections: [string, [string, string][]][] = [];
  if (kernel !== null) {
    sections.push([
      'kernel',
      [
        ['release', kernel.kernel],
        ['page', bytes(kernel.hostPageSize)],
        ['userfaultfd by', DESCRIPTORS[kernel.descriptor]],
        ['features', kernel.features.length === 0 ? 'none' : kernel.features.join(' ')],
        ['finds written pages (PAGEMAP_SCAN)', yes(kernel.pagemapScan)],
        ['reports exactly what was written', yes(kernel.tracksWrites)],
        ['reports dropped pages', yes(kernel.reportsDropped)],
        ['reports dropped huge pages', yes(kernel.reportsDroppedHuge, 'no; tidemark keeps huge pages away')],
        ['fills pages without making them dirty', yes(kernel.fillsArmed)],
        ['gives dirty pages back after a failure', yes(kernel.givesBack)],
        ['tracks shared memory (tmpfs, memfd)', yes(kernel.tracksShared, 'no; only Region.map needs it')],
        ['serves faults from inside the kernel', yes(kernel.kernelFaults, 'no; only a lazy restore needs it')],
      ],
    ]);
  }
  sections.push(
    [
      'versions',
      [
        ['tidemark', versions.tidemark],
        ['node', versions.node],
        ['zstd', versions.zstd ?? 'could not be loaded'],
      ],
    ],
    [
      'limits',
      [
        ['open files (RLIMIT_NOFILE)', limit(limits.openFiles)],
        ['mappings (vm.max_map_count)', limits.maxMapCount === null ? 'unknown' : count(limits.maxMapCount)],
        [
          'vm.unprivileged_userfaultfd',
          limits.unprivilegedUserfaultfd === null ? 'unknown' : `${limits.unprivilegedUserfaultfd}`,
        ],
        ['memory', limit(limits.memory, bytes)],
      ],
    ],
  );
  if (store !== null) {
    sections.push([
      `store ${store.path}`,
      [
        ['format', store.format === null ? 'not known to this version' : `${store.format}`],
        ['uuid', store.uuid ?? 'unknown'],
        ['readable and writable for this user', yes(store.accessible)],
        ['in use', store.owner === null ? 'no' : store.owner],
        ['free space', bytes(store.freeBytes)],
      ],
    ]);
  }
  const names = new Table([{}, {}]);
  const body = sections.map(([title, rows]) => {
    return `${paint('bold', title)}\n${names.format(rows.map(([name, value]) => [`  ${name}`, value]))}`;
  });
  const list = (title: string, items: readonly string[]) =>
    items.length === 0 ? '' : `${paint('bold', title)}\n${items.map((item) => `  - ${item}\n`).join('')}`;
  const verdict = found.tracking ? paint('green', 'memory can be tracked here') : paint('red', 'memory cannot be tracked here');
  return `${body.join('')}${list('problems', found.problems)}${list('what to do', found.remedies)}${verdict}\n`;
}
