import { fileURLToPath } from 'node:url';
import { cuda } from '@fmoe/torch';
import { describeUnless } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';
import { launchTestRanks, reportsOf, testTransports } from '../src/testing/index.js';
import { missingMpi, runRanks } from './support/mpi.js';

interface Outcome {
  rank: number;
  size: number;
  members: number[];
  count: number;
  failures: string[];
}

function expectSuccess(worldSize: number, outcomes: readonly Outcome[]): void {
  const ranks = Array.from({ length: worldSize }, (_, rank) => rank);
  expect(
    outcomes.flatMap(({ rank, failures }) => failures.map((failure) => `rank ${rank}: ${failure}`)),
  ).toEqual([]);
  expect(outcomes.map(({ rank }) => rank).sort()).toEqual(ranks);
  for (const { size, members, count } of outcomes) {
    expect(size).toBe(worldSize);
    expect(members).toEqual(ranks);
    expect(count).toBeGreaterThan(150);
  }
}

/** Settings that change how an operation is carried out, each tried with one number of ranks. */
const settings: Record<number, Record<string, string>> = {
  // Buffers go in pieces, as those of more than 2^30 bytes do.
  3: { FMOE_COMM_PIECE_BYTES: '40' },
  4: { FMOE_COMM_DEBUG: '1' },
};

for (const family of ['openmpi', 'mpich'] as const) {
  describeUnless(missingMpi(family), `collectives and exchange over ${family}`, () => {
    it.each([1, 2, 3, 4, 8])(
      'give on %i ranks what one process computes',
      async (worldSize) => {
        const result = await runRanks(family, worldSize, 'main.ts', { env: settings[worldSize] ?? {} });
        expectSuccess(
          worldSize,
          [...result.reports.values()].map((report) => report.value as Outcome),
        );
        expect(result.code, result.stderr).toBe(0);
      },
      120_000,
    );
  });
}

const program = fileURLToPath(new URL('./ranks/main.ts', import.meta.url));

for (const transport of testTransports().filter(({ device }) => device === 'cuda')) {
  describeUnless(transport.missing, `collectives and exchange over ${transport.name}`, () => {
    it.each([1, 2, 4, ...(transport.missing === undefined && cuda.deviceCount() >= 8 ? [8] : [])])(
      'give on %i ranks what one process computes',
      async (worldSize) => {
        const env = worldSize === 2 ? { FMOE_COMM_DEBUG: '1' } : {};
        const run = await launchTestRanks(transport, worldSize, program, { env });
        expect(run.exitCode, run.log).toBe(0);
        expectSuccess(
          worldSize,
          reportsOf<{ value: Outcome }>(run).map(({ value }) => value),
        );
      },
      180_000,
    );
  });
}
