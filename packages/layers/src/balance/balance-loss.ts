/** Shape letters: T tokens, N all experts, K top-k. */
import type { nn, Tensor } from '@fmoe/torch';
import { stack } from '@fmoe/torch';

/**
 * The balance loss N · Σ_e f_e · P_e (Lepikhin et al., GShard, arXiv 2006.16668; Fedus et al., arXiv 2101.03961): f_e is the
 * share of the slots that went to expert e, which has no gradient, and P_e the mean over the tokens of the router's
 * probability for e, softmax over all N. It is 1 for an even router and N when all tokens agree on one expert.
 *
 * @param logits the router's logits `[T, N]`, float32 or float64
 * @param counts slots per expert `[N]`, int64, such as the `counts` of a route plan
 * @param slots number of slots that were routed, T·K
 * @returns a scalar of the logits' dtype
 */
export function balanceLoss(logits: Tensor, counts: Tensor, slots: number): Tensor {
  const numExpert = counts.numel();
  // No tokens: the mean over them would be 0/0.
  if (slots === 0) return logits.sum();
  const meanProbability = logits.softmax(-1).mean([0]);
  return meanProbability.dot(counts.to(logits.dtype).mul(numExpert / slots));
}

/**
 * Squared coefficient of variation, var(v) / mean(v)², of Shazeer et al. (arXiv 1701.06538, equation 7); the variance is the
 * unbiased one. 0 for a single element.
 *
 * @param values `[N]`, floating-point
 */
export function squaredVariation(values: Tensor): Tensor {
  if (values.numel() === 1) return values.mul(0).sum();
  return values.var({ unbiased: true }).div(values.mean().square().add(1e-10));
}

/** How {@link collectBalanceLoss} gathers. */
export interface CollectOptions {
  /** Mean over the layers, so that the weight of the loss does not depend on the depth, or their sum. Default `'mean'`. */
  reduction?: 'mean' | 'sum';
  /** Take the losses off the gates. Default true. */
  clear?: boolean;
}

/**
 * Gathers what the gates of a model left as balance losses in the last forward pass: add it, times a weight, to the loss.
 *
 * @returns a scalar in the autograd graph, or null when no gate left a loss (a dense model, or evaluation mode)
 */
export function collectBalanceLoss(model: nn.Module, options: CollectOptions = {}): Tensor | null {
  const losses: Tensor[] = [];
  for (const module of model.modules()) {
    if (!holdsLoss(module)) continue;
    const loss = module.getLoss(options.clear ?? true);
    if (loss !== null) losses.push(loss);
  }
  if (losses.length === 0) return null;
  const stacked = stack(losses);
  return options.reduction === 'sum' ? stacked.sum() : stacked.mean();
}

/** A gate is known by what it can do, so that one of another copy of this package counts as well. */
function holdsLoss(module: object): module is { getLoss(clear?: boolean): Tensor | null } {
  return 'getLoss' in module && typeof module.getLoss === 'function';
}
