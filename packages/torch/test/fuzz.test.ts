import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { runNode } from './support/children.js';

const folder = mkdtempSync(join(tmpdir(), 'fmoe-fuzz-'));
afterAll(() => rmSync(folder, { recursive: true }));

const program = fileURLToPath(new URL('./fuzz/main.ts', import.meta.url));

interface Report {
  calls: number;
  succeeded: number;
  refused: number;
  foreign: string[];
  tensors: number;
  scopes: number;
}

async function fuzz(kind: string, seed: number, rounds: number, every: number): Promise<Report> {
  const log = join(folder, `${kind}-${seed}`);
  const { code, signal, stdout, stderr } = await runNode(
    [program, kind, seed, rounds, every, log].map(String),
    { cwd: folder, timeoutSeconds: 150 },
  );
  expect(
    `exit code ${code}, signal ${signal}`,
    `in ${readFileSync(log, 'utf8')}\n${stderr.slice(-2000)}`,
  ).toBe('exit code 0, signal null');
  return JSON.parse(stdout) as Report;
}

// A seed whose calls were found to end the process becomes a guard in the sources and stays here.
describe('random arguments crash nothing, and every refusal is an FmoeError', () => {
  it('in every function of the surface', { timeout: 180_000 }, async () => {
    const report = await fuzz('surface', 1, 3, 1);
    expect(report.foreign).toEqual([]);
    expect(report).toMatchObject({ tensors: 0, scopes: 0 });
    expect(report.calls).toBeGreaterThan(2000);
    // The calls are neither all nonsense nor all right.
    expect(report.succeeded).toBeGreaterThan(report.calls / 10);
    expect(report.refused).toBeGreaterThan(report.calls / 4);
  });

  it('in a part of all operators', { timeout: 180_000 }, async () => {
    const report = await fuzz('operators', 2, 2, 7);
    expect(report.foreign).toEqual([]);
    expect(report).toMatchObject({ tensors: 0, scopes: 0 });
    expect(report.calls).toBeGreaterThan(800);
    expect(report.succeeded).toBeGreaterThan(50);
  });
});
