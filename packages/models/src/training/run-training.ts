import { initProcessGroup, type ProcessGroup, readRendezvous } from '@fmoe/comm';
import { cuda, FmoeError, manualSeed, setNumThreads } from '@fmoe/torch';
import { loadCorpus } from '../data/load-corpus.js';
import { buildModel, parameterType } from './build-model.js';
import type { ResolvedConfig } from './config/index.js';
import { chooseDevice } from './device.js';
import { JsonlSink, type MetricSink, TensorBoardSink } from './metrics/index.js';
import { loadPlugins } from './plugins/index.js';
import { RunFolder } from './run-folder.js';
import { Trainer, type TrainingResult } from './trainer.js';

/** How a run is started. */
export interface RunOptions {
  /** Go on from a checkpoint: `last`, `best`, a step, or a folder. */
  resume?: string | undefined;
  /** Replace a run of the same name. */
  overwrite?: boolean | undefined;
  /** Saves a checkpoint and stops. */
  signal?: AbortSignal | undefined;
  /**
   * Ranks that train together, all of which call this, in folders that they share. Default: those that were started together, as
   * `fmoe launch` or `mpirun` starts them.
   */
  group?: ProcessGroup | null | undefined;
  /** Receive what is measured, besides the files in the run's folder; on the first rank only. */
  sinks?: readonly MetricSink[] | undefined;
  /** Called with the trainer before the first step and after the last one, for example to write samples. */
  atStart?: ((trainer: Trainer) => void) | undefined;
  atEnd?: ((trainer: Trainer, write: MetricSink['write']) => void | Promise<void>) | undefined;
}

/**
 * Trains what a configuration describes, in the folder `<runs>/<name>`: `config.json`, `vocabulary.json`, `metrics.jsonl`,
 * `tensorboard/` and `checkpoints/`.
 *
 * @throws FmoeError ERR_CONFIG when the folder holds a run already, or one that does not fit when resuming; ERR_FILE when the
 *   data or a checkpoint cannot be read; ERR_DEVICE when the device is not there; ERR_RUNTIME when the loss is not finite
 */
export async function runTraining(config: ResolvedConfig, options: RunOptions = {}): Promise<TrainingResult> {
  const folder = RunFolder.of(config);
  const { resume, signal } = options;
  const device = chooseDevice(config.device, readRendezvous().localRank);
  // Ranks meet on the GPU that is current then.
  if (device !== 'cpu') cuda.setDevice(Number(device.split(':')[1]));
  const group = options.group === undefined ? startedTogether() : options.group;
  if (resume !== undefined) folder.checkResumable(config);
  else if (folder.isUsed && options.overwrite !== true) {
    throw new FmoeError(
      'ERR_CONFIG',
      `${folder.path} holds a run already. Resume it (--resume), replace it (--overwrite) or choose another name.`,
    );
  }
  const checkpoint = resume === undefined ? undefined : folder.checkpoints.find(resume);
  // Nobody writes before all have looked.
  group?.barrier();
  const plugins = await loadPlugins(config.model);
  const corpus = loadCorpus(config.data);
  if (resume !== undefined) folder.checkVocabulary(corpus.vocabulary);
  if (config.threads !== undefined) setNumThreads(config.threads);
  manualSeed(config.seed);
  const model = buildModel(config.model, corpus.vocabulary.size, plugins, group);
  model.to({ device, dtype: parameterType(config) });
  const isFirst = group === null || group.rank === 0;
  // What is dropped at random is another thing on each rank.
  if (!isFirst) manualSeed(1_000_003 * config.seed + group.rank);

  const sinks: MetricSink[] = isFirst ? [...(options.sinks ?? [])] : [];
  const checkpoints = folder.checkpoints.path;
  const trainer = new Trainer({ config, corpus, model, device, checkpoints, sinks, group });
  try {
    if (checkpoint !== undefined) trainer.restore(checkpoint);
    if (isFirst) {
      // Only now is it known that the new run can begin.
      if (checkpoint === undefined && folder.isUsed) folder.clear();
      folder.describe(config, corpus.vocabulary);
      sinks.push(new JsonlSink(folder.metrics, { resumeFrom: trainer.step }));
      if (config.logging.tensorboard) sinks.push(new TensorBoardSink(folder.tensorboard));
    }
    const write: MetricSink['write'] = (record) => {
      for (const sink of sinks) sink.write(record);
    };
    write({
      kind: 'start',
      step: trainer.step,
      seconds: trainer.seconds,
      steps: config.training.steps,
      name: config.name,
      unit: corpus.vocabulary.unit,
      parameters: trainer.parameterCount,
      device,
      config,
    });
    options.atStart?.(trainer);
    const result = await trainer.train(signal);
    if (result.finished) await options.atEnd?.(trainer, write);
    return result;
  } finally {
    for (const sink of sinks) sink.close();
    trainer.dispose();
    model.dispose();
  }
}

/** The group of the processes that a launcher started, or null for one that was started by itself. */
function startedTogether(): ProcessGroup | null {
  return readRendezvous().worldSize > 1 ? initProcessGroup() : null;
}
