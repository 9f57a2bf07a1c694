/** Shape letters: T tokens, D model width, E experts, N experts and null experts, K top-k, R routed rows. */
import type { RoutePlan } from '@fmoe/kernels';
import { arange, type Tensor } from '@fmoe/torch';

/** A route without its null experts. */
export interface SplitRoute {
  /** Of the experts with the ids below E: rows of the others are dropped. */
  plan: RoutePlan;
  /** The sum of each token's scores for identity experts `[T, 1]`, by which its own row is multiplied; null without any. */
  identityScore: Tensor | null;
}

/**
 * Takes the experts that cost nothing out of a route. Ids are in the order: E experts, then zero experts, then identity
 * experts; so their rows are the last ones, and dropping them leaves the others where they are. Reads nothing on the host.
 *
 * @param plan over all N
 * @param topScore `[T, K]`
 */
export function splitNullExperts(
  plan: RoutePlan,
  topScore: Tensor,
  numExpert: number,
  numZeroExpert: number,
  numIdentityExpert: number,
): SplitRoute {
  if (numZeroExpert + numIdentityExpert === 0) return { plan, identityScore: null };
  const { counts, offsets, rowSlot, slotRow } = plan;
  const end = offsets.select(0, numExpert);
  const rows = arange(rowSlot.shape[0] as number, { dtype: 'int64', device: rowSlot.device });
  const real: RoutePlan = {
    counts: counts.narrow(0, 0, numExpert),
    offsets: offsets.narrow(0, 0, numExpert + 1).contiguous(),
    rowSlot: rowSlot.maskedFill(rows.ge(end), -1),
    slotRow: slotRow.maskedFill(slotRow.ge(end), -1),
  };
  if (numIdentityExpert === 0) return { plan: real, identityScore: null };
  const isIdentity = slotRow.ge(offsets.select(0, numExpert + numZeroExpert));
  return { plan: real, identityScore: topScore.mul(isIdentity).sum([1], true) };
}
