import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { launch, listMpiruns } from '@fmoe/comm';
import { describeUnless } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';
import { temporaryFolder } from './support/temporary-folder.js';
import { tinyConfig, tinyFolder } from './support/tiny-run.js';

class Text extends Writable {
  text = '';
  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

const program = fileURLToPath(new URL('./ranks/train.ts', import.meta.url));
const [mpirun] = listMpiruns();

interface Report {
  rank: number;
  sameBatch: number;
  resumed: Record<string, number>;
}

describeUnless(mpirun === undefined ? 'there is no mpirun' : undefined, 'training on many ranks', () => {
  const folder = temporaryFolder();
  const configFile = join(folder, 'config.json');

  async function train(processes: number): Promise<Report[]> {
    const [out, error] = [new Text(), new Text()];
    const { exitCode } = await launch(
      {
        command: [process.execPath, '--import', import.meta.resolve('tsx'), program, configFile, folder],
        processes,
        backend: 'mpi',
        env: { ...process.env, FMOE_MPIRUN: mpirun!.path, FMOE_COMM_TIMEOUT: '60' },
      },
      { out, error },
    );
    expect(error.text).toBe('');
    expect(exitCode).toBe(0);
    const lines = out.text.trim().split('\n');
    return lines.map((line) => JSON.parse(line.replace(/^\[ *\d+\] /, '')) as Report);
  }

  // Each number of ranks resumes what those before it have saved.
  const order = [4, 1, 2, 3];
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
      for (const { sameBatch, resumed } of reports) {
        expect(sameBatch).toBeLessThan(1e-10);
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
