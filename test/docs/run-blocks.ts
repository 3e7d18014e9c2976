import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cp, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Ended, type StartOptions, start } from '../examples/support.js';

const root = resolve(import.meta.dirname, '../../..');

/** A fenced block of a document. */
export interface Block {
  /** Of its first fence, from 1. */
  line: number;
  language: string;
  code: string;
  /** What the document says that it prints: a block without a language behind it, with nothing between but empty lines. */
  prints?: string;
}

/** The fenced blocks of a document, by its path in the project. */
export function blocksOf(document: string): Block[] {
  return parseBlocks(readFileSync(join(root, document), 'utf8'));
}

/** @throws for a block that is not closed */
export function parseBlocks(markdown: string): Block[] {
  const blocks: Block[] = [];
  let open: { line: number; language: string; indent: number; lines: string[] } | undefined;
  let closedBefore: Block | undefined;
  for (const [k, line] of markdown.split('\n').entries()) {
    const fence = /^( *)```(\S*) *$/.exec(line);
    if (open !== undefined && fence?.[2] === '') {
      const block: Block = { line: open.line, language: open.language, code: `${open.lines.join('\n')}\n` };
      if (block.language === '' && closedBefore !== undefined) closedBefore.prints = block.code;
      closedBefore = block.language === '' ? undefined : block;
      blocks.push(block);
      open = undefined;
    } else if (open !== undefined) open.lines.push(line.slice(open.indent));
    else if (fence !== null) open = { line: k + 1, language: fence[2]!, indent: fence[1]!.length, lines: [] };
    else if (line.trim() !== '') closedBefore = undefined;
  }
  if (open !== undefined) throw new Error(`the block of line ${open.line} is not closed`);
  return blocks;
}

/** Where the blocks of a document run, one after the other: `tidemark` is this build, and what it depends on for development can be imported too. */
export async function documentFolder(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'tidemark-docs-'));
  try {
    const modules = join(folder, 'node_modules');
    await mkdir(modules);
    for (const name of await readdir(join(root, 'node_modules')))
      if (!name.startsWith('.') && name !== 'tidemark') await symlink(join(root, 'node_modules', name), join(modules, name));
    await symlink(root, join(modules, 'tidemark'));
    return folder;
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
}

/** Runs a block of JavaScript to its end, in a process of its own. One that begins with `// name.mjs` can be imported by those after it. */
export async function runBlock({ line, code }: Block, folder: string, options: Omit<StartOptions, 'cwd'> = {}): Promise<Ended> {
  const name = /^\/\/ ([\w-]+\.mjs)$/m.exec(code.split('\n', 1)[0]!)?.[1] ?? `line-${line}.mjs`;
  await writeFile(join(folder, name), code);
  return start(process.execPath, [name], { ...options, cwd: folder });
}

/** Before a block: keeps what those before it have left, or, when it is tried again, brings that back. */
async function asBefore(folder: string, { line }: Block): Promise<void> {
  const kept = join(folder, `.before-${line}`);
  const left = async (where: string) =>
    (await readdir(where)).filter((name) => name !== 'node_modules' && !name.startsWith('.before-'));
  const again = existsSync(kept);
  if (again) for (const name of await left(folder)) await rm(join(folder, name), { recursive: true });
  const [from, to] = again ? [kept, folder] : [folder, kept];
  await mkdir(kept, { recursive: true });
  for (const name of await left(from)) await cp(join(from, name), join(to, name), { recursive: true });
}

/**
 * Declares a test for every block of JavaScript in a document: it ends well, says nothing on stderr, and prints what the document says.
 * `prepare` may put files into the folder.
 */
export function testBlocks(document: string, prepare: (folder: string, blocks: Block[]) => Promise<void> = async () => {}): void {
  describe(`docs: ${document}`, () => {
    const blocks = blocksOf(document);
    let folder = '';
    before(async () => {
      folder = await documentFolder();
      await prepare(folder, blocks);
    });
    after(() => rmSync(folder, { recursive: true, force: true }));

    for (const block of blocks.filter(({ language }) => language === 'js'))
      it(`the block of line ${block.line} runs${block.prints === undefined ? '' : ', and prints what is said'}`, async () => {
        await asBefore(folder, block);
        const { code, signal, stdout, stderr } = await runBlock(block, folder);
        assert.deepEqual({ code, signal, stderr }, { code: 0, signal: null, stderr: '' });
        if (block.prints !== undefined) assert.equal(stdout, block.prints);
      });
  });
}
