import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import loadWabt from 'wabt';
import { testBlocks } from './run-blocks.js';

// What the document shows as `;; name.wat` is there for its JavaScript as name.wasm.
testBlocks('docs/wasm.md', async (folder, blocks) => {
  const wabt = await loadWabt();
  for (const { language, code } of blocks) {
    if (language !== 'wat') continue;
    const name = /^;; ([\w-]+)\.wat$/.exec(code.split('\n', 1)[0]!)?.[1];
    if (name === undefined) throw new Error(`a module without a name: ${code}`);
    const module = wabt.parseWat(`${name}.wat`, code);
    await writeFile(join(folder, `${name}.wasm`), module.toBinary({}).buffer);
    module.destroy();
  }
});
