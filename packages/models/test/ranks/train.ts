/**
 * Trains on every rank, and next to it on this process alone with the whole batch; then goes on from the checkpoints in a folder,
 * which other numbers of ranks left, and leaves one of its own. Prints one line of JSON.
 *
 * Arguments: a configuration, and the folder of the checkpoints.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessGroup } from '@fmoe/comm';
import { joinTestRanks } from '@fmoe/comm/testing';
import { expertLayout } from '@fmoe/layers';
import { manualSeed, type Tensor } from '@fmoe/torch';
import { loadCorpus } from '../../src/data/index.js';
import { buildModel, type ResolvedConfig, resolveConfig, Trainer } from '../../src/training/index.js';

const [configFile, folder] = process.argv.slice(2) as [string, string];
const base = resolveConfig(JSON.parse(readFileSync(configFile, 'utf8')));
const { world, device } = joinTestRanks();
const { rank, size } = world;
const half = 10;
const steps = 20;

function makeConfig(balanceWeight: number, batchChunk: number): ResolvedConfig {
  return { ...base, training: { ...base.training, balanceWeight, batchChunk } };
}

function makeTrainer(config: ResolvedConfig, group: ProcessGroup | null): Trainer {
  manualSeed(config.seed);
  const corpus = loadCorpus(config.data);
  const model = buildModel(config.model, corpus.vocabulary.size, {}, group);
  model.to({ dtype: 'float64', device });
  const checkpoints = join(folder, `checkpoints-${size}`);
  const trainer = new Trainer({ config, corpus, model, device, checkpoints, group });
  model.train();
  return trainer;
}

/** The largest difference between this rank's parameters and those of one process. */
function difference(trainer: Trainer, alone: Trainer): number {
  const layout = expertLayout(trainer.model);
  const all = new Map<string, Tensor>(alone.model.namedParameters());
  let largest = 0;
  for (const [name, parameter] of trainer.model.namedParameters()) {
    const place = layout.get(name);
    const whole = all.get(place?.name ?? name)!;
    const ids = place?.experts?.ids ?? [-1];
    for (const [slot, id] of ids.entries()) {
      const [own, expected] = id < 0 ? [parameter, whole] : [parameter.select(0, slot), whole.select(0, id)];
      largest = Math.max(largest, own.sub(expected).abs().max().item());
    }
  }
  return largest;
}

function train(trainer: Trainer, until: number): void {
  while (trainer.step < until) trainer.trainStep();
}

// The balance loss is that of the tokens that a gate sees at once: one process takes them in as many chunks.
const withBalance = makeConfig(0.5, size);
const aloneInChunks = makeTrainer(withBalance, null);
const balanced = makeTrainer({ ...withBalance, training: { ...withBalance.training, batchChunk: 1 } }, world);
train(aloneInChunks, steps);
train(balanced, steps);
const sameBatch = difference(balanced, aloneInChunks);

// Or the gates take the tokens of all ranks for one batch, also where some ranks have more of them than others.
const global = makeConfig(0.5, 1);
const { moe } = global.model;
const globalBatch: ResolvedConfig = {
  ...global,
  model: { ...global.model, moe: { ...moe!, gateOptions: { ...moe!.gateOptions, globalBatch: true } } },
};
const aloneAtOnce = makeTrainer(globalBatch, null);
const balancedTogether = makeTrainer(globalBatch, world);
train(aloneAtOnce, steps);
train(balancedTogether, steps);
const sameGlobalBatch = difference(balancedTogether, aloneAtOnce);

// Without one the tokens' losses just add up, however they are divided: into fewer chunks where a rank has fewer columns.
const config = makeConfig(0, 3);
const alone = makeTrainer(config, null);
train(alone, steps);
const resumed: Record<string, number> = {};
for (const ranks of [1, 2, 3, 4]) {
  const saved = join(folder, `checkpoints-${ranks}`);
  if (!existsSync(saved) || ranks === size) continue;
  const trainer = makeTrainer(config, world);
  trainer.restore(join(saved, `step-${`${half}`.padStart(8, '0')}`));
  if (trainer.step !== half) throw new Error(`step ${trainer.step}`);
  train(trainer, steps);
  resumed[ranks] = difference(trainer, alone);
}
const trainer = makeTrainer(config, world);
train(trainer, half);
trainer.save();
// Also by the ranks that wrote it.
const again = makeTrainer(config, world);
again.restore(trainer.checkpoints.find('last'));
train(again, steps);
resumed[size] = difference(again, alone);
console.log(JSON.stringify({ rank, sameBatch, sameGlobalBatch, resumed }));
