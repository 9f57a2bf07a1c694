import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Config } from '@fmoe/models/training';
import { fmoeHome } from '@fmoe/torch/setup';

/** Where the speeches are kept as text: a cache, not a part of the repository. */
export const dataFolder = join(fmoeHome(), 'data', 'sotu');

/** Where the runs are written: `runs/` at the top of the repository. */
export const runsFolder = fileURLToPath(new URL('../../runs', import.meta.url));

/**
 * What both models share. The MoE model chooses 2 of 8 experts of inner width 256 for each token, the dense one has a single
 * feed-forward of inner width 512: the same multiplications per token, the router aside.
 */
export function sotu(name: string, model: Pick<Config['model'], 'dInner' | 'moe'>): Config {
  return {
    name,
    runs: runsFolder,
    seed: 1111,
    data: {
      kind: 'text',
      train: join(dataFolder, 'train.txt'),
      valid: join(dataFolder, 'valid.txt'),
      test: join(dataFolder, 'test.txt'),
    },
    // 0.08 is about 1/√dModel. With the default 0.02, made for wider models, both need far longer to the same loss and the
    // routers get almost no signal at first.
    model: { kind: 'transformer-xl', nLayer: 3, nHead: 4, dModel: 128, memLen: 64, initStd: 0.08, ...model },
    training: {
      steps: 3600,
      batchSize: 16,
      tgtLen: 64,
      clip: 0.25,
      balanceWeight: 0.01,
      optimizer: { kind: 'adam', lr: 2e-3 },
      schedule: { kind: 'cosine', warmupSteps: 100 },
    },
    evaluation: { every: 400, batchSize: 32 },
    logging: { every: 10 },
    checkpoint: { every: 1200 },
  };
}
