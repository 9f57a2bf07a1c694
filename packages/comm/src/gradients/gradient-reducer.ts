import { FmoeError, type Tensor } from '@fmoe/torch';
import type { ProcessGroup } from '../groups/process-group.js';
import { commOperator } from '../load.js';

/** Parameters whose gradients travel together: of one dtype and on one device. */
export interface GradientBucket {
  readonly parameters: readonly Tensor[];
  /** The ranks that have the same parameters; null when no other rank has them. */
  readonly group: ProcessGroup | null;
  /** What the sum over the group is divided by. */
  readonly divisor: number;
}

/** Settings of {@link GradientReducer}. */
export interface GradientReducerOptions {
  /** Divide after adding up, rather than before, which rounds less but may overflow in half precision. Default false. */
  divideAfter?: boolean;
  /** Add up in float32 what is in half precision. Default false. */
  widen?: boolean;
  /**
   * Begin while backward is at work, from the second {@link GradientReducer.finish} on. No other operations may use the buckets'
   * groups in a backward then. Default false.
   */
  overlap?: boolean;
}

/** Frees the native part of reducers that nobody disposed of. */
const forgotten = new FinalizationRegistry<number>((id) => {
  commOperator('remove_gradient_reducer')(id);
});

/**
 * Combines gradients over groups, bucket by bucket, in native code: hooks start a bucket in the backward that completes it. Buckets
 * start in one order on all ranks: one whose gradients are complete waits for those before it. A parameter without gradient counts
 * as zeros, and gets one if any rank has one.
 *
 * All ranks make the same buckets, and call {@link finish} equally often. A backward that throws after buckets have started gives up
 * the step: other ranks that go on with it get NaN.
 *
 * @example
 * const reducer = new GradientReducer([{ parameters, group: world, divisor: world.size }], { overlap: true });
 * loss.backward();
 * reducer.finish();
 * optimizer.step();
 */
export class GradientReducer {
  readonly #id: number;
  #pauses = 0;

  /** @throws FmoeError `ERR_ARGUMENT` for a bucket without parameters, or with such that differ in dtype or device */
  constructor(buckets: readonly GradientBucket[], options: GradientReducerOptions = {}) {
    if (buckets.some(({ parameters }) => parameters.length === 0)) {
      throw new FmoeError('ERR_ARGUMENT', 'GradientReducer: a bucket has no parameters', {
        op: 'GradientReducer',
        argument: 'buckets',
      });
    }
    this.#id = commOperator('make_gradient_reducer')(
      buckets.flatMap(({ parameters }) => parameters),
      buckets.map(({ parameters }) => parameters.length),
      buckets.map(({ group }) => group?.id ?? 0),
      buckets.map(({ divisor }) => divisor),
      options.divideAfter ?? false,
      options.widen ?? false,
      // Ranks that compare what they do wait for each other, which a hook must not.
      (options.overlap ?? false) && process.env['FMOE_COMM_DEBUG'] !== '1',
    ) as number;
    forgotten.register(this, this.#id, this);
  }

  /** The number of buckets that have started since the last {@link finish}. */
  get started(): number {
    return commOperator('started_gradient_buckets')(this.#id) as number;
  }

  /** Runs `body`, whose backward only adds up gradients. */
  pause<Result>(body: () => Result): Result {
    if (this.#pauses++ === 0) commOperator('pause_gradient_reducer')(this.#id, true);
    try {
      return body();
    } finally {
      if (--this.#pauses === 0) commOperator('pause_gradient_reducer')(this.#id, false);
    }
  }

  /**
   * Starts what backward has not started, waits, and leaves the combined gradients in the parameters. On a GPU the host waits only
   * for what this rank has no gradient of.
   *
   * @throws FmoeError `ERR_COMM` when it failed, here or during backward
   */
  finish(): void {
    commOperator('finish_gradient_reducer')(this.#id);
  }

  /** Takes the hooks off the parameters and frees the buffers. */
  dispose(): void {
    forgotten.unregister(this);
    commOperator('remove_gradient_reducer')(this.#id);
  }
}
