import {
  currentLrs,
  type LRScheduler,
  readNumbers,
  type Scheduler,
  type SchedulerStateDict,
  setLrs,
} from './lr-scheduler.js';
import type { Optimizer } from './optimizer.js';
import { checkParts, readParts } from './sequential-lr.js';

/** Runs schedulers together: each one's change of the learning rate acts on what those before made of it. */
export class ChainedScheduler implements Scheduler {
  readonly optimizer: Optimizer;
  readonly #schedulers: readonly LRScheduler[];
  #lastLrs: number[];

  /**
   * @param schedulers of one optimizer, in the order in which they act
   * @throws FmoeError ERR_ARGUMENT when there is none, or one is composed or of another optimizer
   */
  constructor(schedulers: readonly LRScheduler[]) {
    checkParts('ChainedScheduler', schedulers[0]?.optimizer, schedulers);
    this.optimizer = schedulers[0]!.optimizer;
    this.#schedulers = [...schedulers];
    this.#lastLrs = currentLrs(this.optimizer);
  }

  /** Moves every scheduler on by one step. */
  step(): void {
    for (const scheduler of this.#schedulers) scheduler.step();
    this.#lastLrs = currentLrs(this.optimizer);
  }

  getLastLr(): number[] {
    return [...this.#lastLrs];
  }

  stateDict(): SchedulerStateDict {
    return { _last_lr: this.getLastLr(), _schedulers: this.#schedulers.map((part) => part.stateDict()) };
  }

  /** @throws FmoeError ERR_STATE_DICT when a value is missing, of another type, or for other schedulers */
  loadStateDict(state: SchedulerStateDict): void {
    const parts = readParts('ChainedScheduler', state, this.#schedulers.length);
    const lastLrs = readNumbers('ChainedScheduler', state, '_last_lr', this.optimizer.paramGroups.length);
    this.#schedulers.forEach((part, i) => {
      part.loadStateDict(parts[i]!);
    });
    setLrs(this.optimizer, lastLrs);
    this.#lastLrs = currentLrs(this.optimizer);
  }
}
