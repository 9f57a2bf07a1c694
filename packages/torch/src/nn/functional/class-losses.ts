import { FmoeError } from '../../errors.js';
import type { Tensor } from '../../tensor/tensor.js';
import {
  diagnose,
  requireDtype,
  requireFloating,
  requireSameDevice,
  requireShape,
  requireTensors,
  sameShape,
  shapeOf,
} from '../diagnose.js';
import { guardIndices } from '../guard-indices.js';
import { lazyOperator } from '../lazy-operator.js';
import { type ReductionOption, reductionCode } from './losses.js';

const crossEntropyOperator =
  lazyOperator<[Tensor, Tensor, Tensor | null, number, number, number]>('aten::cross_entropy_loss');
const nllOperator = lazyOperator<[Tensor, Tensor, Tensor | null, number, number]>('aten::nll_loss_nd');

export interface NllLossOptions extends ReductionOption {
  /** Factor of each class `[C]`. */
  weight?: Tensor | null;
  /** Targets of this class count nothing. Default -100. */
  ignoreIndex?: number;
}

export interface CrossEntropyOptions extends NllLossOptions {
  /** Share of the target that is spread evenly over all classes, in [0, 1]. Default 0. */
  labelSmoothing?: number;
}

/**
 * Cross entropy between logits and classes: the negative log likelihood of log softmax(input).
 *
 * With `mean`, the divisor is the sum of the weights of the targets that count, so ignored targets change nothing.
 *
 * @param input logits `[C]`, `[T, C]` or `[T, C, d1, ...]`
 * @param target class indices, int64, of the input's shape without C; or class probabilities of the input's shape
 * @throws FmoeError `ERR_INDEX` for a class outside of `[0, C)` (on a GPU: at the next read), `ERR_SHAPE`, `ERR_DTYPE`,
 * `ERR_ARGUMENT` for `labelSmoothing` outside of [0, 1].
 */
export function crossEntropy(input: Tensor, target: Tensor, options: CrossEntropyOptions = {}): Tensor {
  const { weight = null, ignoreIndex = -100, labelSmoothing = 0, reduction } = options;
  const code = reductionCode('crossEntropy', reduction);
  if (!(labelSmoothing >= 0 && labelSmoothing <= 1)) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `crossEntropy: labelSmoothing must lie between 0 and 1, got ${labelSmoothing}.`,
      { op: 'crossEntropy', argument: 'labelSmoothing' },
    );
  }
  try {
    const classes = guardClasses('crossEntropy', input, target, ignoreIndex);
    return crossEntropyOperator(input, classes, weight, code, ignoreIndex, labelSmoothing);
  } catch (error) {
    throw diagnose(error, () => checkClassLoss('crossEntropy', input, target, weight, true));
  }
}

/**
 * The negative log likelihood: -input[target], weighted by class.
 *
 * @param input log probabilities `[C]`, `[T, C]` or `[T, C, d1, ...]`
 * @param target class indices, int64, of the input's shape without C
 * @throws FmoeError `ERR_INDEX` for a class outside of `[0, C)` (on a GPU: at the next read), `ERR_SHAPE`, `ERR_DTYPE`.
 */
export function nllLoss(input: Tensor, target: Tensor, options: NllLossOptions = {}): Tensor {
  const { weight = null, ignoreIndex = -100, reduction } = options;
  const code = reductionCode('nllLoss', reduction);
  try {
    const classes = guardClasses('nllLoss', input, target, ignoreIndex);
    return nllOperator(input, classes, weight, code, ignoreIndex);
  } catch (error) {
    throw diagnose(error, () => checkClassLoss('nllLoss', input, target, weight, false));
  }
}

function guardClasses(operation: string, input: Tensor, target: Tensor, ignoreIndex: number): Tensor {
  const classes = input.shape[input.ndim === 1 ? 0 : 1] ?? 0;
  return guardIndices(operation, target, classes, ignoreIndex);
}

function checkClassLoss(
  operation: string,
  input: Tensor,
  target: Tensor,
  weight: Tensor | null,
  probabilities: boolean,
): void {
  requireTensors(operation, { input, target }, { weight });
  requireSameDevice(operation, { input, target, weight });
  requireFloating(operation, { input });
  requireShape(operation, input.ndim > 0, 'input needs a dimension of classes.', input);
  const classDim = input.ndim === 1 ? 0 : 1;
  const classes = input.shape[classDim];
  if (probabilities && sameShape(input.shape, target.shape)) {
    requireFloating(operation, { target });
  } else {
    const expected = input.shape.filter((_, dim) => dim !== classDim);
    const alternative = probabilities ? ' (or the shape of the input, for probabilities)' : '';
    requireShape(
      operation,
      sameShape(target.shape, expected),
      `for input ${shapeOf(input)} the target must be [${expected.join(', ')}]${alternative}, got ${shapeOf(target)}.`,
      input,
      target,
    );
    requireDtype(operation, 'target', target, ['int64']);
  }
  if (!weight) return;
  requireShape(
    operation,
    sameShape(weight.shape, [classes ?? 0]),
    `weight must have one value for each of the ${classes} classes, got ${shapeOf(weight)}.`,
    weight,
    input,
  );
  requireDtype(operation, 'weight', weight, [input.dtype]);
}
