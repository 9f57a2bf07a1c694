/** Steps of training a Mixture-of-Experts Transformer-XL, as `fmoe train` does them: forward, backward, gradients of all ranks, Adam. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadCorpus } from '@fmoe/models/data';
import { buildModel, resolveConfig, Trainer } from '@fmoe/models/training';
import { cuda, manualSeed, setNumThreads } from '@fmoe/torch';
import type { TrainingSettings } from '../training-settings.js';
import { joinRanks } from './rank.js';

export interface TrainingFigures {
  /** Milliseconds of a step, by round. */
  milliseconds: number[];
  /** Of all ranks, in a step. */
  tokens: number;
  /** Of all ranks. */
  parameters: number;
  peakMiB?: number;
}

const { settings, group, device, isGpu, folder, leave, synchronize } = joinRanks<TrainingSettings>();
const { nLayer, nHead, dModel, dInner, tgtLen, precision, topK } = settings;
setNumThreads(1);

/** Letters drawn by a linear congruential generator (Numerical Recipes): what is learned makes no difference to the time. */
function writeText(path: string, length: number): void {
  const text = Buffer.alloc(length);
  let state = 1;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    text[i] = 97 + ((state >>> 24) % 26);
  }
  writeFileSync(path, text);
}

const path = join(folder, `text-${group.rank}.txt`);
const batchSize = settings.columnsPerRank * group.size;
const steps = settings.warmup + settings.steps * settings.rounds;
writeText(path, Math.ceil((batchSize * tgtLen * (steps + 2)) / 0.8));
const config = resolveConfig({
  name: 'scaling',
  runs: folder,
  data: { kind: 'text-file', path },
  model: {
    kind: 'transformer-xl',
    nLayer,
    nHead,
    dModel,
    dInner,
    memLen: tgtLen,
    moe: { numExpert: settings.expertsPerRank * group.size, topK },
  },
  training: {
    steps,
    batchSize,
    tgtLen,
    precision,
    balanceWeight: 0.01,
    optimizer: { kind: 'adam', lr: 1e-4 },
  },
  logging: { every: steps + 1, tensorboard: false },
});
const corpus = loadCorpus(config.data);
const moeGroup = group.size > 1 ? group : null;
manualSeed(config.seed);
const model = buildModel(config.model, corpus.vocabulary.size, {}, moeGroup).to({ device });
model.train();
const trainer = new Trainer({ config, corpus, model, device, checkpoints: folder, group: moeGroup });

const figures: TrainingFigures = {
  milliseconds: [],
  tokens: batchSize * tgtLen,
  parameters: trainer.parameterCount,
};
for (let step = 0; step < settings.warmup; step++) trainer.trainStep();
for (let round = 0; round < settings.rounds; round++) {
  group.barrier();
  synchronize();
  const begin = performance.now();
  for (let step = 0; step < settings.steps; step++) trainer.trainStep();
  synchronize();
  figures.milliseconds.push((performance.now() - begin) / settings.steps);
  if (isGpu) figures.peakMiB = Math.round(cuda.memoryStatistics().allocatedPeak / 2 ** 20);
  leave(figures);
}
group.barrier();
synchronize();
