import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const guide = readFileSync(join(root, 'docs/guides/write-a-gate-or-an-expert.md'), 'utf8');
const examples = [...guide.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code as string);
const folder = mkdtempSync(join(tmpdir(), 'fmoe-guide-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** What the comments behind `console.log(…);` promise. */
const promised = (code: string): string =>
  [...code.matchAll(/console\.log\(.*\); \/\/ (.*)$/gm)].map(([, text]) => `${text}\n`).join('');

describe('the examples of the guide print what they say', () => {
  it('are all here', () => {
    expect(examples).toHaveLength(4);
    expect(examples.every((code) => promised(code) !== '')).toBe(true);
  });

  it.each(examples.map((code, i) => [i, code] as const))('%i', (i, code) => {
    const path = join(folder, `example-${i}.mts`);
    writeFileSync(path, code);
    const flags = ['--import', import.meta.resolve('tsx'), path];
    const env = { ...process.env, TSX_TSCONFIG_PATH: join(root, 'tsconfig.json') };
    expect(execFileSync(process.execPath, flags, { encoding: 'utf8', env })).toBe(promised(code));
  });
});
