import { EventFile, histogramOfCounts } from '../tensorboard/index.js';
import {
  coefficientOfVariation,
  imbalance,
  type MetricRecord,
  type MetricSink,
  quotedLoss,
} from './records.js';

/** Writes curves, expert loads and texts to a TensorBoard event file. */
export class TensorBoardSink implements MetricSink {
  readonly #file: EventFile;
  #unit: 'character' | 'byte' | 'word' = 'character';

  /**
   * @param folder the run's folder of event files
   * @throws FmoeError ERR_FILE when the file cannot be made
   */
  constructor(folder: string) {
    this.#file = new EventFile(folder);
  }

  write(record: MetricRecord): void {
    const { step } = record;
    const file = this.#file;
    switch (record.kind) {
      case 'start':
        this.#unit = record.unit;
        if (step > 0) file.restart(step + 1);
        file.text('config', `    ${JSON.stringify(record.config, null, 2).replaceAll('\n', '\n    ')}`, step);
        break;
      case 'train':
        this.#loss('train', record.loss, step);
        file.scalar('train/learning_rate', record.learningRate, step);
        file.scalar('train/gradient_norm', record.gradientNorm, step);
        file.scalar('train/tokens_per_second', record.tokensPerSecond, step);
        if (record.balanceLoss !== undefined) file.scalar('train/balance_loss', record.balanceLoss, step);
        for (const [layer, load] of record.expertLoad.entries()) {
          file.scalar(`experts/imbalance/layer_${layer}`, imbalance(load), step);
          file.scalar(`experts/coefficient_of_variation/layer_${layer}`, coefficientOfVariation(load), step);
          file.histogram(`experts/load/layer_${layer}`, histogramOfCounts(load), step);
        }
        this.#perLayer('experts/dropped_share', record.droppedShare, step);
        this.#perLayer('experts/router_entropy', record.routerEntropy, step);
        break;
      case 'evaluation':
        this.#loss(record.split, record.loss, step);
        break;
      case 'text':
        file.text(record.tag, record.text, step);
        break;
    }
  }

  close(): void {
    this.#file.close();
  }

  #perLayer(tag: string, values: readonly (number | null)[] | undefined, step: number): void {
    for (const [layer, value] of (values ?? []).entries()) {
      if (value !== null) this.#file.scalar(`${tag}/layer_${layer}`, value, step);
    }
  }

  #loss(part: string, loss: number, step: number): void {
    const quoted = quotedLoss(loss, this.#unit);
    this.#file.scalar(`${part}/loss`, loss, step);
    this.#file.scalar(`${part}/${quoted.name.replaceAll(' ', '_')}`, quoted.value, step);
  }
}
