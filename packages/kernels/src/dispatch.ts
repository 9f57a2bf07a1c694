/** Shape letters: T tokens, D features, K choices a token, R rows. */
import type { Tensor } from '@fmoe/torch';
import { kernel } from './load.js';

const run = kernel('dispatch');

/**
 * Copies each token to the rows of its experts: `rows[r] = x[⌊rowSlot[r] / K⌋]`, zeros where `rowSlot[r]` is -1.
 *
 * Its gradient adds up the rows of each token in the order of the choices, accumulated in float32 (float64 for float64).
 *
 * @param x `[T, D]` float32, float64, bfloat16 or float16
 * @param rowSlot `[R]` int64 or int32, of a `RoutePlan`
 * @param slotRow `[T, K]` its inverse
 * @returns `[R, D]` in the dtype of `x`
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE`, `ERR_DEVICE` for arguments that do not fit together; `ERR_INDEX` when the two
 * index tensors are out of range or not inverse to each other.
 */
export function dispatch(x: Tensor, rowSlot: Tensor, slotRow: Tensor): Tensor {
  return run(x, rowSlot, slotRow) as Tensor;
}
