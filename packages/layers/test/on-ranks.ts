import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { launch, listMpiruns } from '@fmoe/comm';
import { expect } from 'vitest';

class Text extends Writable {
  text = '';
  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

const [mpirun] = listMpiruns();

/** Why there are no ranks to run on; undefined where there are. */
export const noRanks = mpirun === undefined ? 'there is no mpirun' : undefined;

/**
 * Starts a program of `ranks/` on so many ranks, and expects of each that what it compared was equal.
 *
 * @param fewest comparisons that a rank must have made
 */
export async function expectEqualOnRanks(program: string, processes: number, fewest: number): Promise<void> {
  const [out, error] = [new Text(), new Text()];
  const { exitCode } = await launch(
    {
      command: [
        process.execPath,
        '--import',
        import.meta.resolve('tsx'),
        fileURLToPath(new URL(`ranks/${program}`, import.meta.url)),
      ],
      processes,
      backend: 'mpi',
      env: { ...process.env, FMOE_MPIRUN: mpirun!.path, FMOE_COMM_TIMEOUT: '60' },
    },
    { out, error },
  );
  expect(error.text).toBe('');
  expect(exitCode).toBe(0);
  const reports = out.text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line.replace(/^\[ *\d+\] /, '')) as { rank: number; comparisons: number });
  expect(reports.map(({ rank }) => rank).sort()).toEqual(
    Array.from({ length: processes }, (_, rank) => rank),
  );
  for (const report of reports) {
    expect(report).toMatchObject({ failed: 0, failures: [] });
    expect(report.comparisons).toBeGreaterThan(fewest);
  }
}
