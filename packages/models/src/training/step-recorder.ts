import { FmoeError, keep, noGrad, stack, type Tensor, tidy, zeros } from '@fmoe/torch';

/** Averages over some steps. */
export interface StepAverages {
  steps: number;
  loss: number;
  balanceLoss: number;
  gradientNorm: number;
}

const columns = 3;

/**
 * Keeps loss, balance loss and gradient norm of each step on the model's device, so that a step does not wait for it, until
 * they are read together.
 */
export class StepRecorder {
  readonly #capacity: number;
  readonly #table: Tensor;
  #rows = 0;

  /** @param capacity most steps between two calls of {@link read} */
  constructor(capacity: number, device: string) {
    this.#capacity = capacity;
    this.#table = keep(zeros([capacity, columns], { dtype: 'float64', device }));
  }

  get isFull(): boolean {
    return this.#rows === this.#capacity;
  }

  /** Stores three scalars of one step. */
  add(loss: Tensor, balanceLoss: Tensor, gradientNorm: Tensor): void {
    tidy(() =>
      noGrad(() => {
        const values = stack([loss, balanceLoss, gradientNorm].map((value) => value.detach().to('float64')));
        this.#table.select(0, this.#rows).copy_(values);
      }),
    );
    this.#rows += 1;
  }

  /**
   * Averages of what was stored since the last call, which is then forgotten; `undefined` when nothing was.
   *
   * @param lastStep number of the last step stored
   * @param combine adds up the tables of all ranks, of which each has its share of the losses
   * @throws FmoeError ERR_RUNTIME naming the first step whose loss or gradient was not finite
   */
  read(lastStep: number, combine: (table: Tensor) => Tensor = (table) => table): StepAverages | undefined {
    const steps = this.#rows;
    if (steps === 0) return undefined;
    this.#rows = 0;
    const values = tidy(() => {
      const own = this.#table.narrow(0, 0, steps);
      const norms = own.narrow(1, columns - 1, 1).clone();
      const all = combine(own.clone());
      // Every rank has the norm of all gradients.
      all.narrow(1, columns - 1, 1).copy_(norms);
      return Array.from(all.cpu().data() as Float64Array);
    });
    const column = (index: number): number[] => values.filter((_, i) => i % columns === index);
    const [loss, balanceLoss, gradientNorm] = [column(0), column(1), column(2)];
    for (let row = 0; row < steps; row++) {
      const step = lastStep - steps + 1 + row;
      if (!Number.isFinite(loss[row])) throw notFinite('loss', loss[row]!, step);
      if (!Number.isFinite(gradientNorm[row]))
        throw notFinite('norm of the gradient', gradientNorm[row]!, step);
    }
    return { steps, loss: mean(loss), balanceLoss: mean(balanceLoss), gradientNorm: mean(gradientNorm) };
  }

  dispose(): void {
    this.#table.dispose();
  }
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** The error of a training whose numbers ran away. */
export function notFinite(what: string, value: number, step: number, cause?: unknown): FmoeError {
  return new FmoeError(
    'ERR_RUNTIME',
    `Training stopped at step ${step}: the ${what} is ${value}. Nothing was saved after it. ` +
      'Lower training.optimizer.lr or training.clip, or lengthen training.schedule.warmupSteps, and resume.',
    { cause },
  );
}
