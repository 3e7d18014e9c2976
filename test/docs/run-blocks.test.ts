import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { documentFolder, parseBlocks, runBlock } from './run-blocks.js';

const document = `# Title
\`\`\`js
// one.mjs
export const one = 1;
\`\`\`
Text, and so the next block is not what it prints.

\`\`\`
nothing
\`\`\`
1. A list
   \`\`\`js
   import { one } from './one.mjs';
   if (one) {
     console.log('one is', one);
   }
   \`\`\`

   \`\`\`
   one is 1
   \`\`\`
\`\`\`sh
false
\`\`\`
`;

describe('docs: blocks of a document', () => {
  it('are found with their lines, and with what they print', () => {
    assert.deepEqual(parseBlocks(document), [
      { line: 2, language: 'js', code: '// one.mjs\nexport const one = 1;\n' },
      { line: 8, language: '', code: 'nothing\n' },
      {
        line: 12,
        language: 'js',
        code: "import { one } from './one.mjs';\nif (one) {\n  console.log('one is', one);\n}\n",
        prints: 'one is 1\n',
      },
      { line: 19, language: '', code: 'one is 1\n' },
      { line: 22, language: 'sh', code: 'false\n' },
    ]);
    assert.throws(() => parseBlocks('text\n```js\nlet x;\n'), /line 2 is not closed/);
  });

  it('run one after the other, and a failure shows', async () => {
    const folder = await documentFolder();
    try {
      const [first, , second] = parseBlocks(document);
      assert.equal((await runBlock(first!, folder)).code, 0);
      const { stdout } = await runBlock(second!, folder);
      assert.equal(stdout, second!.prints);
      const uses = { line: 1, language: 'js', code: "import { Region } from 'tidemark';\nconsole.log(typeof Region.of);\n" };
      assert.equal((await runBlock(uses, folder)).stdout, 'function\n');
      const failing = { line: 1, language: 'js', code: "throw new Error('no good');\n" };
      const { code, stderr } = await runBlock(failing, folder);
      assert.equal(code, 1);
      assert.match(stderr, /no good/);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
