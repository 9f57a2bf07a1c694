import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { launch, listMpiruns } from '@fmoe/comm';
import { describeUnless } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';

class Text extends Writable {
  text = '';
  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

const program = fileURLToPath(new URL('./ranks/equal-to-one.ts', import.meta.url));
const families = [...new Map(listMpiruns().map((mpirun) => [mpirun.family, mpirun.path]))];
const missing = families.length === 0 ? 'there is no mpirun' : undefined;

describeUnless(missing, 'experts on many ranks', () => {
  const [, path] = families[0] ?? [];
  it.each([1, 2, 3, 4, 8])(
    'are equal to one process on %i ranks',
    async (processes) => {
      const [out, error] = [new Text(), new Text()];
      const { exitCode } = await launch(
        {
          command: [process.execPath, '--import', import.meta.resolve('tsx'), program],
          processes,
          backend: 'mpi',
          env: { ...process.env, FMOE_MPIRUN: path, FMOE_COMM_TIMEOUT: '60' },
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
        expect(report.comparisons).toBeGreaterThan(1000);
      }
    },
    240_000,
  );
});
