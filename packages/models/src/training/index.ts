export { buildModel } from './build-model.js';
export { buildOptimizer } from './build-optimizer.js';
export {
  type CheckpointDescription,
  type CheckpointEntry,
  CheckpointFolder,
  type CheckpointState,
  describeCheckpoint,
  loadCheckpoint,
  loadModel,
  mergeCheckpoint,
  saveCheckpoint,
  splitCheckpoint,
} from './checkpoint/index.js';
export {
  applyOverrides,
  type Config,
  defineConfig,
  type ResolvedConfig,
  resolveConfig,
} from './config/index.js';
export { chooseDevice } from './device.js';
export { type Evaluation, type EvaluationOptions, evaluate } from './evaluate.js';
export { type GenerationOptions, generate } from './generate.js';
export type { LanguageModel } from './language-model.js';
export { type LoadedRun, loadRun } from './load-run.js';
export * from './metrics/index.js';
export { absolutePlugin, loadPlugins, type MoEPlugins } from './plugins/index.js';
export { RunFolder } from './run-folder.js';
export { type RunOptions, runTraining } from './run-training.js';
export { Schedule } from './schedule.js';
export { EventFile, type Histogram, histogramOf, histogramOfCounts } from './tensorboard/index.js';
export { Trainer, type TrainerOptions, type TrainingResult } from './trainer.js';
