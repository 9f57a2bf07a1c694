import { FmoeError } from '../errors.js';
import type { Tensor } from '../tensor/tensor.js';
import {
  checkOption,
  checkSteps,
  currentLrs,
  readNumber,
  readNumbers,
  type Scheduler,
  type SchedulerStateDict,
  setLrs,
} from './lr-scheduler.js';
import type { Optimizer } from './optimizer.js';

/** Options of {@link ReduceLROnPlateau}. */
export interface ReduceLROnPlateauOptions {
  /** Whether the metric should fall or rise. Default `min`. */
  mode?: 'min' | 'max';
  /** What the learning rate is multiplied by, in [0, 1). Default 0.1. */
  factor?: number;
  /** Steps without improvement that are accepted. Default 10. */
  patience?: number;
  /** Smallest change that counts as improvement. Default 1e-4. */
  threshold?: number;
  /** Whether `threshold` is relative to the best value or absolute. Default `rel`. */
  thresholdMode?: 'rel' | 'abs';
  /** Steps to wait after a reduction. Default 0. */
  cooldown?: number;
  /** The lowest rate, for all groups or for each. Default 0. */
  minLr?: number | readonly number[];
  /** Reductions smaller than this are left out. Default 1e-8. */
  eps?: number;
}

const NAME = 'ReduceLROnPlateau';

/** Lowers the learning rate when a metric, e.g. the validation loss, has stopped getting better. */
export class ReduceLROnPlateau implements Scheduler {
  readonly optimizer: Optimizer;
  mode: 'min' | 'max';
  factor: number;
  patience: number;
  threshold: number;
  thresholdMode: 'rel' | 'abs';
  cooldown: number;
  minLrs: number[];
  eps: number;
  lastEpoch = 0;
  best: number;
  numBadEpochs = 0;
  cooldownCounter = 0;
  #lastLrs: number[];

  /** @throws FmoeError ERR_ARGUMENT for an option out of range */
  constructor(
    optimizer: Optimizer,
    {
      mode = 'min',
      factor = 0.1,
      patience = 10,
      threshold = 1e-4,
      thresholdMode = 'rel',
      cooldown = 0,
      minLr = 0,
      eps = 1e-8,
    }: ReduceLROnPlateauOptions = {},
  ) {
    checkOption(NAME, 'factor', factor, factor >= 0 && factor < 1, '0 or more and less than 1');
    checkSteps(NAME, 'patience', patience, 0);
    checkSteps(NAME, 'cooldown', cooldown, 0);
    checkChoice('mode', mode, ['min', 'max']);
    checkChoice('thresholdMode', thresholdMode, ['rel', 'abs']);
    const count = optimizer.paramGroups.length;
    const minLrs = typeof minLr === 'number' ? new Array<number>(count).fill(minLr) : [...minLr];
    checkOption(
      NAME,
      'number of minLr',
      minLrs.length,
      minLrs.length === count,
      `one for each of ${count} groups`,
    );
    this.optimizer = optimizer;
    this.mode = mode;
    this.factor = factor;
    this.patience = patience;
    this.threshold = threshold;
    this.thresholdMode = thresholdMode;
    this.cooldown = cooldown;
    this.minLrs = minLrs;
    this.eps = eps;
    this.best = this.#worst();
    this.#lastLrs = currentLrs(optimizer);
  }

  /** Takes a new value of the metric, and lowers the rates after more than `patience` values without improvement. */
  step(metric: number | Tensor): void {
    const value = typeof metric === 'number' ? metric : metric.item();
    this.lastEpoch += 1;
    if (this.#isBetter(value)) {
      this.best = value;
      this.numBadEpochs = 0;
    } else this.numBadEpochs += 1;
    if (this.cooldownCounter > 0) {
      this.cooldownCounter -= 1;
      this.numBadEpochs = 0;
    }
    if (this.numBadEpochs > this.patience) {
      this.#reduce();
      this.cooldownCounter = this.cooldown;
      this.numBadEpochs = 0;
    }
    this.#lastLrs = currentLrs(this.optimizer);
  }

  getLastLr(): number[] {
    return [...this.#lastLrs];
  }

  /** The state under PyTorch's keys. `best` is infinite before the first step, which JSON turns into null. */
  stateDict(): SchedulerStateDict {
    return {
      factor: this.factor,
      min_lrs: [...this.minLrs],
      patience: this.patience,
      cooldown: this.cooldown,
      eps: this.eps,
      last_epoch: this.lastEpoch,
      _last_lr: this.getLastLr(),
      mode_worse: this.#worst(),
      mode: this.mode,
      threshold: this.threshold,
      threshold_mode: this.thresholdMode,
      best: this.best,
      cooldown_counter: this.cooldownCounter,
      num_bad_epochs: this.numBadEpochs,
    };
  }

  /** @throws FmoeError ERR_STATE_DICT when a value is missing, of another type, or for another number of groups */
  loadStateDict(state: SchedulerStateDict): void {
    const number = (key: string): number => readNumber(NAME, state, key);
    const count = this.optimizer.paramGroups.length;
    const { mode, threshold_mode: thresholdMode } = state;
    if ((mode !== 'min' && mode !== 'max') || (thresholdMode !== 'rel' && thresholdMode !== 'abs')) {
      throw new FmoeError(
        'ERR_STATE_DICT',
        `${NAME}.loadStateDict: 'mode' or 'threshold_mode' is missing or unknown.`,
        {
          op: NAME,
          argument: 'state',
        },
      );
    }
    const minLrs = readNumbers(NAME, state, 'min_lrs', count);
    const lastLrs = readNumbers(NAME, state, '_last_lr', count);
    const worst = mode === 'min' ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
    const loaded = {
      mode,
      thresholdMode,
      minLrs,
      factor: number('factor'),
      patience: number('patience'),
      threshold: number('threshold'),
      cooldown: number('cooldown'),
      eps: number('eps'),
      lastEpoch: number('last_epoch'),
      best: state['best'] === null ? worst : number('best'),
      cooldownCounter: number('cooldown_counter'),
      numBadEpochs: number('num_bad_epochs'),
    };
    Object.assign(this, loaded);
    setLrs(this.optimizer, lastLrs);
    this.#lastLrs = currentLrs(this.optimizer);
  }

  #worst(): number {
    return this.mode === 'min' ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
  }

  #isBetter(value: number): boolean {
    const { best, threshold } = this;
    const sign = this.mode === 'min' ? -1 : 1;
    const limit = this.thresholdMode === 'rel' ? best * (1 + sign * threshold) : best + sign * threshold;
    return this.mode === 'min' ? value < limit : value > limit;
  }

  #reduce(): void {
    this.optimizer.paramGroups.forEach((group, i) => {
      const lr = Math.max(group.lr * this.factor, this.minLrs[i] ?? 0);
      if (group.lr - lr > this.eps) group.lr = lr;
    });
  }
}

function checkChoice(name: string, value: string, choices: readonly string[]): void {
  if (choices.includes(value)) return;
  throw new FmoeError('ERR_ARGUMENT', `${NAME}: ${name} is '${value}', expected ${choices.join(' or ')}.`, {
    op: NAME,
    argument: name,
  });
}
