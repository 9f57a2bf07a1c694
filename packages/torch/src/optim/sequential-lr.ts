import { FmoeError } from '../errors.js';
import { LinearLR } from './linear-lr.js';
import {
  currentLrs,
  LRScheduler,
  readNumber,
  readNumbers,
  type Scheduler,
  type SchedulerStateDict,
  setLrs,
} from './lr-scheduler.js';
import type { Optimizer } from './optimizer.js';

/** Refuses what a composed scheduler cannot drive: nothing, composed ones, and those of another optimizer. */
export function checkParts(
  name: string,
  optimizer: Optimizer | undefined,
  schedulers: readonly unknown[],
): void {
  const fail = (problem: string): never => {
    throw new FmoeError('ERR_ARGUMENT', `${name}: ${problem}`, { op: name, argument: 'schedulers' });
  };
  if (schedulers.length === 0) fail('needs at least one scheduler.');
  schedulers.forEach((part, i) => {
    if (!(part instanceof LRScheduler)) {
      fail(
        `scheduler ${i} is not a LRScheduler. Plateau and composed schedulers cannot be parts of another.`,
      );
    } else if (part.optimizer !== optimizer) fail(`scheduler ${i} belongs to another optimizer.`);
  });
}

/** Reads the states of the parts of a composed scheduler. */
export function readParts(name: string, state: SchedulerStateDict, count: number): SchedulerStateDict[] {
  const parts = state['_schedulers'];
  if (Array.isArray(parts) && parts.length === count) return parts as SchedulerStateDict[];
  throw new FmoeError(
    'ERR_STATE_DICT',
    `${name}.loadStateDict: '_schedulers' must hold the states of ${count} schedulers.`,
    {
      op: name,
      argument: 'state',
    },
  );
}

/**
 * Runs schedulers one after another, e.g. a linear warm-up and then a cosine. A scheduler that begins at a milestone begins
 * from the initial learning rates.
 */
export class SequentialLR implements Scheduler {
  readonly optimizer: Optimizer;
  lastEpoch = 0;
  readonly #schedulers: readonly LRScheduler[];
  #milestones: readonly number[];
  #lastLrs: number[];

  /**
   * @param optimizer of all the schedulers
   * @param schedulers in the order in which they run
   * @param milestones the step at which each but the first begins, ascending
   * @throws FmoeError ERR_ARGUMENT when there is no scheduler, one is composed or of another optimizer, or the milestones do
   *   not fit
   */
  constructor(optimizer: Optimizer, schedulers: readonly LRScheduler[], milestones: readonly number[]) {
    checkParts('SequentialLR', optimizer, schedulers);
    const ascending = milestones.every(
      (step, i) => Number.isSafeInteger(step) && step > (milestones[i - 1] ?? 0),
    );
    if (milestones.length !== schedulers.length - 1 || !ascending) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `SequentialLR: milestones are [${milestones.join(', ')}], expected ${schedulers.length - 1} ascending positive integers for ${schedulers.length} schedulers.`,
        { op: 'SequentialLR', argument: 'milestones' },
      );
    }
    this.optimizer = optimizer;
    this.#schedulers = [...schedulers];
    this.#milestones = [...milestones];
    // Every part has set its own first rates when it was made: begin again with those of the first alone.
    for (const group of optimizer.paramGroups) group.lr = group.initialLr ?? group.lr;
    for (const part of schedulers) part.lastEpoch -= 1;
    schedulers[0]!.initialStep();
    this.#lastLrs = schedulers[0]!.getLastLr();
  }

  /** Moves on by one step and sets every group's learning rate. */
  step(): void {
    this.lastEpoch += 1;
    const active = this.#milestones.filter((milestone) => milestone <= this.lastEpoch).length;
    const scheduler = this.#schedulers[active]!;
    if (active > 0 && this.#milestones[active - 1] === this.lastEpoch) scheduler.jumpTo(0);
    else scheduler.step();
    this.#lastLrs = scheduler.getLastLr();
  }

  getLastLr(): number[] {
    return [...this.#lastLrs];
  }

  stateDict(): SchedulerStateDict {
    return {
      _milestones: [...this.#milestones],
      last_epoch: this.lastEpoch,
      _last_lr: this.getLastLr(),
      _schedulers: this.#schedulers.map((part) => part.stateDict()),
    };
  }

  /** @throws FmoeError ERR_STATE_DICT when a value is missing, of another type, or for other schedulers */
  loadStateDict(state: SchedulerStateDict): void {
    const name = 'SequentialLR';
    const parts = readParts(name, state, this.#schedulers.length);
    const milestones = readNumbers(name, state, '_milestones', this.#milestones.length);
    const lastLrs = readNumbers(name, state, '_last_lr', this.optimizer.paramGroups.length);
    const lastEpoch = readNumber(name, state, 'last_epoch');
    this.#schedulers.forEach((part, i) => {
      part.loadStateDict(parts[i]!);
    });
    this.lastEpoch = lastEpoch;
    this.#milestones = milestones;
    setLrs(this.optimizer, lastLrs);
    this.#lastLrs = currentLrs(this.optimizer);
  }
}

/**
 * A linear warm-up and then another schedule.
 *
 * @param optimizer whose groups are steered
 * @param warmupIters steps of warm-up, 1 or more; the schedule begins after them
 * @param schedule makes it, e.g. `(optimizer) => new CosineAnnealingLR(optimizer, { tMax: 1000 })`
 * @param startFactor what the rate is multiplied by in the first step; by default `1 / (warmupIters + 1)`, so that every
 *   step of the warm-up adds the same
 * @throws FmoeError ERR_ARGUMENT for `warmupIters` or a `startFactor` out of range
 */
export function withWarmup(
  optimizer: Optimizer,
  warmupIters: number,
  schedule: (optimizer: Optimizer) => LRScheduler,
  startFactor: number = 1 / (warmupIters + 1),
): SequentialLR {
  const warmup = new LinearLR(optimizer, { startFactor, totalIters: warmupIters });
  return new SequentialLR(optimizer, [warmup, schedule(optimizer)], [warmupIters]);
}
