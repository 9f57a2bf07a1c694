import { manualSeed } from '@fmoe/torch';
import { loadCorpus } from '../../src/data/index.js';
import { buildModel, type MetricRecord, type ResolvedConfig, Trainer } from '../../src/training/index.js';

/** A trainer on the CPU that keeps its records. */
export function makeTrainer(config: ResolvedConfig, checkpoints = `${config.runs}/checkpoints`) {
  const corpus = loadCorpus(config.data);
  manualSeed(config.seed);
  const model = buildModel(config.model, corpus.vocabulary.size);
  const records: MetricRecord[] = [];
  const sink = { write: (record: MetricRecord) => void records.push(record), close: () => {} };
  const trainer = new Trainer({ config, corpus, model, device: 'cpu', checkpoints, sinks: [sink] });
  return { trainer, model, corpus, records };
}
