/** Shape letters: E experts, R rows. */
import type { Tensor } from '@fmoe/torch';
import { kernel } from './load.js';

const run = kernel('grouped_linear');

/**
 * A linear layer for each expert over rows that are grouped by expert: `y[r] = x[r] · weight[e]ᵀ + bias[e]` for the rows r
 * of expert e, and zeros for rows past `offsets[E]`.
 *
 * Sums are accumulated in float32 (float64 for float64) and rounded once. The gradients of an expert without rows are
 * zeros. Under autocast it runs in autocast's dtype.
 *
 * @param x `[R, in]` float32, float64, bfloat16 or float16
 * @param weight `[E, out, in]` in the dtype of `x`
 * @param bias `[E, out]` in the dtype of `x`, or null
 * @param offsets `[E+1]` int64 or int32: expert e has the rows `offsets[e]` to `offsets[e+1] - 1`
 * @returns `[R, out]` in the dtype of `x`
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE`, `ERR_DEVICE` for arguments that do not fit together; `ERR_INDEX` when the
 * offsets do not begin with 0, decrease, or end past R.
 */
export function groupedLinear(x: Tensor, weight: Tensor, bias: Tensor | null, offsets: Tensor): Tensor {
  return run(x, weight, bias, offsets) as Tensor;
}
