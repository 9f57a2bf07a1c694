/** Shape letters: P elements of all parameters of a bucket, n their number, W ranks that see different tokens. */
import type { ProcessGroup, Work } from '@fmoe/comm';
import { cat, keep, type nn, noGrad, type Tensor, tensor, tidy, zeros } from '@fmoe/torch';

/** How gradients are combined. */
export interface ReduceOptions {
  /** Add gradients up instead of averaging them. Default false. */
  noScale?: boolean;
  /** Divide after adding up, rather than before, which rounds less but may overflow in half precision. Default false. */
  reduceAfter?: boolean;
  /** Add up in float32 what is in half precision. Default false. */
  fp32Allreduce?: boolean;
}

/**
 * Gradients of one tag and dtype that travel together. All ranks make the same buckets, whatever gradients they have: a missing
 * gradient travels as zeros, and a count for each parameter tells whether any rank had one.
 */
export class GradientBucket {
  readonly parameters: readonly nn.Parameter[];
  readonly #group: ProcessGroup | null;
  readonly #divisor: number;
  readonly #options: ReduceOptions;
  #work: Work<Tensor> | undefined;
  #started = false;

  /**
   * @param group null when no other rank has these parameters
   * @param divisor what the sum over the group is divided by
   */
  constructor(
    parameters: readonly nn.Parameter[],
    group: ProcessGroup | null,
    divisor: number,
    options: ReduceOptions,
  ) {
    this.parameters = parameters;
    this.#group = group !== null && group.size > 1 ? group : null;
    this.#divisor = options.noScale ? 1 : divisor;
    this.#options = options;
  }

  /** Whether {@link start} was called since the last {@link finish}. */
  get isStarted(): boolean {
    return this.#started;
  }

  /** Begins to combine the gradients as they are now. */
  start(): void {
    this.#started = true;
    const group = this.#group;
    if (group === null) return;
    const flat = tidy(() => noGrad(() => keep(this.#flatten())));
    this.#work = group.startAllReduce_(flat, 'sum');
  }

  /** Waits for the combined gradients and puts them into the parameters. */
  finish(): void {
    this.#started = false;
    const work = this.#work;
    this.#work = undefined;
    tidy(() =>
      noGrad(() => {
        if (work === undefined) this.#scaleOwn();
        else this.#unflatten(work.wait());
      }),
    );
  }

  /** All gradients one after the other, and then the counts: `[P+n]`. */
  #flatten(): Tensor {
    const { dtype, device } = this.parameters[0]!;
    const gradients = this.parameters.map((parameter) => parameter.grad);
    const parts = gradients.map(
      (gradient, i) => gradient?.reshape([-1]) ?? zeros([this.parameters[i]!.numel()], { dtype, device }),
    );
    const counts = tensor(
      gradients.map((gradient) => (gradient === null ? 0 : 1)),
      { dtype, device },
    );
    const flat = cat([...parts, counts]);
    const wide = this.#options.fp32Allreduce && flat.dtype !== 'float64' ? flat.float() : flat;
    return this.#options.reduceAfter || this.#divisor === 1 ? wide : wide.div_(this.#divisor);
  }

  #unflatten(flat: Tensor): void {
    if (this.#options.reduceAfter && this.#divisor !== 1) flat.div_(this.#divisor);
    const sizes = this.parameters.map((parameter) => parameter.numel());
    const counts = sizes.reduce((sum, size) => sum + size, 0);
    let at = 0;
    for (const [index, parameter] of this.parameters.entries()) {
      const combined = flat.narrow(0, at, sizes[index]!).view(parameter.shape);
      at += sizes[index]!;
      if (parameter.grad !== null) parameter.grad.copy_(combined);
      // On one process a parameter that nothing used has no gradient either, and an optimizer passes it over.
      else if (flat.select(0, counts + index).item() > 0)
        parameter.grad = keep(combined.to(parameter.dtype).clone());
    }
    flat.dispose();
  }

  #scaleOwn(): void {
    if (this.#divisor === 1) return;
    for (const parameter of this.parameters) parameter.grad?.div_(this.#divisor);
  }
}
