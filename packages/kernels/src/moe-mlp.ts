/** Shape letters: T tokens, D model width, H hidden width, E experts, K choices a token, R = T·K rows. */
import type { Tensor } from '@fmoe/torch';
import { kernel } from './load.js';
import type { RoutePlan } from './route-plan.js';

const run = kernel('moe_mlp');

/**
 * What is applied between the two layers of an expert. With p = W1 x + b1: `'gelu'` (the exact one), `'geluTanh'`, `'relu'`
 * and `'silu'` act on all of p; the gated `'swiglu'`, `'geglu'` and `'reglu'` apply SiLU, exact GELU or ReLU to the first
 * half of p and multiply by the second half.
 */
export type MoeActivation = 'gelu' | 'geluTanh' | 'relu' | 'silu' | 'swiglu' | 'geglu' | 'reglu';

/** The parameters of all experts. All have one dtype. */
export interface MoeMlpWeights {
  /** `[E, H, D]`; gated `[E, 2H, D]`, the rows of the gate first and those of the linear part after them. */
  readonly w1: Tensor;
  /** `[E, H]`, gated `[E, 2H]`. */
  readonly b1?: Tensor | null;
  /** `[E, D, H]` */
  readonly w2: Tensor;
  /** `[E, D]` */
  readonly b2?: Tensor | null;
}

/**
 * A whole Mixture-of-Experts MLP as one operator, from tokens to tokens:
 * `y[t] = Σ_j score[t, j] · (W2ᵉ act(W1ᵉ x[t] + b1ᵉ) + b2ᵉ)` with e the j-th expert of token t. Dropped slots add nothing.
 *
 * For the backward it keeps the pre-activations `[R, H]` (gated `[R, 2H]`) and its arguments, nothing else; where no
 * gradient is wanted it keeps nothing. Sums are accumulated in float32 (float64 for float64). The same inputs give the same
 * bits on every run with the same number of threads. Under autocast it runs in autocast's dtype, the scores keep theirs. A
 * second derivative ends as `ERR_NOT_IMPLEMENTED`: compose `dispatch`, `groupedLinear` and `combine` for that.
 *
 * @param x `[T, D]` float32, float64, bfloat16 or float16, the dtype of the weights
 * @param weights of all E experts
 * @param score `[T, K]` floating-point, of any of those dtypes
 * @param plan of the `[T, K]` expert ids, from `routePlan`
 * @param activation default `'gelu'`
 * @returns `[T, D]` in the dtype of `x`
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE`, `ERR_DEVICE` for arguments that do not fit together; `ERR_INDEX` for a plan
 * that contradicts itself; `ERR_ARGUMENT` for an unknown activation.
 */
export function moeMlp(
  x: Tensor,
  weights: MoeMlpWeights,
  score: Tensor,
  plan: Pick<RoutePlan, 'rowSlot' | 'slotRow' | 'offsets'>,
  activation: MoeActivation = 'gelu',
): Tensor {
  const { w1, b1 = null, w2, b2 = null } = weights;
  const name = activation === 'geluTanh' ? 'gelu_tanh' : activation;
  return run(x, w1, b1, w2, b2, score, plan.rowSlot, plan.slotRow, plan.offsets, name) as Tensor;
}
