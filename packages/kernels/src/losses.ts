/** Shape letters: T tokens, N experts, K choices a token. All losses are scalars, in float32 for half-precision inputs. */
import type { Tensor } from '@fmoe/torch';
import { kernel } from './load.js';

const runBalance = kernel('balance_loss');
const runZ = kernel('z_loss');
const runImportance = kernel('importance_loss');
const runLoad = kernel('load_loss');

/**
 * N · Σ_e f_e · P_e: f_e is expert e's share of the slots that were counted, P_e the mean probability that the router gives
 * it (Lepikhin et al., GShard, arXiv 2006.16668; Fedus et al., Switch, arXiv 2101.03961). 1 for an even router, N when all
 * tokens agree on one expert, 0 when nothing was routed. Only `probability` gets a gradient.
 *
 * @param probability `[T, N]`, floating-point
 * @param counts `[N]` slots of each expert, such as the `counts` of a route plan; sums over ranks count all of them
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE`
 */
export function balanceLoss(probability: Tensor, counts: Tensor): Tensor {
  return runBalance(probability, counts) as Tensor;
}

/**
 * Mean over the tokens of (log Σ_e exp(logit_e))², which keeps logits small (Zoph et al., ST-MoE, arXiv 2202.08906).
 *
 * @param logits `[T, N]`, floating-point
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE`
 */
export function zLoss(logits: Tensor): Tensor {
  return runZ(logits) as Tensor;
}

/**
 * The squared coefficient of variation, var / mean², of the experts' summed scores (Shazeer et al., arXiv 1701.06538,
 * equation 7), with the unbiased variance; 0 for a single expert.
 *
 * @param topIdx `[T, K]` int64 or int32 expert ids, -1 = dropped
 * @param topScore `[T, K]`, floating-point
 * @param numExperts N
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE`; `ERR_INDEX` for an id outside [-1, N), which on a GPU counts for no expert
 * instead; `ERR_ARGUMENT` unless N is positive
 */
export function importanceLoss(topIdx: Tensor, topScore: Tensor, numExperts: number): Tensor {
  return runImportance(topIdx, topScore, numExperts) as Tensor;
}

/**
 * The squared coefficient of variation of the experts' expected loads: load_e is the sum over the tokens of the probability
 * that e stays among the K best when its noise is drawn anew (Shazeer et al., arXiv 1701.06538, appendix A). Without noise
 * (a deviation of 0) the probability is 0 or 1.
 *
 * @param clean `[T, N]` logits before the noise
 * @param noisy `[T, N]` logits with it
 * @param deviation `[T, N]` standard deviation of the noise
 * @param k K
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE`; `ERR_ARGUMENT` for a K outside [1, N]
 */
export function loadLoss(clean: Tensor, noisy: Tensor, deviation: Tensor, k: number): Tensor {
  return runLoad(clean, noisy, deviation, k) as Tensor;
}
