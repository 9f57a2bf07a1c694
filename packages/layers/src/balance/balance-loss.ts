/** Shape letters: T tokens, N all experts, K top-k. */
import { checkOptions, type nn, stack, type Tensor, where, zeros } from '@fmoe/torch';
import { checkOneOf } from '../gates/check-options.js';

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

/**
 * The sum of the scores that each expert got, `[N]` (the same, equation 6).
 *
 * @param topIdx `[T, K]` int64, -1 = dropped
 * @param topScore `[T, K]`
 */
export function importanceOf(topIdx: Tensor, topScore: Tensor, numExpert: number): Tensor {
  const { dtype, device } = topScore;
  const kept = where(topIdx.ge(0), topScore, 0);
  const shape = [topIdx.shape[0]!, numExpert];
  // One row a token: no two numbers of a row meet in a place but zeros, so the order of additions does not matter.
  return zeros(shape, { dtype, device }).scatterAdd(1, topIdx.clampMin(0), kept).sum([0]);
}

/** How {@link collectBalanceLoss} gathers. */
export interface CollectOptions {
  /** Mean over the layers, so that the weight of the loss does not depend on the depth, or their sum. Default `'mean'`. */
  reduction?: 'mean' | 'sum';
  /** Take the losses off the gates. Default true. */
  clear?: boolean;
}

/**
 * Gathers what the gates of a model left as losses in the last forward pass: add it, times a weight, to the loss. Several
 * losses of a gate (balance, z) are added up first, each with the weight that the gate gives it.
 *
 * @returns a scalar in the autograd graph, or null when no gate left a loss (a dense model, or evaluation mode)
 * @throws FmoeError `ERR_ARGUMENT` for unknown options or reductions
 */
export function collectBalanceLoss(model: nn.Module, options: CollectOptions = {}): Tensor | null {
  const owner = 'collectBalanceLoss';
  checkOptions(owner, options, ['reduction', 'clear']);
  const reduction = checkOneOf(owner, 'reduction', options.reduction ?? 'mean', ['mean', 'sum']);
  const losses: Tensor[] = [];
  for (const module of model.modules()) {
    if (!holdsLoss(module)) continue;
    const loss = module.getLoss(options.clear ?? true);
    if (loss !== null) losses.push(loss);
  }
  if (losses.length === 0) return null;
  const stacked = stack(losses);
  return reduction === 'sum' ? stacked.sum() : stacked.mean();
}

/** A gate is known by what it can do, so that one of another copy of this package counts as well. */
function holdsLoss(module: object): module is { getLoss(clear?: boolean): Tensor | null } {
  return 'getLoss' in module && typeof module.getLoss === 'function';
}
