/** Shape letters: T tokens, N all experts, K choices a token, W ranks. */
import { expertCount, limitByCapacity, pruneGateByCapacity } from '@fmoe/kernels';
import { arange, FmoeError, full, noGrad, type Tensor, where } from '@fmoe/torch';
import type { GateGroup } from './base-gate.js';
import { checkNumber } from './check-options.js';
import { gatherOfRanks, sumOverBatch } from './global-batch.js';

/**
 * How many slots an expert takes, as a factor of its even share: in training and in evaluation, or one for both; null for no
 * limit.
 */
export type Capacity = number | null | readonly [train: number | null, evaluation: number | null];

/**
 * Both factors of a {@link Capacity}.
 *
 * @throws FmoeError `ERR_ARGUMENT` for a factor that is no positive number.
 */
export function checkCapacity(
  owner: string,
  capacity: Capacity,
): readonly [train: number | null, evaluation: number | null] {
  const pair = typeof capacity === 'number' || capacity === null ? ([capacity, capacity] as const) : capacity;
  if (!Array.isArray(pair) || pair.length !== 2) {
    const message = `${owner}: capacity must be a number, null, or [training, evaluation] of these, got ${String(pair)}.`;
    throw new FmoeError('ERR_ARGUMENT', message, { op: owner, argument: 'capacity' });
  }
  for (const factor of pair) if (factor !== null) checkNumber(owner, 'capacity', factor, 0);
  return pair;
}

/**
 * Drops (-1) the slots past each expert's capacity. First choices come before second ones, and among equal choices tokens in
 * their order, those of lower ranks first.
 *
 * @param topIdx `[T, K]` int64
 * @param slotsFor the slots that an expert takes of a batch, for its number of tokens: both float64 without dimensions, on the
 * device, so that nothing is read back
 * @param group the ranks that share the capacity, or null when each rank has one of its own
 * @returns `[T, K]` int64
 */
export function limitSlots(
  topIdx: Tensor,
  numExpert: number,
  slotsFor: (tokens: Tensor) => Tensor,
  group: GateGroup | null,
): Tensor {
  const [tokens, choices] = topIdx.shape as [number, number];
  const { device } = topIdx;
  return noGrad(() => {
    const total = sumOverBatch(full([], tokens, { dtype: 'float64', device }), group);
    // No expert takes more than all slots; a larger number might not fit 64 bits.
    const slots = slotsFor(total).minimum(total.mul(choices));
    const capacity = slots.to('int64').expand([numExpert]).contiguous();
    if (group === null) return pruneGateByCapacity(topIdx, capacity);
    // Each choice gets experts of its own, so that one count and one pruning serve all choices.
    const first = arange(choices, { dtype: 'int64', device }).mul(numExpert);
    const apart = where(topIdx.ge(0), topIdx.add(first), topIdx);
    const counts = expertCount(apart, choices * numExpert).view([1, choices, numExpert]);
    const ofRanks = gatherOfRanks(counts, group);
    // [W, K, N] -> [K, W, N]: the first choices of all ranks come before the second ones of any.
    const inOrder = ofRanks.permute([1, 0, 2]).contiguous();
    const granted = limitByCapacity(inOrder.view([-1]), capacity).view(inOrder.shape);
    const kept = pruneGateByCapacity(apart, granted.select(1, group.rank).contiguous().view([-1]));
    return where(kept.ge(0), topIdx, kept);
  });
}
