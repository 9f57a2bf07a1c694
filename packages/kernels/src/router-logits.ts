/** Shape letters: T tokens, D model width, N experts. */
import type { Tensor } from '@fmoe/torch';
import { kernel } from './load.js';

const run = kernel('router_logits');

/**
 * The logits of a linear router, `x · weightᵀ + bias`, accumulated and given in float32 (float64 for float64 tokens): small
 * differences decide which expert a token goes to.
 *
 * For the backward it keeps its arguments and no copy of them. In bfloat16 on a GPU the tokens are not even converted for the
 * time of the product, and the gradient of the logits goes into its products with 16 bits of significand. Autocast does not
 * change it.
 *
 * @param x `[T, D]` float32, float64, bfloat16 or float16
 * @param weight `[N, D]`, of any of those dtypes
 * @param bias `[N]`, of any of those dtypes
 * @returns `[T, N]`, differentiable
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE`, `ERR_DEVICE` for arguments that do not fit together.
 */
export function routerLogits(x: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  return run(x, weight, bias) as Tensor;
}
