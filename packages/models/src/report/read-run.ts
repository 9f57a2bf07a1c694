import { basename, join, resolve } from 'node:path';
import { FmoeError } from '@fmoe/torch';
import {
  type EvaluationRecord,
  readMetrics,
  type StartRecord,
  type TextRecord,
  type TrainRecord,
} from '../training/metrics/index.js';

/** Name of the metrics file in the folder of a run. */
export const metricsFile = 'metrics.jsonl';

/** What a run wrote, sorted by kind. */
export interface Run {
  name: string;
  folder: string;
  /** The last start: of the run itself or of its last resumption. */
  start: StartRecord;
  train: TrainRecord[];
  evaluations: EvaluationRecord[];
  texts: TextRecord[];
}

/**
 * Reads the metrics of a run.
 *
 * @param folder the run's folder
 * @throws FmoeError ERR_FILE when it is not the folder of a run, or no step was recorded yet
 */
export function readRun(folder: string): Run {
  const records = readMetrics(join(folder, metricsFile));
  const start = records.filter((record) => record.kind === 'start').at(-1);
  const train = records.filter((record) => record.kind === 'train');
  if (start === undefined || train.length === 0) {
    throw new FmoeError('ERR_FILE', `${folder}: the run has recorded no training step yet.`);
  }
  return {
    name: start.name || basename(resolve(folder)),
    folder,
    start,
    train,
    evaluations: records.filter((record) => record.kind === 'evaluation'),
    texts: records.filter((record) => record.kind === 'text'),
  };
}

/** Rows that each expert received over the last `share` of the recorded steps, `[layer][expert]`. */
export function lateExpertLoad(run: Run, share = 0.25): number[][] {
  const from = run.start.steps * (1 - share);
  const late = run.train.filter((record) => record.step > from);
  const records = late.length > 0 ? late : run.train.slice(-1);
  const last = records[records.length - 1]?.expertLoad ?? [];
  return last.map((layer, index) =>
    layer.map((_, expert) =>
      records.reduce((sum, record) => sum + (record.expertLoad[index]?.[expert] ?? 0), 0),
    ),
  );
}
