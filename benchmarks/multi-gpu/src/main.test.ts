import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { listMpiruns } from '@fmoe/comm';
import { describeUnless } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';

const main = fileURLToPath(new URL('./main.ts', import.meta.url));
const noMpi = listMpiruns().length === 0 ? 'there is no mpirun' : undefined;

describeUnless(noMpi, 'the benchmark, over MPI with tiny sizes', () => {
  // The ranks themselves compare the step by parts with the layer's own.
  it('times the layer on one and on two ranks', () => {
    const folder = mkdtempSync(join(tmpdir(), 'fmoe-scaling-'));
    const json = join(folder, 'result.json');
    try {
      const options = ['--device', 'cpu', '--quick', '--ranks', '2', '--parts', 'layer', '--json', json];
      execFileSync(process.execPath, ['--import', import.meta.resolve('tsx'), main, ...options], {
        cwd: fileURLToPath(new URL('../../../', import.meta.url)),
        stdio: 'pipe',
      });
      const { layer, failed } = JSON.parse(readFileSync(json, 'utf8'));
      expect(failed).toEqual([]);
      expect(layer.map(({ ranks, routing }: Record<string, unknown>) => [ranks, routing])).toEqual([
        [1, 'balanced'],
        [1, 'router'],
        [2, 'balanced'],
        [2, 'router'],
      ]);
      for (const { milliseconds, aloneMilliseconds, split, ranks } of layer) {
        expect(milliseconds).toBeGreaterThan(0);
        expect(aloneMilliseconds).toBeGreaterThan(0);
        expect(split.experts).toBeGreaterThan(0);
        expect(split.exchange > 0).toBe(ranks > 1);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }, 120_000);
});
