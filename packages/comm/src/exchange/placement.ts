/** Shape letters: N all experts, E experts of one rank, W ranks. */
import { FmoeError, keep, type Tensor, tensor } from '@fmoe/torch';

/**
 * Where each expert lives: a rank, and a slot among the experts of that rank. Any table will do, ranks may have different
 * numbers of experts or none.
 */
export class Placement {
  /** N. */
  readonly numExperts: number;
  /** W. */
  readonly worldSize: number;
  /** `[N]` the rank of each expert. */
  readonly rankOfExpert: readonly number[];
  /** `[W]` the experts of each rank, in the order of their slots. */
  readonly expertsOfRank: readonly (readonly number[])[];
  private orderTensor: Tensor | undefined;

  /**
   * @param expertsOfRank for each rank its experts in the order of their slots; each expert 0 … N-1 once
   * @throws FmoeError `ERR_ARGUMENT` when an expert is missing, named twice or no such number.
   */
  constructor(expertsOfRank: readonly (readonly number[])[]) {
    this.worldSize = expertsOfRank.length;
    this.expertsOfRank = expertsOfRank.map((experts) => [...experts]);
    this.numExperts = this.expertsOfRank.flat().length;
    const rankOfExpert = new Array<number>(this.numExperts).fill(-1);
    for (const [rank, experts] of this.expertsOfRank.entries()) {
      for (const expert of experts) {
        if (rankOfExpert[expert] !== -1) {
          throw new FmoeError(
            'ERR_ARGUMENT',
            `Placement: expert ${expert} is ${rankOfExpert[expert] === undefined ? `none of 0 … ${this.numExperts - 1}` : 'placed twice'}`,
            { op: 'Placement', argument: 'expertsOfRank' },
          );
        }
        rankOfExpert[expert] = rank;
      }
    }
    this.rankOfExpert = rankOfExpert;
  }

  /** Experts in order, as many on each rank; where that does not come out even, the first ranks have one more. */
  static even(numExperts: number, worldSize: number): Placement {
    let next = 0;
    return new Placement(
      evenRows(numExperts, worldSize).map((count) => Array.from({ length: count }, () => next++)),
    );
  }

  /** From a table of ranks, `[N]`; the slots of a rank's experts are in the order of the experts. */
  static ofRanks(rankOfExpert: readonly number[], worldSize: number): Placement {
    const outside = rankOfExpert.find((rank) => !Number.isInteger(rank) || rank < 0 || rank >= worldSize);
    if (outside !== undefined) {
      throw new FmoeError('ERR_INDEX', `Placement: there is no rank ${outside} among ${worldSize}`, {
        op: 'Placement',
        argument: 'rankOfExpert',
      });
    }
    return new Placement(
      Array.from({ length: worldSize }, (_, rank) =>
        rankOfExpert.flatMap((owner, expert) => (owner === rank ? [expert] : [])),
      ),
    );
  }

  /** `[W]` how many experts each rank has. */
  get numExpertsOfRank(): number[] {
    return this.expertsOfRank.map((experts) => experts.length);
  }

  /** @internal `[N]` the experts by rank and slot: int64 on the CPU, made once. */
  get order(): Tensor {
    this.orderTensor ??= keep(tensor(this.expertsOfRank.flat(), { dtype: 'int64' }));
    return this.orderTensor;
  }
}

/** `total` rows over `size` ranks as evenly as it goes: the first ranks have one more. */
export function evenRows(total: number, size: number): number[] {
  const least = Math.floor(total / size);
  return Array.from({ length: size }, (_, rank) => least + (rank < total % size ? 1 : 0));
}
