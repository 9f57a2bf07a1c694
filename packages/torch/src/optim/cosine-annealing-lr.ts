import {
  checkOption,
  checkSteps,
  currentLrs,
  LRScheduler,
  readNumber,
  type SchedulerStateDict,
} from './lr-scheduler.js';
import type { Optimizer } from './optimizer.js';

/** Options of {@link CosineAnnealingLR}. */
export interface CosineAnnealingLROptions {
  /** Steps of half a period: from the highest rate to the lowest. */
  tMax: number;
  /** The lowest rate. Default 0. */
  etaMin?: number;
  lastEpoch?: number;
}

/**
 * Lets the learning rate follow half a cosine from its initial value to `etaMin` in `tMax` steps, and back up after that:
 * `etaMin + (base - etaMin) * (1 + cos(pi t / tMax)) / 2` (Loshchilov and Hutter 2017, without restarts).
 */
export class CosineAnnealingLR extends LRScheduler {
  tMax: number;
  etaMin: number;

  /** @throws FmoeError ERR_ARGUMENT for a `tMax` that is no positive integer or an `etaMin` below 0 */
  constructor(optimizer: Optimizer, { tMax, etaMin = 0, lastEpoch = -1 }: CosineAnnealingLROptions) {
    checkSteps('CosineAnnealingLR', 'tMax', tMax);
    checkOption('CosineAnnealingLR', 'etaMin', etaMin, etaMin >= 0, '0 or more');
    super(optimizer, lastEpoch);
    this.tMax = tMax;
    this.etaMin = etaMin;
    this.initialStep();
  }

  protected override getLr(): number[] {
    const { lastEpoch, tMax, etaMin } = this;
    const lrs = currentLrs(this.optimizer);
    if (this.isInitial) return lrs;
    if (this.stepCount === 1 && lastEpoch > 0) return this.closedFormLr();
    if ((lastEpoch - 1 - tMax) % (2 * tMax) === 0) {
      // The step before was the minimum, where the ratio below would divide by zero.
      const rise = (1 - Math.cos(Math.PI / tMax)) / 2;
      return lrs.map((lr, i) => lr + (this.baseLrs[i]! - etaMin) * rise);
    }
    const now = 1 + Math.cos((Math.PI * lastEpoch) / tMax);
    const before = 1 + Math.cos((Math.PI * (lastEpoch - 1)) / tMax);
    return lrs.map((lr) => (now / before) * (lr - etaMin) + etaMin);
  }

  protected override closedFormLr(): number[] {
    const height = (1 + Math.cos((Math.PI * this.lastEpoch) / this.tMax)) / 2;
    return this.baseLrs.map((lr) => this.etaMin + (lr - this.etaMin) * height);
  }

  override stateDict(): SchedulerStateDict {
    return { ...super.stateDict(), T_max: this.tMax, eta_min: this.etaMin };
  }

  override loadStateDict(state: SchedulerStateDict): void {
    const tMax = readNumber('CosineAnnealingLR', state, 'T_max');
    const etaMin = readNumber('CosineAnnealingLR', state, 'eta_min');
    super.loadStateDict(state);
    this.tMax = tMax;
    this.etaMin = etaMin;
  }
}
