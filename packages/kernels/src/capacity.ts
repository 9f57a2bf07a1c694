/** Shape letters: T tokens, K choices a token, N experts of all ranks, E experts a rank, W ranks. */
import type { Tensor } from '@fmoe/torch';
import { kernel } from './load.js';

const runCount = kernel('expert_count');
const runAssign = kernel('assign_pos');
const runLimit = kernel('limit_by_capacity');
const runPrune = kernel('prune_gate_by_capacity');

/**
 * How many slots chose each expert; -1 counts for none.
 *
 * @param topIdx int64 or int32 expert ids, any shape
 * @param numExperts N
 * @returns `[N]` int64
 * @throws FmoeError `ERR_INDEX` for an id outside [-1, N); `ERR_ARGUMENT` unless N is positive; `ERR_DTYPE`
 */
export function expertCount(topIdx: Tensor, numExperts: number): Tensor {
  return runCount(topIdx, numExperts) as Tensor;
}

/**
 * The slots in the order of their experts, and inside an expert in their own order; one -1 at the end for each dropped slot.
 *
 * @param cumCount `[N]` int64 or int32, the running sum of `expertCount(topIdx, N)`
 * @param topIdx int64 or int32 expert ids, any shape
 * @returns `[number of slots]` int64
 * @throws FmoeError `ERR_INDEX` when ids are outside [-1, N) or the counts are not theirs; `ERR_SHAPE`, `ERR_DTYPE`,
 * `ERR_DEVICE`
 */
export function assignPos(cumCount: Tensor, topIdx: Tensor): Tensor {
  return runAssign(cumCount, topIdx) as Tensor;
}

/**
 * Grants each rank's wish for rows of an expert until the expert's capacity is used up: rank 0 first.
 *
 * @param counts `[W·E]` int64 or int32, rank-major: rows that rank w has for expert e
 * @param capacity `[E]` int64 or int32, rows that an expert takes from all ranks together
 * @returns `[W·E]` int64, what is granted
 * @throws FmoeError `ERR_INDEX` for negative numbers; `ERR_SHAPE`, `ERR_DTYPE`, `ERR_DEVICE`
 */
export function limitByCapacity(counts: Tensor, capacity: Tensor): Tensor {
  return runLimit(counts, capacity) as Tensor;
}

/**
 * Drops (-1) the slots past each expert's budget. All first choices come before all second ones, and among equal choices
 * tokens in their order, so the result is the same on every run.
 *
 * @param topIdx `[T, K]` or `[T]` int64 or int32 expert ids, -1 = dropped already
 * @param budget `[N]` int64 or int32, slots that each expert keeps; it is not changed
 * @returns int64, in the shape of `topIdx`
 * @throws FmoeError `ERR_INDEX` for an id outside [-1, N), and on the CPU for a negative budget; `ERR_SHAPE`, `ERR_DTYPE`,
 * `ERR_DEVICE`
 */
export function pruneGateByCapacity(topIdx: Tensor, budget: Tensor): Tensor {
  return runPrune(topIdx, budget) as Tensor;
}
