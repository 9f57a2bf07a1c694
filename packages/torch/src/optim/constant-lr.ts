import {
  checkOption,
  checkSteps,
  currentLrs,
  LRScheduler,
  readNumber,
  type SchedulerStateDict,
} from './lr-scheduler.js';
import type { Optimizer } from './optimizer.js';

/** Options of {@link ConstantLR}. */
export interface ConstantLROptions {
  /** What the rate is multiplied by at first, 0 < factor <= 1. Default 1/3. */
  factor?: number;
  /** Steps until the full rate. Default 5. */
  totalIters?: number;
  lastEpoch?: number;
}

/** Multiplies the learning rate by `factor` for the first `totalIters` steps; `factor: 1` keeps it constant. */
export class ConstantLR extends LRScheduler {
  factor: number;
  totalIters: number;

  /** @throws FmoeError ERR_ARGUMENT for a factor outside (0, 1] or a `totalIters` that is no positive integer */
  constructor(
    optimizer: Optimizer,
    { factor = 1 / 3, totalIters = 5, lastEpoch = -1 }: ConstantLROptions = {},
  ) {
    checkOption('ConstantLR', 'factor', factor, factor > 0 && factor <= 1, 'more than 0 and at most 1');
    checkSteps('ConstantLR', 'totalIters', totalIters);
    super(optimizer, lastEpoch);
    this.factor = factor;
    this.totalIters = totalIters;
    this.initialStep();
  }

  protected override getLr(): number[] {
    const lrs = currentLrs(this.optimizer);
    if (this.lastEpoch === 0) return lrs.map((lr) => lr * this.factor);
    if (this.lastEpoch !== this.totalIters) return lrs;
    return lrs.map((lr) => lr * (1 / this.factor));
  }

  protected override closedFormLr(): number[] {
    return this.baseLrs.map((lr) => (this.lastEpoch >= this.totalIters ? lr : lr * this.factor));
  }

  override stateDict(): SchedulerStateDict {
    return { ...super.stateDict(), factor: this.factor, total_iters: this.totalIters };
  }

  override loadStateDict(state: SchedulerStateDict): void {
    const factor = readNumber('ConstantLR', state, 'factor');
    const totalIters = readNumber('ConstantLR', state, 'total_iters');
    super.loadStateDict(state);
    this.factor = factor;
    this.totalIters = totalIters;
  }
}
