export { JsonlSink, readMetrics } from './jsonl-sink.js';
export { type ProgressOptions, ProgressSink } from './progress-sink.js';
export {
  bitsPerToken,
  coefficientOfVariation,
  type EvaluationRecord,
  imbalance,
  type MetricRecord,
  type MetricSink,
  quotedLoss,
  type StartRecord,
  type TextRecord,
  type TrainRecord,
  worstImbalance,
} from './records.js';
export { TensorBoardSink } from './tensorboard-sink.js';
