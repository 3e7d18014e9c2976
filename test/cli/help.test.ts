import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { expectExit, failure, MAIN, tidemark } from './support.js';

const VERBS = ['log', 'show', 'restore', 'verify', 'doctor'];

describe('the tool: help, version, usage', () => {
  it('has a shebang and prints its version', async () => {
    assert.ok(readFileSync(MAIN, 'utf8').startsWith('#!/usr/bin/env node\n'));
    const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
    assert.equal((await expectExit(0, '--version')).text, `${version}\n`);
  });

  it('prints an overview that names every verb', async () => {
    for (const args of [['help'], ['-h']]) {
      const { text, stderr } = await expectExit(0, ...args);
      for (const verb of VERBS) assert.match(text, new RegExp(`^ {2}${verb} `, 'm'));
      assert.equal(stderr, '');
      assert.ok(!text.includes('\x1b'), 'no colours in a pipe');
    }
  });

  it('prints the help of each verb, in both ways', async () => {
    await Promise.all(
      VERBS.map(async (verb) => {
        const { text } = await expectExit(0, 'help', verb);
        assert.match(text, new RegExp(`^usage: tidemark ${verb} `));
        assert.equal((await expectExit(0, verb, '--help')).text, text);
      }),
    );
  });

  it('documents every option', () => {
    const docs = readFileSync(new URL('../../../docs/cli.md', import.meta.url), 'utf8');
    for (const verb of VERBS) {
      const help = execFileSync(process.execPath, [MAIN, 'help', verb], { encoding: 'utf8' });
      const section = docs.split(/^## /m).find((part) => part.startsWith(`\`tidemark ${verb}`)) ?? '';
      for (const [option] of help.matchAll(/--[a-z-]+/g))
        assert.ok(option === '--help' || section.includes(`\`${option}`), `${verb} ${option} is not in docs/cli.md`);
    }
  });

  const wrong: [string[], RegExp][] = [
    [[], /^usage: /],
    [['frobnicate'], /there is no verb "frobnicate"/],
    [['toString'], /there is no verb/],
    [['help', 'frobnicate'], /there is no verb/],
    [['log'], /<store> is missing/],
    [['log', 'a', 'b'], /unexpected argument "b"/],
    [['log', ''], /an argument is empty/],
    [['log', 'a', '--nope'], /Unknown option '--nope'/],
    [['log', 'a', '--limit', '-1'], /./],
    [['log', 'a', '--limit', 'x'], /--limit must be a whole number/],
    [['log', 'a', '--branch', '../x'], /--branch "\.\.\/x" is not a name/],
    [['show', 'a'], /<target> is missing/],
    [['show', 'a', 'b c'], /"b c" is not a target/],
    [['show', 'a', 'main@yesterday'], /is not a target/],
    [['restore', 'a', '1'], /--output is missing/],
    [['restore', 'a', '1', '--output', '-'], /needs --region/],
    [['restore', 'a', '1', '--output', 'x', '--region', '/etc'], /is not a name/],
    [['verify', 'a', '--json=yes'], /./],
  ];
  it('exits with 2 for what it does not understand', async () => {
    await Promise.all(
      wrong.map(async ([args, message]) => {
        const { stderr, text } = await expectExit(2, ...args);
        assert.match(stderr.replace(/^tidemark: /, ''), message);
        assert.equal(text, '');
      }),
    );
  });

  it('reports errors as one JSON object with --json, as a message and a hint without', async () => {
    const error = failure(await tidemark('show', 'a', '--json'));
    assert.equal(error.code, 'USAGE');
    assert.equal(error.exitCode, 2);
    assert.equal(error.message, '<target> is missing');
    const { stderr } = await tidemark('show', 'a');
    assert.equal(stderr, 'tidemark: <target> is missing\n  hint: `tidemark help show` says how it is used\n');
  });
});
