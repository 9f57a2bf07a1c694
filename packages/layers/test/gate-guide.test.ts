import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it, vi } from 'vitest';
import * as layers from '../src/index.js';

const guide = readFileSync(new URL('../../../docs/guides/choose-a-gate.md', import.meta.url), 'utf8');
const folder = mkdtempSync(join(tmpdir(), 'fmoe-guide-'));
afterAll(() => rmSync(folder, { recursive: true }));

it('the example of the guide prints what it says', async () => {
  const [, code] = /^```ts\n([\s\S]*?)^```$/m.exec(guide)!;
  const [, promised] = /console\.log\(.*\); \/\/ (.*)$/m.exec(code!)!;
  const path = join(folder, 'example.ts');
  writeFileSync(path, code!);
  const log = vi.spyOn(console, 'log').mockImplementation(() => {});
  await import(path);
  expect(log.mock.calls.map((call) => call.join(' '))).toEqual([promised]);
  log.mockRestore();
});

it('the guide names every gate', () => {
  const gates = Object.keys(layers).filter((name) => /^[A-Z]\w*Gate$/.test(name));
  const abstract = ['BaseGate', 'LinearGate', 'RouterGate'];
  for (const gate of gates) if (!abstract.includes(gate)) expect(guide).toContain(`| \`${gate}\` |`);
  expect(gates.length).toBe(13 + abstract.length);
});
