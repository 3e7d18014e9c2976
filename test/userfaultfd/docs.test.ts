import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { FEATURES } from '../../lib/kernel/userfaultfd-header.js';
import { exportsOf } from '../docs/declared.js';
import { testBlocks } from '../docs/run-blocks.js';

const root = join(import.meta.dirname, '../../..');
const text = readFileSync(join(root, 'docs/userfaultfd.md'), 'utf8');

/** linux/userfaultfd.h of Linux 6.8; the one that is installed may be older. */
const MODES = {
  REGISTER: ['MISSING', 'WP', 'MINOR'],
  COPY: ['DONTWAKE', 'WP'],
  ZEROPAGE: ['DONTWAKE'],
  MOVE: ['DONTWAKE', 'ALLOW_SRC_HOLES'],
  WRITEPROTECT: ['WP', 'DONTWAKE'],
  CONTINUE: ['DONTWAKE', 'WP'],
  POISON: ['DONTWAKE'],
};
const ENTRIES = [
  'USERFAULTFD_IOC_NEW',
  'UFFD_USER_MODE_ONLY',
  ...FEATURES.map((name) => `UFFD_FEATURE_${name}`),
  ...['API', 'UNREGISTER', 'WAKE', ...Object.keys(MODES)].map((name) => `UFFDIO_${name}`),
  ...Object.entries(MODES).flatMap(([ioctl, modes]) => modes.map((mode) => `UFFDIO_${ioctl}_MODE_${mode}`)),
  ...['PAGEFAULT', 'FORK', 'REMAP', 'REMOVE', 'UNMAP'].map((name) => `UFFD_EVENT_${name}`),
  ...['WRITE', 'WP', 'MINOR'].map((name) => `UFFD_PAGEFAULT_FLAG_${name}`),
];

describe('docs/userfaultfd.md', () => {
  it('has a row for every entry of the header', () => {
    const rows = text.split('\n').filter((line) => line.startsWith('| `'));
    for (const entry of ENTRIES)
      assert.equal(rows.filter((row) => row.split('|')[1]!.includes(`\`${entry}\``)).length, 1, `rows for ${entry}`);
    // And the header that is installed has none besides.
    const header = readFileSync('/usr/include/linux/userfaultfd.h', 'utf8');
    for (const [, name] of header.matchAll(/^#define\s+((?:UFFD_(?:FEATURE|EVENT|PAGEFAULT_FLAG)|UFFDIO_\w+_MODE)_\w+)/gm))
      assert.ok(ENTRIES.includes(name!), name);
  });

  it('names every export, and every public member and option', () => {
    const named = new Set([...text.matchAll(/`([^`\n]+)`/g)].flatMap(([, code]) => code!.match(/\w+/g) ?? []));
    const missing = exportsOf(join(root, 'dist/lib/userfaultfd/index.d.ts')).flatMap(({ name, members }) =>
      members.filter((member) => !named.has(member)).map((member) => `${name}.${member}`),
    );
    assert.deepEqual(missing, []);
  });

  it('has links that lead somewhere', () => {
    const anchors = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    );
    for (const [, anchor] of text.matchAll(/\]\(#([^)]*)\)/g)) assert.ok(anchors.includes(anchor!), anchor);
  });
});

testBlocks('docs/userfaultfd.md');
