/** Shape letters: T tokens, N all experts. */
import { topkGate } from '@fmoe/kernels';
import type { Tensor } from '@fmoe/torch';
import { checkFixedTopK, withDefaults } from './check-options.js';
import { type Choice, LinearGate, type RouterOptions } from './router-gate.js';

/**
 * Top-1 gating of the Switch Transformer (Fedus et al., 2021, arXiv 2101.03961): the score is the chosen expert's probability
 * among all N, so that the router learns from the task, and an expert takes ⌈factor · T/N⌉ tokens of all ranks of the group
 * together. `topK` is 1.
 *
 * Defaults: `capacity` [1.2, 2.4], `jitter` 0.01, `balance` `'switch'`.
 */
export class SwitchGate extends LinearGate {
  static override readonly optionNames: readonly string[] = super.optionNames;

  /** @throws FmoeError `ERR_ARGUMENT` for a `topK` other than 1, and settings out of range. */
  constructor(options: RouterOptions) {
    super(withDefaults({ topK: 1, capacity: [1.2, 2.4], jitter: 0.01 }, options));
    checkFixedTopK(this.constructor.name, this.topK, 1);
  }

  protected override choose(logits: Tensor): Choice {
    return topkGate(logits, 1, { scoreFunction: 'softmax' });
  }

  protected override get sharesCapacity(): boolean {
    return true;
  }
}
