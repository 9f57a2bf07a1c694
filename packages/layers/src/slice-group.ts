/** Shape letters: T tokens, W ranks of the group. */
import type { ProcessGroup } from '@fmoe/comm';
import { AutogradFunction, type FunctionContext, type Tensor } from '@fmoe/torch';
import { leavesOf, mapNest, type Nest } from './nest.js';

/** What a layer needs of the ranks that share its work. */
export type SliceGroup = Pick<ProcessGroup, 'rank' | 'size' | 'allGather' | 'reduceScatter'>;

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
export function inSlices(group: SliceGroup, x: Nest, body: (slice: Nest) => Nest): Nest {
  const tokens = leavesOf(x)[0]?.shape[0] ?? 0;
  const rowsOfRank = Array.from({ length: group.size }, (_, rank) => rowsOf(tokens, rank, group.size));
  const slice = mapNest(x, (leaf) => Slice.apply(leaf, group, rowsOfRank));
  return mapNest(body(slice), (leaf) => Gather.apply(leaf, group, rowsOfRank));
}

function rowsOf(tokens: number, rank: number, size: number): number {
  return Math.floor(tokens / size) + (rank < tokens % size ? 1 : 0);
}

/** The rank's own rows; backward gathers everyone's gradients. */
class Slice extends AutogradFunction {
  static forward(context: FunctionContext, x: Tensor, group: SliceGroup, rowsOfRank: number[]): Tensor {
    context.state = { group, rowsOfRank };
    const start = rowsOfRank.slice(0, group.rank).reduce((sum, rows) => sum + rows, 0);
    return x.narrow(0, start, rowsOfRank[group.rank] as number).clone();
  }
  static backward(context: FunctionContext, gradient: Tensor): (Tensor | null)[] {
    const { group, rowsOfRank } = context.state as { group: SliceGroup; rowsOfRank: number[] };
    return [group.allGather(gradient.contiguous(), rowsOfRank), null, null];
  }
}

/** Everyone's rows; backward takes the mean over the ranks of the gradient of the rank's own rows. */
class Gather extends AutogradFunction {
  static forward(context: FunctionContext, x: Tensor, group: SliceGroup, rowsOfRank: number[]): Tensor {
    context.state = { group, rowsOfRank };
    return group.allGather(x.contiguous(), rowsOfRank);
  }
  static backward(context: FunctionContext, gradient: Tensor): (Tensor | null)[] {
    const { group, rowsOfRank } = context.state as { group: SliceGroup; rowsOfRank: number[] };
    return [group.reduceScatter(gradient.contiguous(), rowsOfRank, 'mean'), null, null];
  }
}
