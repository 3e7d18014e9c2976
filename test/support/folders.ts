import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Call it inside `describe`: gives a function that makes the path of a store that does not exist yet; removed after each test. */
export function storeFolders(): () => string {
  const made: string[] = [];
  afterEach(() => {
    for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
  });
  return () => {
    const folder = mkdtempSync(join(tmpdir(), 'tidemark-test-'));
    made.push(folder);
    return join(folder, 'store');
  };
}
