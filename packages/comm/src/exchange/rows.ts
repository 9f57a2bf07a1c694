/** Shape letters: B rows, W members of the group. */
import type { Tensor } from '@fmoe/torch';
import { checkRows } from '../groups/check.js';
import type { ProcessGroup } from '../groups/process-group.js';
import { commOperator } from '../load.js';
import { evenRows } from './placement.js';

/**
 * This rank's part of rows that every member of the group has, split as evenly as it goes (`evenRows`), the tail included.
 *
 * Its gradient is the members' gradients one after the other: what they compute from their parts belongs to one loss.
 *
 * @param x `[B, …]`, the same on all members
 * @returns `[evenRows(B, W)[rank], …]`
 */
export function sliceRows(x: Tensor, group: ProcessGroup): Tensor {
  return commOperator('slice_rows')(x, evenRows(x.shape[0] ?? 0, group.size), group.id) as Tensor;
}

/**
 * What the gradients of gathered rows are on the members: parts of a sum (each member used the rows for work of its own), of a
 * mean, or all the same (each did the same work, as after {@link sliceRows} in a tensor-parallel group), so that a member's own
 * slice is all it needs.
 */
export type GatherGradient = 'sum' | 'mean' | 'slice';

/**
 * The members' rows one after the other: the inverse of {@link sliceRows}. The backward is a reduce-scatter for `sum` and `mean`,
 * and no communication for `slice`.
 *
 * @param x `[rowsOfRank[rank], …]`
 * @param rowsOfRank `[W]` the rows that each member brings
 * @returns `[sum(rowsOfRank), …]`
 */
export function allGatherRows(
  x: Tensor,
  rowsOfRank: readonly number[],
  group: ProcessGroup,
  gradient: GatherGradient = 'sum',
): Tensor {
  checkRows('allGatherRows', 'rowsOfRank', rowsOfRank, group.size, x, rowsOfRank[group.rank]);
  return commOperator('all_gather')(x, rowsOfRank, gradient, group.id) as Tensor;
}

/**
 * Adds up the members' rows and gives each its own. The backward is an all-gather.
 *
 * @param x `[sum(rowsOfRank), …]`
 * @param rowsOfRank `[W]` the rows that each member gets
 * @returns `[rowsOfRank[rank], …]`
 */
export function reduceScatterRows(x: Tensor, rowsOfRank: readonly number[], group: ProcessGroup): Tensor {
  return group.reduceScatter(x, rowsOfRank, 'sum');
}
