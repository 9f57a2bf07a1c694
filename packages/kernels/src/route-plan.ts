/** Shape letters: T tokens, N experts, K choices a token (top-k). */
import type { Tensor } from '@fmoe/torch';
import { kernel } from './load.js';

/**
 * Where each (token, choice) pair, a *slot*, goes. Slot (t, j) has the number t·K + j; a *row* is one token's copy for one
 * expert. Rows are ordered by expert, and inside an expert by slot, so the order is the same on every run. There are as
 * many rows as slots; those past `offsets[N]` are padding, one for each dropped slot.
 *
 * All are int64 tensors on the device of the expert ids.
 */
export interface RoutePlan {
  /** `[N]` rows of each expert. */
  readonly counts: Tensor;
  /** `[N+1]` expert e has the rows `offsets[e]` to `offsets[e+1] - 1`. */
  readonly offsets: Tensor;
  /** `[T·K]` the slot of each row, -1 for padding. */
  readonly rowSlot: Tensor;
  /** `[T, K]` the row of each slot, -1 where dropped: the inverse of `rowSlot`. */
  readonly slotRow: Tensor;
}

const run = kernel('route_plan');

/**
 * Sorts the slots by expert: a stable counting sort.
 *
 * @param topIdx `[T, K]` int64 or int32 expert ids in [0, N); -1 drops the slot
 * @param numExperts N
 * @throws FmoeError `ERR_INDEX` for an id outside [-1, N), with its token and choice; `ERR_SHAPE`, `ERR_DTYPE` for another
 * kind of tensor; `ERR_ARGUMENT` unless N is positive.
 *
 * @example
 * ```ts
 * const { offsets, rowSlot, slotRow } = routePlan(torch.tensor([[0, 2], [2, -1]], { dtype: 'int64' }), 3);
 * offsets.toArray(); // [0n, 1n, 1n, 3n]
 * rowSlot.toArray(); // [0n, 1n, 2n, -1n]
 * ```
 */
export function routePlan(topIdx: Tensor, numExperts: number): RoutePlan {
  const [counts, offsets, rowSlot, slotRow] = run(topIdx, numExperts) as [Tensor, Tensor, Tensor, Tensor];
  return { counts, offsets, rowSlot, slotRow };
}
