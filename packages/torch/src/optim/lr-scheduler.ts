import { FmoeError } from '../errors.js';
import type { Optimizer } from './optimizer.js';

/** Values of a scheduler's state, under PyTorch's keys; it survives `JSON.stringify`. */
export type SchedulerStateDict = { [key: string]: SchedulerStateValue };
export type SchedulerStateValue =
  | number
  | string
  | boolean
  | null
  | SchedulerStateValue[]
  | SchedulerStateDict;

/** Anything that steers learning rates and can be saved. */
export interface Scheduler {
  /** The rates that the last step set, one a parameter group. */
  getLastLr(): number[];
  stateDict(): SchedulerStateDict;
  loadStateDict(state: SchedulerStateDict): void;
}

/** The learning rates of all groups. */
export const currentLrs = (optimizer: Optimizer): number[] => optimizer.paramGroups.map((group) => group.lr);

/** Sets the learning rates of all groups. */
export function setLrs(optimizer: Optimizer, lrs: readonly number[]): void {
  optimizer.paramGroups.forEach((group, i) => {
    group.lr = lrs[i] ?? group.lr;
  });
}

function stateError(scheduler: string, problem: string): FmoeError {
  return new FmoeError('ERR_STATE_DICT', `${scheduler}.loadStateDict: ${problem}`, {
    op: scheduler,
    argument: 'state',
  });
}

/** Reads a number from a state dict, ERR_STATE_DICT when it is missing or something else. */
export function readNumber(scheduler: string, state: SchedulerStateDict, key: string): number {
  const value = state[key];
  if (typeof value === 'number' && !Number.isNaN(value)) return value;
  throw stateError(scheduler, `'${key}' is ${JSON.stringify(value)}, expected a number.`);
}

/** Reads a list of `count` numbers from a state dict. */
export function readNumbers(
  scheduler: string,
  state: SchedulerStateDict,
  key: string,
  count: number,
): number[] {
  const value = state[key];
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'number')) {
    throw stateError(scheduler, `'${key}' is ${JSON.stringify(value)}, expected a list of numbers.`);
  }
  if (value.length === count) return value as number[];
  throw stateError(
    scheduler,
    `'${key}' has ${value.length} values, but the optimizer has ${count} parameter groups.`,
  );
}

/** Refuses an option out of its range with ERR_ARGUMENT. */
export function checkOption(
  scheduler: string,
  name: string,
  value: number,
  valid: boolean,
  range: string,
): void {
  if (valid) return;
  throw new FmoeError('ERR_ARGUMENT', `${scheduler}: ${name} is ${value}, expected ${range}.`, {
    op: scheduler,
    argument: name,
  });
}

/** Refuses anything but a whole number of at least `minimum`. */
export function checkSteps(scheduler: string, name: string, value: number, minimum = 1): void {
  const valid = Number.isSafeInteger(value) && value >= minimum;
  checkOption(scheduler, name, value, valid, `an integer of at least ${minimum}`);
}

/**
 * Base of the schedulers that compute every group's learning rate from the number of steps done.
 *
 * As in PyTorch, most rates follow from the rate before (`group.lr`) by a factor, so that several schedulers can act on one
 * optimizer. Call `scheduler.step()` after `optimizer.step()`. A subclass implements {@link getLr} and ends its constructor
 * with `this.initialStep()`, which sets the first rate.
 */
export abstract class LRScheduler implements Scheduler {
  readonly optimizer: Optimizer;
  /** The rates that the groups began with. */
  baseLrs: number[];
  /** Steps done, counted from 0 after construction. */
  lastEpoch: number;
  protected stepCount = 0;
  /** While {@link initialStep} runs. */
  protected isInitial = false;
  #lastLrs: number[];

  /**
   * @param optimizer whose groups are steered
   * @param lastEpoch steps done before, when a run resumes without a state dict; -1 for a new run
   * @throws FmoeError ERR_ARGUMENT when `lastEpoch` is set and a group does not know its initial rate
   */
  constructor(optimizer: Optimizer, lastEpoch = -1) {
    this.optimizer = optimizer;
    optimizer.paramGroups.forEach((group, i) => {
      if (lastEpoch === -1) group.initialLr ??= group.lr;
      else if (group.initialLr === undefined) {
        throw new FmoeError(
          'ERR_ARGUMENT',
          `${this.constructor.name}: lastEpoch is ${lastEpoch}, but parameter group ${i} has no initialLr. Load the optimizer's state first, or leave lastEpoch out.`,
          { op: this.constructor.name, argument: 'lastEpoch' },
        );
      }
    });
    this.baseLrs = optimizer.paramGroups.map((group) => group.initialLr ?? group.lr);
    this.lastEpoch = lastEpoch;
    this.#lastLrs = currentLrs(optimizer);
  }

  /** The rates of all groups at step `this.lastEpoch`. */
  protected abstract getLr(): number[];

  /** The same from the initial rates alone, where that is possible; used when a sequence enters this scheduler. */
  protected closedFormLr(): number[] {
    return this.getLr();
  }

  /** Sets the first rates. Every concrete class calls this at the end of its constructor. */
  initialStep(): void {
    this.stepCount = 0;
    this.isInitial = true;
    try {
      this.step();
    } finally {
      this.isInitial = false;
    }
  }

  /** Moves on by one step and sets every group's learning rate. */
  step(): void {
    this.stepCount += 1;
    this.lastEpoch += 1;
    this.#apply(this.getLr());
  }

  /** Jumps to step `epoch` and sets the rates from the initial ones. */
  jumpTo(epoch: number): void {
    this.lastEpoch = epoch;
    this.#apply(this.closedFormLr());
  }

  getLastLr(): number[] {
    return [...this.#lastLrs];
  }

  /** The state under PyTorch's keys. Subclasses add their own. */
  stateDict(): SchedulerStateDict {
    return {
      base_lrs: [...this.baseLrs],
      last_epoch: this.lastEpoch,
      _step_count: this.stepCount,
      _is_initial: false,
      _get_lr_called_within_step: false,
      _last_lr: this.getLastLr(),
    };
  }

  /**
   * Takes over a state, and puts its learning rates into the optimizer's groups.
   *
   * @throws FmoeError ERR_STATE_DICT when a value is missing, of another type, or for another number of groups
   */
  loadStateDict(state: SchedulerStateDict): void {
    const name = this.constructor.name;
    const count = this.optimizer.paramGroups.length;
    const baseLrs = readNumbers(name, state, 'base_lrs', count);
    const lastLrs = readNumbers(name, state, '_last_lr', count);
    const lastEpoch = readNumber(name, state, 'last_epoch');
    this.stepCount = readNumber(name, state, '_step_count');
    this.lastEpoch = lastEpoch;
    this.baseLrs = [...baseLrs];
    this.#apply(lastLrs);
  }

  #apply(lrs: readonly number[]): void {
    setLrs(this.optimizer, lrs);
    this.#lastLrs = currentLrs(this.optimizer);
  }
}
