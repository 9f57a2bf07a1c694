import type { Tensor } from '@fmoe/torch';

/** How a reduction combines the values of the ranks. */
export type ReduceOp = 'sum' | 'mean' | 'max' | 'min';

/**
 * Processes that work together: rank r of W. Every member calls the same operations in the same order.
 *
 * Results are fresh tensors unless the name ends in an underscore. The interface is the same for every transport.
 */
export interface ProcessGroup {
  /** This process's place in the group, 0 … size-1. */
  readonly rank: number;
  /** The number of members, W. */
  readonly size: number;
  /** The members' ranks in the world. */
  readonly members: readonly number[];

  /** Combines the members' tensors of equal shape in place. */
  allReduce_(tensor: Tensor, op?: ReduceOp): Tensor;
  /** Combines tensors `[sum(rows), …]` and gives each member its own rows. */
  reduceScatter(tensor: Tensor, rowsOfRank: readonly number[], op?: ReduceOp): Tensor;
  /** The members' rows one after the other; row counts may differ. */
  allGather(tensor: Tensor, rowsOfRank: readonly number[]): Tensor;
  /** Overwrites the tensor with that of the member `root`. */
  broadcast_(tensor: Tensor, root: number): Tensor;
  /**
   * Sends `sendRows[r]` rows to each member r and gives back the rows that each sent here, in rank order.
   *
   * @param tensor `[sum(sendRows), …]`
   */
  allToAll(tensor: Tensor, sendRows: readonly number[], receiveRows: readonly number[]): Tensor;
  /** Returns when every member has called it. */
  barrier(): void;
}
