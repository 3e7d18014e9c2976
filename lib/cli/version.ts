import { readFileSync } from 'node:fs';

/** Of this package: dist/lib/cli/ is three folders below its package.json. */
export function version(): string {
  const file = new URL('../../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
