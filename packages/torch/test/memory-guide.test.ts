import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { runNode, sources } from './support/children.js';

const guide = readFileSync(new URL('../../../docs/guides/memory.md', import.meta.url), 'utf8');
const examples = [...guide.matchAll(/^## (.+)$|^```ts\n([\s\S]*?)^```$/gm)].reduce<
  { title: string; code: string }[]
>((list, [, heading, code]) => {
  if (heading !== undefined) list.push({ title: heading, code: '' });
  else if (code !== undefined) {
    const last = list.at(-1)!;
    if (last.code === '') last.code = code;
    else list.push({ title: `${last.title} (more)`, code });
  }
  return list;
}, []);
const folder = mkdtempSync(join(tmpdir(), 'fmoe-guide-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** What the comments behind `console.log(…);` promise. */
const promised = (code: string): string =>
  [...code.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, text]) => `${text}\n`).join('');

describe('the examples of the memory guide print what they say', () => {
  it('are all here', () => {
    expect(examples.map(({ code }) => promised(code)).every((text) => text !== '')).toBe(true);
    expect(examples).toHaveLength(8);
  });

  it.each(examples.map(({ title, code }, i) => [i, title, code] as const))(
    '%i: %s',
    async (i, _title, code) => {
      const path = join(folder, `example-${i}.mts`);
      writeFileSync(path, code.replaceAll("'@fmoe/torch'", JSON.stringify(sources)));
      const { stdout, stderr, code: exitCode } = await runNode([path]);
      expect(stderr).toBe('');
      expect([exitCode, stdout]).toEqual([0, promised(code)]);
    },
  );
});
