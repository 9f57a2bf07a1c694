import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launchTestRanks, reportsOf, testTransports } from '@fmoe/comm/testing';
import { describeUnless } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';
import { temporaryFolder } from './support/temporary-folder.js';
import { tinyConfig, tinyFolder } from './support/tiny-run.js';

const program = fileURLToPath(new URL('./ranks/train.ts', import.meta.url));
const [first, ...others] = testTransports();
const transports = [first!, ...others.filter(({ device }) => device === 'cuda')];

interface Report {
  rank: number;
  sameBatch: number;
  sameGlobalBatch: number;
  resumed: Record<string, number>;
}

for (const transport of transports) {
  describeUnless(transport.missing, `training on many ranks over ${transport.name}`, () => {
    const folder = temporaryFolder();
    const configFile = join(folder, 'config.json');

    async function train(processes: number): Promise<Report[]> {
      const run = await launchTestRanks(transport, processes, program, { args: [configFile, folder] });
      expect(run.exitCode, run.log).toBe(0);
      if (transport.device === 'cpu') expect(run.error).toBe('');
      return reportsOf<Report>(run);
    }

    // Each number of ranks resumes what those before it have saved.
    const order = transport.device === 'cpu' ? [4, 1, 2, 3] : [4, 1, 2];
    it.each(order.map((ranks, index) => [ranks, order.slice(0, index + 1)] as const))(
      'is training on one process on %i ranks, and goes on from checkpoints of %j',
      async (processes, saved) => {
        mkdirSync(folder, { recursive: true });
        const config = tinyConfig(tinyFolder(), {
          model: { dropout: 0, moe: { numExpert: 6, topK: 2, gate: 'naive' } },
          training: { steps: 100, batchSize: 10, clip: 0.05 },
        });
        writeFileSync(configFile, JSON.stringify(config));
        const reports = await train(processes);
        expect(reports.length).toBe(processes);
        for (const { sameBatch, sameGlobalBatch, resumed } of reports) {
          expect(sameBatch).toBeLessThan(1e-10);
          expect(sameGlobalBatch).toBeLessThan(1e-10);
          expect(Object.keys(resumed).map(Number).sort()).toEqual([...saved].sort());
          for (const difference of Object.values(resumed)) expect(difference).toBeLessThan(1e-10);
        }
        const [checkpoint] = readdirSync(join(folder, `checkpoints-${processes}`));
        expect(checkpoint).toBe('step-00000010');
        const files = readdirSync(join(folder, `checkpoints-${processes}`, checkpoint!));
        expect(files.length).toBe(processes === 1 ? 4 : 3 * processes + 1);
      },
      120_000,
    );
  });
}
