import { fileURLToPath } from 'node:url';
import { launchTestRanks, type RankRun, reportsOf, type TestTransport } from '@fmoe/comm/testing';
import { expect } from 'vitest';

interface Report {
  rank: number;
  comparisons: number;
  failed: number;
  failures: string[];
}

/**
 * Starts a program of `ranks/` on so many ranks, and expects of each that what it compared was equal.
 *
 * @param options.fewest comparisons that a rank must have made
 */
export async function expectEqualOnRanks(
  transport: TestTransport,
  processes: number,
  program: string,
  options: { args?: readonly string[]; fewest: number },
): Promise<RankRun> {
  const { args = [], fewest } = options;
  const path = fileURLToPath(new URL(`ranks/${program}`, import.meta.url));
  const run = await launchTestRanks(transport, processes, path, { args, timeoutSeconds: 240 });
  expect(run.exitCode, run.log).toBe(0);
  const reports = reportsOf<Report>(run);
  expect(reports.map(({ rank }) => rank).sort()).toEqual(
    Array.from({ length: processes }, (_, rank) => rank),
  );
  for (const report of reports) {
    expect(report).toMatchObject({ failed: 0, failures: [] });
    expect(report.comparisons).toBeGreaterThan(fewest);
  }
  return run;
}
