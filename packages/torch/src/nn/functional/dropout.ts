import type { Tensor } from '../../tensor/tensor.js';
import { checkProbability } from '../check.js';
import { diagnose, requireFloating, requireTensors } from '../diagnose.js';
import { lazyOperator } from '../lazy-operator.js';

const dropoutOperator = lazyOperator<[Tensor, number, boolean]>('aten::dropout');
const dropoutInPlaceOperator = lazyOperator<[Tensor, number, boolean]>('aten::dropout_');

/**
 * Zeroes elements with probability `p` and scales the rest by 1 / (1 - p), while training; else the identity.
 *
 * @param input any shape, floating-point
 * @throws FmoeError `ERR_ARGUMENT` when `p` is not in [0, 1], `ERR_DTYPE` for integers.
 */
export function dropout(
  input: Tensor,
  p = 0.5,
  training = true,
  options: { inplace?: boolean } = {},
): Tensor {
  checkProbability('dropout', 'p', p);
  try {
    return options.inplace ? dropoutInPlaceOperator(input, p, training) : dropoutOperator(input, p, training);
  } catch (error) {
    throw diagnose(error, () => {
      requireTensors('dropout', { input });
      requireFloating('dropout', { input });
    });
  }
}
