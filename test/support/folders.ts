import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Call it inside `describe`: gives a function that makes the path of a store that does not exist yet; removed after each test.
 * @param base on a tmpfs they are faster, where no test is about what is on a disk
 */
export function storeFolders(base = tmpdir()): () => string {
  const made: string[] = [];
  afterEach(() => {
    for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
  });
  return () => {
    const folder = mkdtempSync(join(base, 'tidemark-test-'));
    made.push(folder);
    return join(folder, 'store');
  };
}
