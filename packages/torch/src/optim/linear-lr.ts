import {
  checkOption,
  checkSteps,
  currentLrs,
  LRScheduler,
  readNumber,
  type SchedulerStateDict,
} from './lr-scheduler.js';
import type { Optimizer } from './optimizer.js';

/** Options of {@link LinearLR}. */
export interface LinearLROptions {
  /** What the rate is multiplied by at first, 0 < startFactor <= 1. Default 1/3. */
  startFactor?: number;
  /** What it is multiplied by in the end, 0 <= endFactor <= 1. Default 1. */
  endFactor?: number;
  /** Steps from the one to the other. Default 5. */
  totalIters?: number;
  lastEpoch?: number;
}

/** Changes the learning rate linearly from `startFactor` to `endFactor` times its initial value: the linear warm-up. */
export class LinearLR extends LRScheduler {
  startFactor: number;
  endFactor: number;
  totalIters: number;

  /** @throws FmoeError ERR_ARGUMENT for a factor out of range or a `totalIters` that is no positive integer */
  constructor(
    optimizer: Optimizer,
    { startFactor = 1 / 3, endFactor = 1, totalIters = 5, lastEpoch = -1 }: LinearLROptions = {},
  ) {
    const name = 'LinearLR';
    checkOption(
      name,
      'startFactor',
      startFactor,
      startFactor > 0 && startFactor <= 1,
      'more than 0 and at most 1',
    );
    checkOption(name, 'endFactor', endFactor, endFactor >= 0 && endFactor <= 1, '0 to 1');
    checkSteps(name, 'totalIters', totalIters);
    super(optimizer, lastEpoch);
    this.startFactor = startFactor;
    this.endFactor = endFactor;
    this.totalIters = totalIters;
    this.initialStep();
  }

  protected override getLr(): number[] {
    const { lastEpoch, totalIters, startFactor } = this;
    const lrs = currentLrs(this.optimizer);
    if (lastEpoch === 0) return lrs.map((lr) => lr * startFactor);
    if (this.isInitial || lastEpoch > totalIters) return lrs;
    // The ratio of two neighbours of the line, so that the factors of other schedulers stay in the rate.
    const slope = this.endFactor - startFactor;
    const ratio = 1 + slope / (totalIters * startFactor + (lastEpoch - 1) * slope);
    return lrs.map((lr) => lr * ratio);
  }

  protected override closedFormLr(): number[] {
    const done = Math.min(this.totalIters, this.lastEpoch) / this.totalIters;
    return this.baseLrs.map((lr) => lr * (this.startFactor + (this.endFactor - this.startFactor) * done));
  }

  override stateDict(): SchedulerStateDict {
    return {
      ...super.stateDict(),
      start_factor: this.startFactor,
      end_factor: this.endFactor,
      total_iters: this.totalIters,
    };
  }

  override loadStateDict(state: SchedulerStateDict): void {
    const startFactor = readNumber('LinearLR', state, 'start_factor');
    const endFactor = readNumber('LinearLR', state, 'end_factor');
    const totalIters = readNumber('LinearLR', state, 'total_iters');
    super.loadStateDict(state);
    this.startFactor = startFactor;
    this.endFactor = endFactor;
    this.totalIters = totalIters;
  }
}
