import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { exportsOf } from './declared.js';
import { testBlocks } from './run-blocks.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const api = readFileSync(join(root, 'docs/api.md'), 'utf8');
const errors = readFileSync(join(root, 'docs/errors.md'), 'utf8');
const declared = exportsOf(join(root, 'dist/lib/index.d.ts'));
const codes = [...declared.find(({ name }) => name === 'TidemarkErrorCode')!.text.matchAll(/'(TIDEMARK_\w+)'/g)].map(
  ([, code]) => code!,
);

/** Sections by their headings of the second level. */
const sections = new Map(
  api
    .split(/^## /m)
    .slice(1)
    .map((text) => [text.slice(0, text.indexOf('\n')), text]),
);

/** Identifiers in what is set as code. */
function named(section: string): Set<string> {
  const code = [...section.matchAll(/```[\s\S]*?```|`[^`\n]+`/g)].map(([text]) => text).join(' ');
  return new Set(code.match(/\w+/g));
}

/** The table at the end says which section explains which type. */
const explained = new Map(
  [...sections.get('Types')!.matchAll(/^\| \[(\w+)\]\(#\w+\) \| (.*) \|$/gm)].flatMap(([, section, types]) => {
    return [...types!.matchAll(/`(\w+)`/g)].map(([, type]): [string, string] => [type!, section!]);
  }),
);

describe('docs/api.md', () => {
  it('is read as it should be', () => {
    assert.ok(declared.length > 30, `${declared.length} exports`);
    const members = new Map(declared.map((one) => [one.name, one.members]));
    assert.deepEqual(members.get('Snapshot')?.sort(), ['asyncDispose', 'attachment', 'checkpoint', 'close', 'read', 'stream']);
    assert.deepEqual(members.get('Progress')?.sort(), ['donePages', 'totalPages']);
    assert.ok(codes.length > 15);
  });

  it('has every export, in the section that is its own or that the table of types names', () => {
    for (const { name } of declared) {
      const section = sections.get(explained.get(name) ?? name);
      assert.ok(section !== undefined, `${name} has no section, and the table of types does not name it`);
    }
    const names = declared.map(({ name }) => name);
    assert.deepEqual(
      [...explained.keys()].filter((name) => !names.includes(name)),
      [],
      'types that there are not',
    );
  });

  it('names every public member and option there', () => {
    const missing = declared.flatMap(({ name, members }) => {
      const section = explained.get(name) ?? name;
      const known = named(sections.get(section)!);
      return members
        .filter((member) => member !== 'asyncDispose' && !known.has(member))
        .map((member) => `${name}.${member} (in ${section})`);
    });
    assert.deepEqual(missing, []);
  });

  it('names no code of an error that there is not', () => {
    for (const [code] of `${api}${errors}`.matchAll(/TIDEMARK_[A-Z_]*[A-Z]/g))
      assert.ok(codes.includes(code) || code === 'TIDEMARK_FAULTS', code);
  });

  it('has links that lead somewhere', () => {
    const anchors = [...api.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    );
    for (const [, anchor] of api.matchAll(/\]\(#([^)]*)\)/g)) assert.ok(anchors.includes(anchor!), anchor);
  });
});

testBlocks('docs/api.md');

describe('docs/errors.md', () => {
  it('has a heading for every code, in order, and none besides', () => {
    const headings = [...errors.matchAll(/^## (TIDEMARK_\w+)$/gm)].map(([, code]) => code!);
    assert.deepEqual(headings, [...codes].sort());
  });

  it('says of each when it comes, what is lost, and whether to try again', () => {
    for (const section of errors.split(/^## /m).slice(1)) {
      for (const part of ['**When:**', '**Lost:**', '**Again:**'])
        assert.ok(section.includes(part), `${section.slice(0, 40)}: ${part}`);
    }
  });
});
