/** Shape letters: T tokens, D model width, N all experts, E experts of this rank, K top-k, R rows that leave, L rows that arrive. */
import { type Placement, type ProcessGroup, TokenExchange } from '@fmoe/comm';
import { combine, dispatch, type RoutePlan } from '@fmoe/kernels';
import { empty, isGradEnabled, type Tensor } from '@fmoe/torch';
import { mapNest, type Nest } from '../nest.js';

/**
 * The way of the tokens to experts on all ranks and back: the rows of each expert to its rank, through the experts there, and back to
 * where the tokens are. All ranks of the group must call it, and run its backward, also without tokens.
 *
 * @param x `[T, D]`, or a nest of such tensors
 * @param topScore `[T, K]`
 * @param plan of the slots over all N experts
 * @param runExperts maps rows `[L, D]`, grouped by the experts of this rank, and their offsets `[E+1]` to `[L, D']`; not called
 *   on a rank without experts, where D' must be D
 * @returns `[T, D']`, or a nest of such tensors
 */
export function acrossRanks(
  x: Nest,
  topScore: Tensor,
  plan: RoutePlan,
  placement: Placement,
  group: ProcessGroup,
  runExperts: (rows: Nest, offsets: Tensor) => Nest,
): Nest {
  const exchange = new TokenExchange(plan.counts, placement, group);
  const rows = mapNest(x, (leaf) => exchange.scatter(dispatch(leaf, plan.rowSlot, plan.slotRow)));
  const hasExperts = placement.expertsOfRank[group.rank]!.length > 0;
  const outputs = hasExperts ? runExperts(rows, exchange.offsets) : mapNest(rows, withoutExperts);
  const total = plan.rowSlot.shape[0]!;
  return mapNest(outputs, (leaf) => combine(exchange.gather(leaf, total), topScore, plan.slotRow));
}

/** No rows, that ask for a gradient: the ranks with experts expect this one in the backward of the way back. */
function withoutExperts(rows: Tensor): Tensor {
  if (rows.requiresGrad || !isGradEnabled()) return rows;
  const { dtype, device, shape } = rows;
  return empty([0, ...shape.slice(1)], { dtype, device, requiresGrad: true });
}
