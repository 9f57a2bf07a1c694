import { optim } from '@fmoe/torch';
import type { ResolvedConfig } from './config/index.js';

type ScheduleConfig = ResolvedConfig['training']['schedule'];

/**
 * The learning rate of each step, as in Transformer-XL's training: a linear warm-up to the full rate at step
 * `warmupSteps`, then the chosen schedule, counted from the first step of the run.
 */
export class Schedule {
  readonly #optimizer: optim.Optimizer;
  readonly #eachStep: optim.LRScheduler | undefined;
  readonly #plateau: optim.ReduceLROnPlateau | undefined;

  /** @param steps steps of the whole run */
  constructor(optimizer: optim.Optimizer, config: ScheduleConfig, steps: number) {
    this.#optimizer = optimizer;
    if (config.kind === 'dev_perf') {
      const { warmupSteps, decayRate, patience, lrMin } = config;
      this.#plateau = new optim.ReduceLROnPlateau(optimizer, { factor: decayRate, patience, minLr: lrMin });
      if (warmupSteps > 1) {
        const options = { startFactor: 1 / warmupSteps, totalIters: warmupSteps - 1 };
        this.#eachStep = new optim.LinearLR(optimizer, options);
      }
    } else if (config.kind === 'inv_sqrt') {
      this.#eachStep = new optim.InverseSqrtLR(optimizer, { warmupSteps: config.warmupSteps });
    } else {
      const lr = optimizer.paramGroups[0]!.lr;
      this.#eachStep = new optim.LambdaLR(optimizer, (done) => factor(config, done + 1, steps, lr));
    }
  }

  /** Called after each step of the optimizer: sets the rate of the next one. */
  afterStep(): void {
    this.#eachStep?.step();
  }

  /** Called after each evaluation with the loss on the validation part. */
  afterEvaluation(loss: number): void {
    this.#plateau?.step(loss);
  }

  stateDict(): optim.SchedulerStateDict {
    return {
      lrs: this.#optimizer.paramGroups.map(({ lr }) => lr),
      each_step: this.#eachStep?.stateDict() ?? null,
      plateau: this.#plateau?.stateDict() ?? null,
    };
  }

  /** @throws FmoeError ERR_STATE_DICT when the state is of another schedule */
  loadStateDict(state: optim.SchedulerStateDict): void {
    this.#plateau?.loadStateDict((state['plateau'] ?? {}) as optim.SchedulerStateDict);
    this.#eachStep?.loadStateDict((state['each_step'] ?? {}) as optim.SchedulerStateDict);
    // Each part sets the rates that it set last; where there are two, only one of them was the last to do so.
    const lrs = (state['lrs'] ?? []) as number[];
    for (const [index, group] of this.#optimizer.paramGroups.entries()) group.lr = lrs[index] ?? group.lr;
  }
}

/** What the full rate is multiplied by at a step, counted from 1. */
function factor(
  config: Extract<ScheduleConfig, { kind: 'constant' | 'cosine' }>,
  step: number,
  steps: number,
  lr: number,
): number {
  if (step <= config.warmupSteps) return step / config.warmupSteps;
  if (config.kind === 'constant') return 1;
  const least = config.etaMin / lr;
  return least + ((1 - least) * (1 + Math.cos((Math.PI * Math.min(step - 1, steps)) / steps))) / 2;
}
