import { checkSteps, LRScheduler, readNumber, type SchedulerStateDict } from './lr-scheduler.js';
import type { Optimizer } from './optimizer.js';

/** Options of {@link InverseSqrtLR}. */
export interface InverseSqrtLROptions {
  /** Steps of linear warm-up; the rate reaches its initial value at the last of them. */
  warmupSteps: number;
  lastEpoch?: number;
}

/**
 * The Transformer's schedule (Vaswani et al. 2017, equation 3), scaled so that its peak is the initial rate:
 * `base * min(s / warmupSteps, sqrt(warmupSteps / s))` at step `s = 1, 2, ...`
 */
export class InverseSqrtLR extends LRScheduler {
  warmupSteps: number;

  /** @throws FmoeError ERR_ARGUMENT for `warmupSteps` that is no positive integer */
  constructor(optimizer: Optimizer, { warmupSteps, lastEpoch = -1 }: InverseSqrtLROptions) {
    checkSteps('InverseSqrtLR', 'warmupSteps', warmupSteps);
    super(optimizer, lastEpoch);
    this.warmupSteps = warmupSteps;
    this.initialStep();
  }

  protected override getLr(): number[] {
    const step = this.lastEpoch + 1;
    const factor = Math.min(step / this.warmupSteps, Math.sqrt(this.warmupSteps / step));
    return this.baseLrs.map((lr) => lr * factor);
  }

  override stateDict(): SchedulerStateDict {
    return { ...super.stateDict(), warmup_steps: this.warmupSteps };
  }

  override loadStateDict(state: SchedulerStateDict): void {
    const warmupSteps = readNumber('InverseSqrtLR', state, 'warmup_steps');
    super.loadStateDict(state);
    this.warmupSteps = warmupSteps;
  }
}
