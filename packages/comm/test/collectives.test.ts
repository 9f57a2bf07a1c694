import { describeUnless } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';
import { missingMpi, runRanks } from './support/mpi.js';

interface Outcome {
  rank: number;
  size: number;
  members: number[];
  count: number;
  failures: string[];
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
        const outcomes = [...result.reports.values()].map((report) => report.value as Outcome);
        expect(
          outcomes.flatMap(({ rank, failures }) => failures.map((failure) => `rank ${rank}: ${failure}`)),
        ).toEqual([]);
        expect(result.code, result.stderr).toBe(0);
        expect(outcomes.map(({ rank }) => rank).sort()).toEqual(
          Array.from({ length: worldSize }, (_, r) => r),
        );
        for (const { size, members, count } of outcomes) {
          expect(size).toBe(worldSize);
          expect(members).toEqual(Array.from({ length: worldSize }, (_, r) => r));
          expect(count).toBeGreaterThan(150);
        }
      },
      120_000,
    );
  });
}
