import { join } from 'node:path';
import { type Config, type ResolvedConfig, resolveConfig } from '../../src/training/config/index.js';
import { folderWith } from './temporary-folder.js';

/** Sentences with some order and some surprise, made without a random generator. */
export function tinyText(words: number, seed = 1): string {
  const list = ['the people', 'of the states', 'shall', 'congress', 'and', 'a union', 'more perfect', 'in'];
  let state = seed;
  return Array.from({ length: words }, () => {
    // A linear congruential generator (Numerical Recipes).
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return list[(state >>> 24) % list.length];
  }).join(' ');
}

/** What a tiny run may change. */
export interface TinyChanges {
  model?: Partial<Config['model']>;
  training?: Partial<Config['training']>;
  evaluation?: Config['evaluation'];
  logging?: Config['logging'];
  checkpoint?: Config['checkpoint'];
}

/** A configuration that trains for seconds: MoE with a noisy gate, dropout, memory. */
export function tinyConfig(folder: string, changes: TinyChanges = {}): ResolvedConfig {
  return resolveConfig(
    {
      name: 'tiny',
      runs: join(folder, 'runs'),
      device: 'cpu',
      threads: 1,
      data: { kind: 'text', train: 'train.txt', valid: 'valid.txt', test: 'test.txt' },
      model: {
        kind: 'transformer-xl',
        nLayer: 2,
        nHead: 2,
        dModel: 16,
        dInner: 16,
        memLen: 8,
        dropout: 0.1,
        moe: { numExpert: 4, topK: 2, gate: 'noisy' },
        ...changes.model,
      },
      training: {
        steps: 40,
        batchSize: 4,
        tgtLen: 8,
        balanceWeight: 0.01,
        optimizer: { kind: 'adam', lr: 3e-3 },
        schedule: { kind: 'cosine', warmupSteps: 5 },
        ...changes.training,
      },
      evaluation: { every: 0, batchSize: 2, ...changes.evaluation },
      logging: { every: 5, ...changes.logging },
      checkpoint: { every: 0, ...changes.checkpoint },
    },
    { folder },
  );
}

/** A folder with the text files that {@link tinyConfig} reads. */
export function tinyFolder(trainingWords = 400): string {
  return folderWith({
    'train.txt': tinyText(trainingWords),
    'valid.txt': tinyText(60, 2),
    'test.txt': tinyText(60, 3),
  });
}
