import { fileURLToPath } from 'node:url';
import {
  launchTestRanks,
  type RankRun,
  reportsOf,
  type TestTransport,
  testTransports,
} from '@fmoe/comm/testing';
import { cuda } from '@fmoe/torch';
import { describeUnless } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';

const program = fileURLToPath(new URL('./ranks/equal-to-one.ts', import.meta.url));

interface Report {
  rank: number;
  comparisons: number;
  failed: number;
  failures: string[];
}

async function compare(transport: TestTransport, processes: number, dtype: string): Promise<RankRun> {
  const run = await launchTestRanks(transport, processes, program, { args: [dtype], timeoutSeconds: 240 });
  expect(run.exitCode, run.log).toBe(0);
  const reports = reportsOf<Report>(run);
  expect(reports.map(({ rank }) => rank).sort()).toEqual(
    Array.from({ length: processes }, (_, rank) => rank),
  );
  for (const report of reports) {
    expect(report).toMatchObject({ failed: 0, failures: [] });
    expect(report.comparisons).toBeGreaterThan(dtype === 'bfloat16' ? 200 : 1000);
  }
  return run;
}

const transports = testTransports();
const [first] = transports;

describeUnless(first!.missing, 'experts on many ranks', () => {
  it.each([1, 2, 3, 4, 8])(
    'are equal to one process on %i ranks',
    async (processes) => {
      const run = await compare(first!, processes, 'float64');
      expect(run.error).toBe('');
    },
    240_000,
  );

  it.each(['float32', 'bfloat16'])(
    'are equal to one process up to rounding in %s',
    (dtype) => compare(first!, 2, dtype),
    240_000,
  );
});

for (const transport of transports.filter(({ device }) => device === 'cuda')) {
  describeUnless(transport.missing, `experts on many ranks over ${transport.name}`, () => {
    const many = transport.missing === undefined && cuda.deviceCount() >= 8 ? [8] : [];
    const dtypes = transport.backend === 'nccl' ? ['float64', 'float32', 'bfloat16'] : ['float64'];
    it.each([1, 2, 4, ...many].flatMap((processes) => dtypes.map((dtype) => [processes, dtype] as const)))(
      'are equal to one process on %i ranks in %s',
      (processes, dtype) => compare(transport, processes, dtype),
      240_000,
    );
  });
}
