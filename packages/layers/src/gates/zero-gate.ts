/** Shape letters: T tokens, K top-k. */
import { full, type Tensor, zeros } from '@fmoe/torch';
import { checkTokens } from '../check.js';
import { BaseGate } from './base-gate.js';
import type { TokenRoute } from './route.js';

/** Sends every choice of every token to expert 0 with the score 1/K. For tests and measurements; it has no parameters. */
export class ZeroGate extends BaseGate {
  static override readonly optionNames: readonly string[] = super.optionNames;

  /**
   * @param x tokens `[T, D]`
   * @throws FmoeError `ERR_SHAPE` or `ERR_DTYPE` when `x` is no `[T, D]` of floating-point numbers.
   */
  override forward(x: Tensor): TokenRoute {
    checkTokens(this.constructor.name, x, this.dModel);
    const { device } = x;
    const shape = [x.shape[0]!, this.topK];
    const dtype = x.dtype === 'float64' ? 'float64' : 'float32';
    return {
      topIdx: zeros(shape, { dtype: 'int64', device }),
      topScore: full(shape, 1 / this.topK, { dtype, device }),
    };
  }
}
