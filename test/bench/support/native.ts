import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const sources = join(import.meta.dirname, '../../../../test/bench/native');

/** The zstd that zstd-napi is built with, for programs that compress, too: the same code on both sides of a comparison. */
function zstdOptions(): string[] {
  const folder = dirname(createRequire(import.meta.url).resolve('zstd-napi/package.json'));
  return ['-I', join(folder, 'deps/zstd/lib'), join(folder, 'build/Release/zstd.a')];
}

/** Compiles one of the programs of `test/bench/native`, with the compiler that the package is installed with. @returns its path */
export function compile(name: string, folder: string): string {
  const program = join(folder, name);
  execFileSync('c++', ['-O2', '-std=c++17', '-pthread', '-o', program, join(sources, `${name}.cc`), ...zstdOptions()]);
  return program;
}

/** Compiles one as a library to be preloaded. @returns its path */
export function compileShared(name: string, folder: string): string {
  const library = join(folder, `${name}.so`);
  execFileSync('c++', ['-O2', '-std=c++17', '-shared', '-fPIC', '-o', library, join(sources, `${name}.cc`), '-ldl']);
  return library;
}

/** Runs a program that prints one line of JSON. */
export function run<T>(program: string, ...options: (string | number)[]): T {
  return JSON.parse(execFileSync(program, options.map(String), { encoding: 'utf8', maxBuffer: 1 << 26 })) as T;
}
