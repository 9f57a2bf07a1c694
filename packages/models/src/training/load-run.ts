import { manualSeed } from '@fmoe/torch';
import type { Vocabulary } from '../data/vocabulary.js';
import { buildModel, parameterType } from './build-model.js';
import { loadModel } from './checkpoint/index.js';
import type { ResolvedConfig } from './config/index.js';
import { chooseDevice } from './device.js';
import type { LanguageModel } from './language-model.js';
import { loadPlugins } from './plugins/index.js';
import { RunFolder } from './run-folder.js';

/** A trained model with what it was trained with. */
export interface LoadedRun {
  config: ResolvedConfig;
  vocabulary: Vocabulary;
  /** In evaluation mode, on `device`. */
  model: LanguageModel;
  device: string;
  /** Steps that the checkpoint has done. */
  step: number;
}

/**
 * Loads the model of a run.
 *
 * @param folder the run's folder
 * @param options.checkpoint `last` (when left out), `best`, a step, or a folder
 * @param options.device as in a configuration; that of the run when left out
 * @throws FmoeError ERR_FILE when this is not the folder of a run or the checkpoint is damaged;
 * ERR_CONFIG when a plug-in of the run is not installed
 */
export async function loadRun(
  folder: string,
  options: { checkpoint?: string | undefined; device?: string | undefined } = {},
): Promise<LoadedRun> {
  const run = new RunFolder(folder);
  const config = run.readConfig();
  const vocabulary = run.readVocabulary();
  const checkpoint = run.checkpoints.find(options.checkpoint ?? 'last');
  const device = chooseDevice(options.device ?? config.device);
  const plugins = await loadPlugins(config.model);
  manualSeed(config.seed);
  const model = buildModel(config.model, vocabulary.size, plugins);
  model.to({ device, dtype: parameterType(config) });
  const { step } = loadModel(checkpoint, model);
  model.eval();
  return { config, vocabulary, model, device, step };
}
