import { cat, keep, type Tensor } from '@fmoe/torch';
import type { GateGroup } from '../src/index.js';

/** Ends a rank's run at a collective that other ranks have not reached yet. */
class NotYet extends Error {}

/**
 * Runs the same program on W ranks of one process, one after the other. A rank stops at each collective whose result is not
 * known; when all have stopped there, it is computed and they run again from the start. So `run` must be repeatable: make
 * modules and set seeds inside.
 */
export function runOnRanks<Result>(size: number, run: (group: GateGroup) => Result): Result[] {
  const results: Tensor[] = [];
  for (;;) {
    const sent: Tensor[] = [];
    const outputs: Result[] = [];
    let combine: ((tensors: Tensor[]) => Tensor) | undefined;
    for (let rank = 0; rank < size; rank++) {
      const group = new ReplayedGroup(rank, size, results, (tensor, how) => {
        sent.push(keep(tensor.detach().clone()));
        combine = how;
      });
      try {
        outputs.push(run(group));
      } catch (error) {
        if (!(error instanceof NotYet)) throw error;
      }
    }
    if (outputs.length === size) return outputs;
    if (sent.length !== size)
      throw new Error(`${sent.length} of ${size} ranks reached collective ${results.length}`);
    results.push(combine!(sent));
  }
}

class ReplayedGroup implements GateGroup {
  readonly members: readonly number[];
  #next = 0;

  constructor(
    readonly rank: number,
    readonly size: number,
    private readonly known: readonly Tensor[],
    private readonly send: (tensor: Tensor, combine: (tensors: Tensor[]) => Tensor) => void,
  ) {
    this.members = Array.from({ length: size }, (_, member) => member);
  }

  #exchange(tensor: Tensor, combine: (tensors: Tensor[]) => Tensor): Tensor {
    const known = this.known[this.#next++];
    if (known) return known;
    this.send(tensor, combine);
    throw new NotYet();
  }

  allReduce_(tensor: Tensor, op = 'sum'): Tensor {
    if (op !== 'sum') throw new Error('only sums here');
    return tensor.copy_(this.#exchange(tensor, (tensors) => tensors.reduce((a, b) => a.add(b))));
  }

  allGather(tensor: Tensor, rowsOfRank: readonly number[]): Tensor {
    if (rowsOfRank[this.rank] !== tensor.shape[0] || rowsOfRank.length !== this.size)
      throw new Error('wrong rows');
    return this.#exchange(tensor, (tensors) => cat(tensors, 0)).clone();
  }
}
