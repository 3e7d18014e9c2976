import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { capabilities } from '../../../lib/index.js';

/** What the figures depend on. */
export function machine(scratch: string): Record<string, string> {
  const require = createRequire(import.meta.url);
  const version = (name: string): string => (require(`${name}/package.json`) as { version: string }).version;
  const disk = execFileSync('df', ['--output=fstype', scratch], { encoding: 'utf8' }).split('\n')[1]!;
  return {
    processor: `${cpus()[0]!.model}, ${availableParallelism()} cores to use`,
    memory: `${(totalmem() / 2 ** 30).toFixed(1)} GiB, transparent huge pages ${chosen('/sys/kernel/mm/transparent_hugepage/enabled')}`,
    kernel: `Linux ${capabilities().kernel}`,
    'file system of the stores': disk,
    'Node.js': `${process.version}, V8 ${process.versions.v8}`,
    packages: ['level', 'classic-level', 'zstd-napi'].map((name) => `${name} ${versionOf(version, name)}`).join(', '),
    compiler: execFileSync('c++', ['--version'], { encoding: 'utf8' }).split('\n')[0]!,
    date: new Date().toISOString(),
  };
}

function versionOf(version: (name: string) => string, name: string): string {
  try {
    return version(name);
  } catch {
    return '(unknown)';
  }
}

function chosen(file: string): string {
  try {
    return /\[(\w+)\]/.exec(readFileSync(file, 'utf8'))?.[1] ?? '(unknown)';
  } catch {
    return '(unknown)';
  }
}
