/** Shape letters: T tokens, N all experts, K top-k. */
import { type ScoreFunction, topkGate } from '@fmoe/kernels';
import { checkBoolean, type Tensor } from '@fmoe/torch';
import { checkNumber, checkOneOf } from './check-options.js';
import { type Choice, LinearGate, type RouterOptions } from './router-gate.js';

const scoreFunctions: readonly ScoreFunction[] = ['softmax', 'softmaxChosen', 'sigmoid'];

/** Settings of {@link TopKGate}. */
export interface TopKGateOptions extends RouterOptions {
  /**
   * `'softmax'`: over all N experts, before the choice; `'softmaxChosen'`: over the K logits that were chosen; `'sigmoid'`:
   * each logit by itself. Default `'softmax'`.
   */
  scoreFunction?: ScoreFunction;
  /** Divide the K scores of a token by their sum. Default true. */
  normalize?: boolean;
  /** What the scores are multiplied by in the end. Default 1. */
  scalingFactor?: number;
}

/**
 * The K experts of the largest logits, with the scores of today's models: softmax (Mixtral, Qwen, DeepSeek-V2) or sigmoid
 * (DeepSeek-V3, Llama 4), normalised or not, scaled.
 *
 * The balance loss takes sigmoids, divided by their sum over the experts, for probabilities where they are the scores.
 */
export class TopKGate extends LinearGate {
  static override readonly optionNames: readonly string[] = [
    ...super.optionNames,
    'scoreFunction',
    'normalize',
    'scalingFactor',
  ];

  readonly scoreFunction: ScoreFunction;
  readonly normalize: boolean;
  readonly scalingFactor: number;

  /** @throws FmoeError `ERR_ARGUMENT` for settings out of range. */
  constructor(options: TopKGateOptions) {
    super(options);
    const owner = this.constructor.name;
    this.scoreFunction = checkOneOf(
      owner,
      'scoreFunction',
      options.scoreFunction ?? 'softmax',
      scoreFunctions,
    );
    this.normalize = options.normalize ?? true;
    checkBoolean(owner, 'normalize', this.normalize);
    this.scalingFactor = checkNumber(owner, 'scalingFactor', options.scalingFactor ?? 1, 0);
  }

  protected override choose(logits: Tensor): Choice {
    const { scoreFunction, normalize } = this;
    const { topIdx, topScore } = topkGate(logits, this.topK, {
      scoreFunction,
      normalize,
      selectionBias: this.selectionBias(),
    });
    return { topIdx, topScore: this.scaled(topScore) };
  }

  /** `[N]`, added to the scores (with `'softmaxChosen'` to the logits) for the choice alone. */
  protected selectionBias(): Tensor | null {
    return null;
  }

  protected scaled(scores: Tensor): Tensor {
    return this.scalingFactor === 1 ? scores : scores.mul(this.scalingFactor);
  }

  /** The scores that all N experts would have, `[T, N]`, before normalising and scaling. */
  protected scoresOfAll(logits: Tensor): Tensor {
    return this.scoreFunction === 'sigmoid' ? logits.sigmoid() : logits.softmax(-1);
  }

  protected override probability(logits: Tensor): Tensor {
    // Sigmoids divided by their sum, without 0/0 where all of them vanish.
    return (this.scoreFunction === 'sigmoid' ? logits.logSigmoid() : logits).softmax(-1);
  }
}
