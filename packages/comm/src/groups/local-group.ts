import { FmoeError, type Tensor } from '@fmoe/torch';
import type { ProcessGroup, ReduceOp } from './process-group.js';

const reduceOps: readonly ReduceOp[] = ['sum', 'mean', 'max', 'min'];

/**
 * The group of one process. Code written for many ranks runs on it unchanged, with the same checks of its arguments.
 */
export class LocalGroup implements ProcessGroup {
  readonly rank = 0;
  readonly size = 1;
  readonly members: readonly number[] = [0];

  allReduce_(tensor: Tensor, op: ReduceOp = 'sum'): Tensor {
    checkReduceOp('allReduce_', op);
    return tensor;
  }

  reduceScatter(tensor: Tensor, rowsOfRank: readonly number[], op: ReduceOp = 'sum'): Tensor {
    checkReduceOp('reduceScatter', op);
    checkRows('reduceScatter', 'rowsOfRank', rowsOfRank, tensor);
    return tensor.clone();
  }

  allGather(tensor: Tensor, rowsOfRank: readonly number[]): Tensor {
    checkRows('allGather', 'rowsOfRank', rowsOfRank, tensor);
    return tensor.clone();
  }

  broadcast_(tensor: Tensor, root: number): Tensor {
    if (root !== 0)
      throw new FmoeError('ERR_INDEX', `broadcast_: there is no rank ${root} in a group of 1`, {
        op: 'broadcast_',
      });
    return tensor;
  }

  allToAll(tensor: Tensor, sendRows: readonly number[], receiveRows: readonly number[]): Tensor {
    checkRows('allToAll', 'sendRows', sendRows, tensor);
    checkRows('allToAll', 'receiveRows', receiveRows, tensor);
    return tensor.clone();
  }

  barrier(): void {}
}

function checkReduceOp(operation: string, op: ReduceOp): void {
  if (!reduceOps.includes(op)) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${operation}: unknown reduction '${op}', expected one of ${reduceOps.join(', ')}`,
      {
        op: operation,
        argument: 'op',
      },
    );
  }
}

/** One member: one count, and it is that of the tensor. */
function checkRows(operation: string, argument: string, rows: readonly number[], tensor: Tensor): void {
  if (rows.length !== 1) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${operation}: ${argument} needs a count for each of 1 ranks, got ${rows.length}`,
      {
        op: operation,
        argument,
      },
    );
  }
  if (rows[0] !== tensor.shape[0]) {
    throw new FmoeError(
      'ERR_SHAPE',
      `${operation}: ${argument} says ${rows[0]} rows, the tensor is [${tensor.shape.join(', ')}]`,
      { op: operation, argument, shapes: [tensor.shape] },
    );
  }
}
