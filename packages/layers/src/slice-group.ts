/** Shape letters: T tokens, W ranks of the group. */
import { allGatherRows, evenRows, type ProcessGroup, sliceRows } from '@fmoe/comm';
import { leavesOf, mapNest, type Nest } from './nest.js';

/**
 * Shares the work on tokens that all ranks of a group hold: each runs the layer on its own part of the rows, and everyone
 * gets all outputs. Any number of rows: the first T mod W ranks take one more.
 *
 * The gradients of the input are gathered likewise. Those of the output are averaged over the ranks, which gives back what
 * every rank has where they agree, and is the gradient of the mean loss where they do not. The gradients of the layer's
 * parameters are those of the rank's own rows: they add up to the whole over the group.
 *
 * @param x `[T, D]`, or a nest of such tensors, the same on every rank
 * @param body the layer, for some of the rows
 */
export function inSlices(group: ProcessGroup, x: Nest, body: (slice: Nest) => Nest): Nest {
  const rowsOfRank = evenRows(leavesOf(x)[0]?.shape[0] ?? 0, group.size);
  const slice = mapNest(x, (leaf) => sliceRows(leaf, group));
  return mapNest(body(slice), (leaf) => allGatherRows(leaf, rowsOfRank, group, 'mean'));
}
