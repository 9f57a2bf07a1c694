import { FmoeError } from '../errors.js';
import { LRScheduler } from './lr-scheduler.js';
import type { Optimizer } from './optimizer.js';

/** A factor of the initial learning rate as a function of the steps done. */
export type LRLambda = (epoch: number) => number;

/** Multiplies the initial learning rate by what a function of the step returns. The functions are not part of the state. */
export class LambdaLR extends LRScheduler {
  readonly #lambdas: readonly LRLambda[];

  /**
   * @param optimizer whose groups are steered
   * @param lambda one function for all groups, or one for each
   * @param lastEpoch steps done before
   * @throws FmoeError ERR_ARGUMENT when the number of functions is not that of the groups
   */
  constructor(optimizer: Optimizer, lambda: LRLambda | readonly LRLambda[], lastEpoch = -1) {
    super(optimizer, lastEpoch);
    const count = optimizer.paramGroups.length;
    const lambdas = typeof lambda === 'function' ? new Array<LRLambda>(count).fill(lambda) : [...lambda];
    if (lambdas.length !== count) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `LambdaLR: ${lambdas.length} functions for ${count} parameter groups. Pass one function, or one for each group.`,
        { op: 'LambdaLR', argument: 'lambda' },
      );
    }
    this.#lambdas = lambdas;
    this.initialStep();
  }

  protected override getLr(): number[] {
    return this.baseLrs.map((lr, i) => lr * this.#lambdas[i]!(this.lastEpoch));
  }
}
