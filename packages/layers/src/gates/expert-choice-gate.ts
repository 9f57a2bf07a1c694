/** Shape letters: T tokens, N all experts, K top-k, C tokens an expert. */
import { arange, type Tensor, where } from '@fmoe/torch';
import { withDefaults } from './check-options.js';
import { tokensOfRanks } from './global-batch.js';
import type { ExpertRoute } from './route.js';
import { LinearGate, type RouterOptions } from './router-gate.js';
import { toRouterDtype } from './router-logits.js';

/** Settings of {@link ExpertChoiceGate}. `topK` is the number of experts that a token has on average. */
export type ExpertChoiceGateOptions = Omit<RouterOptions, 'balance' | 'balanceWeight'>;

/**
 * Expert choice (Zhou et al., 2022, arXiv 2202.09368): each expert takes the C = ⌈factor · T·K/N⌉ tokens that give it the
 * highest probability, which is also their score. The load is exactly even, without a loss; a token may have many experts or
 * none. What a token gets depends on the others of its batch, later ones included.
 *
 * Default: `capacity` 1.
 */
export class ExpertChoiceGate extends LinearGate {
  static override readonly optionNames: readonly string[] = super.optionNames.filter(
    (name) => !name.startsWith('balance'),
  );

  /** @throws FmoeError `ERR_ARGUMENT` for settings out of range. */
  constructor(options: ExpertChoiceGateOptions) {
    super(withDefaults({ capacity: 1 }, options), null);
  }

  protected override route(logits: Tensor): ExpertRoute {
    const { numExpert, batchGroup: group } = this;
    const tokens = logits.shape[0]!;
    const { device } = logits;
    const probability = this.probability(logits);
    if (this.training) this.observeEntropy(toRouterDtype(probability, null));
    let candidates = probability.detach();
    let first = 0;
    let total = tokens;
    if (group !== null) {
      const counts = tokensOfRanks(tokens, device, group);
      candidates = group.allGather(candidates, counts);
      first = counts.slice(0, group.rank).reduce((a, b) => a + b, 0);
      total = candidates.shape[0]!;
    }
    const factor = this.capacity[this.training ? 0 : 1];
    const share = factor === null ? total : Math.ceil((factor * total * this.topK) / numExpert);
    const count = Math.min(share, total);
    const best = candidates.t().argsort({ stable: true, dim: 1, descending: true }).narrow(1, 0, count);
    const token = best.sub(first);
    const isOwn = token.ge(0).logicalAnd(token.lt(tokens));
    return {
      rowToken: where(isOwn, token, -1).reshape([-1]),
      offsets: arange(numExpert + 1, { dtype: 'int64', device }).mul(count),
      rowScore: this.scoreOf(probability, token.clamp(0, Math.max(tokens - 1, 0))),
    };
  }

  private scoreOf(probability: Tensor, token: Tensor): Tensor {
    // A sum of nothing, so that the router has a gradient without tokens as well.
    if (probability.shape[0] === 0) return probability.sum().expand([token.numel()]);
    return probability.t().gather(1, token).reshape([-1]);
  }
}
