/** Shape letters: T tokens, D features, K choices a token, R rows. */
import type { Tensor } from '@fmoe/torch';
import { kernel } from './load.js';

const run = kernel('combine');

/**
 * Adds up the rows of each token, weighted: `y[t] = Σⱼ score[t, j] · rows[slotRow[t, j]]` over the slots that are not -1. A
 * token whose slots are all dropped gets zeros.
 *
 * Sums are accumulated in float32 (float64 for float64), in the order of the choices, and rounded once. The gradient of a
 * dropped slot's score, and of a row that no slot names, is zero.
 *
 * @param rows `[R, D]` float32, float64, bfloat16 or float16
 * @param score `[T, K]` any of these dtypes: scores may stay in float32 beside bfloat16 rows
 * @param slotRow `[T, K]` int64 or int32, of a `RoutePlan`
 * @returns `[T, D]` in the dtype of `rows`
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE`, `ERR_DEVICE` for arguments that do not fit together; `ERR_INDEX` when a slot
 * names a row outside [-1, R), or two slots name the same row.
 */
export function combine(rows: Tensor, score: Tensor, slotRow: Tensor): Tensor {
  return run(rows, score, slotRow) as Tensor;
}
