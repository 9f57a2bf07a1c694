/** Shape letters: T tokens, N all experts, K top-k, G groups. */
import { topkGate } from '@fmoe/kernels';
import { FmoeError, type Tensor, zerosLike } from '@fmoe/torch';
import { checkSize } from '../check.js';
import { BiasBalancedGate, type BiasBalancedGateOptions } from './bias-balanced-gate.js';
import { checkOneOf, withDefaults } from './check-options.js';
import type { Choice } from './router-gate.js';

/** Settings of {@link GroupLimitedGate}. */
export interface GroupLimitedGateOptions extends BiasBalancedGateOptions {
  /** Groups G that the experts are divided into, consecutive ones together, such as those of a node. */
  numGroups: number;
  /** Groups that a token may use, at most G. */
  groupTopK: number;
  /**
   * What a group is worth to a token: its best score (DeepSeek-V2), or the sum of its two best (DeepSeek-V3). Default `'max'`
   * for softmax scores and `'top2Sum'` for sigmoid ones.
   */
  groupScore?: 'max' | 'top2Sum';
}

/**
 * Top-k within the best groups of experts, which limits the nodes that a token is sent to (DeepSeek-V2, arXiv 2405.04434,
 * section 2.2.2; DeepSeek-V3, arXiv 2412.19437). Scores are those of {@link TopKGate}; a bias, if it learns, counts for the
 * choice of groups and experts.
 *
 * Defaults: `biasUpdateRate` 0 and `balance` true; with a rate above 0 `balance` is false.
 */
export class GroupLimitedGate extends BiasBalancedGate {
  static override readonly optionNames: readonly string[] = [
    ...super.optionNames,
    'numGroups',
    'groupTopK',
    'groupScore',
  ];

  readonly numGroups: number;
  readonly groupTopK: number;
  readonly groupScore: 'max' | 'top2Sum';

  /** @throws FmoeError `ERR_ARGUMENT` for groups that do not divide the experts or cannot hold K of them. */
  constructor(options: GroupLimitedGateOptions) {
    super(withDefaults({ biasUpdateRate: 0, balance: !options.biasUpdateRate }, options));
    const owner = this.constructor.name;
    const { numExpert, topK } = this;
    this.numGroups = checkSize(owner, 'numGroups', options.numGroups);
    this.groupTopK = checkSize(owner, 'groupTopK', options.groupTopK);
    const byDefault = this.scoreFunction === 'sigmoid' ? 'top2Sum' : 'max';
    this.groupScore = checkOneOf(owner, 'groupScore', options.groupScore ?? byDefault, ['max', 'top2Sum']);
    const size = numExpert / this.numGroups;
    const problem = !Number.isInteger(size)
      ? `numGroups ${this.numGroups} does not divide the ${numExpert} experts`
      : this.groupTopK > this.numGroups
        ? `groupTopK is ${this.groupTopK}, but there are only ${this.numGroups} groups`
        : topK > this.groupTopK * size
          ? `topK is ${topK}, but ${this.groupTopK} groups of ${size} hold only ${this.groupTopK * size} experts`
          : undefined;
    if (problem)
      throw new FmoeError('ERR_ARGUMENT', `${owner}: ${problem}.`, { op: owner, argument: 'numGroups' });
  }

  protected override choose(logits: Tensor): Choice {
    const { topK, numGroups, groupTopK } = this;
    const [tokens, numExpert] = logits.shape as [number, number];
    const size = numExpert / numGroups;
    const worth = this.worth(logits.detach()).add(this.selectionBias());
    const ofGroups = worth.view([tokens, numGroups, size]);
    const [best] = ofGroups.topk(this.groupScore === 'max' ? 1 : Math.min(2, size), -1);
    const { topIdx: groups } = topkGate(best.sum([-1]), groupTopK);
    const open = zerosLike(best.select(2, 0)).scatter(1, groups, 1).gt(0).unsqueeze(2);
    const { topIdx } = topkGate(
      ofGroups.maskedFill(open.logicalNot(), Number.NEGATIVE_INFINITY).view(logits.shape),
      topK,
    );
    return { topIdx, topScore: this.scaled(this.scoresAt(logits, topIdx)) };
  }

  /** What the choice goes by, before the bias, `[T, N]`. */
  private worth(logits: Tensor): Tensor {
    return this.scoreFunction === 'softmaxChosen' ? logits : this.scoresOfAll(logits);
  }

  private scoresAt(logits: Tensor, topIdx: Tensor): Tensor {
    const { scoreFunction, normalize } = this;
    if (scoreFunction === 'softmaxChosen' || (scoreFunction === 'softmax' && normalize)) {
      return logits.gather(1, topIdx).softmax(-1);
    }
    if (normalize) return logits.gather(1, topIdx).logSigmoid().softmax(-1);
    return this.scoresOfAll(logits).gather(1, topIdx);
  }
}
