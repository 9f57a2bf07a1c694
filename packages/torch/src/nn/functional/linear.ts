import type { Tensor } from '../../tensor/tensor.js';
import {
  diagnose,
  requireSameDevice,
  requireSameDtype,
  requireShape,
  requireTensors,
  sameShape,
  shapeOf,
} from '../diagnose.js';
import { lazyOperator } from '../lazy-operator.js';

const linearOperator = lazyOperator<[Tensor, Tensor, Tensor | null]>('aten::linear');

/**
 * y = x Aᵀ + b.
 *
 * @param input `[..., in]`
 * @param weight `[out, in]`, or `[in]`
 * @param bias `[out]`
 * @returns `[..., out]`
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE` or `ERR_DEVICE` when the tensors do not go together.
 */
export function linear(input: Tensor, weight: Tensor, bias: Tensor | null = null): Tensor {
  try {
    return linearOperator(input, weight, bias);
  } catch (error) {
    throw diagnose(error, () => checkLinear(input, weight, bias));
  }
}

function checkLinear(input: Tensor, weight: Tensor, bias: Tensor | null): void {
  const tensors = { input, weight, bias };
  requireTensors('linear', { input, weight }, { bias });
  requireSameDevice('linear', tensors);
  const features = weight.shape.at(-1);
  requireShape(
    'linear',
    input.ndim > 0 && input.shape.at(-1) === features,
    `input has ${input.shape.at(-1) ?? 'no'} features, expected ${features}. ` +
      `The last dimension of the input (${shapeOf(input)}) must equal that of the weight (${shapeOf(weight)}).`,
    input,
    weight,
  );
  if (bias) {
    requireShape(
      'linear',
      sameShape(bias.shape, weight.shape.slice(0, -1)),
      `bias ${shapeOf(bias)} does not fit weight ${shapeOf(weight)}; expected [${weight.shape.slice(0, -1).join(', ')}].`,
      bias,
      weight,
    );
  }
  requireSameDtype('linear', tensors);
}
