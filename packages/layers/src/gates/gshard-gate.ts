/** Shape letters: T tokens, N all experts. */
import { topkGate } from '@fmoe/kernels';
import { cat, checkBoolean, type Tensor, where } from '@fmoe/torch';
import { checkFixedTopK, withDefaults } from './check-options.js';
import { type Choice, LinearGate, type RouterOptions } from './router-gate.js';

/** Settings of {@link GShardGate} and {@link DCGate}. `topK` must be 2. */
export interface GShardGateOptions extends RouterOptions {
  /** In training mode drop a second choice with the probability 1 - 2·score. Default true. */
  randomRouting?: boolean;
}

/**
 * Top-2 gating of GShard (Lepikhin et al., 2020, arXiv 2006.16668, algorithm 1). The score is the softmax over the two; a
 * second choice of little weight is dropped at random, and of the rest each expert takes ⌊2·⌈factor · T⌉ / N⌋ slots of a
 * rank's tokens, at least one.
 *
 * Defaults: `capacity` [1.2, 2.4], `balance` `'gshard'`.
 */
export class GShardGate extends LinearGate {
  static override readonly optionNames: readonly string[] = [...super.optionNames, 'randomRouting'];

  readonly randomRouting: boolean;

  /** @throws FmoeError `ERR_ARGUMENT` for a `topK` other than 2, and settings out of range. */
  constructor(options: GShardGateOptions) {
    super(withDefaults({ capacity: [1.2, 2.4] }, options), 'gshard');
    checkFixedTopK(this.constructor.name, this.topK, 2);
    this.randomRouting = options.randomRouting ?? true;
    checkBoolean(this.constructor.name, 'randomRouting', this.randomRouting);
  }

  protected override choose(logits: Tensor): Choice {
    const { topIdx, topScore } = topkGate(logits, this.topK);
    if (!this.training || !this.randomRouting) return { topIdx, topScore };
    const first = topIdx.narrow(1, 0, 1);
    const second = topIdx.narrow(1, 1, 1);
    const stays = topScore.detach().narrow(1, 1, 1).mul(2).ge(this.drawUniform(topScore, 1));
    return { topIdx: cat([first, where(stays, second, -1)], 1), topScore };
  }

  protected override slotsPerExpert(tokens: Tensor, factor: number): Tensor {
    return tokens.mul(factor).ceil().mul(2).div(this.numExpert).floor().clampMin(1);
  }
}
