import type { Tensor } from '../../tensor/tensor.js';
import {
  diagnose,
  requireFloating,
  requireSameDevice,
  requireSameDtype,
  requireShape,
  requireTensors,
  sameShape,
  shapeOf,
} from '../diagnose.js';
import { lazyOperator } from '../lazy-operator.js';

type MaybeTensor = Tensor | null;

const layerNormOperator =
  lazyOperator<[Tensor, readonly number[], MaybeTensor, MaybeTensor, number, boolean]>('aten::layer_norm');
const rmsNormOperator =
  lazyOperator<[Tensor, readonly number[], MaybeTensor, number | null]>('aten::rms_norm');

/**
 * Layer normalisation (Ba, Kiros and Hinton, 2016): y = (x - mean) / sqrt(var + eps) · weight + bias, with mean and
 * biased variance over the last dimensions.
 *
 * @param input `[..., *normalizedShape]`
 * @param normalizedShape the sizes of the dimensions that are normalised
 * @param weight `[*normalizedShape]`
 * @param bias `[*normalizedShape]`
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE` or `ERR_DEVICE` when the tensors do not go together.
 */
export function layerNorm(
  input: Tensor,
  normalizedShape: readonly number[],
  weight: MaybeTensor = null,
  bias: MaybeTensor = null,
  eps = 1e-5,
): Tensor {
  try {
    return layerNormOperator(input, normalizedShape, weight, bias, eps, true);
  } catch (error) {
    throw diagnose(error, () => checkNorm('layerNorm', normalizedShape, { input, weight, bias }));
  }
}

/**
 * Root-mean-square normalisation (Zhang and Sennrich, 2019): y = x / sqrt(mean(x²) + eps) · weight.
 *
 * @param input `[..., *normalizedShape]`
 * @param normalizedShape the sizes of the dimensions that are normalised
 * @param weight `[*normalizedShape]`
 * @param eps null means the machine epsilon of the input's dtype
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE` or `ERR_DEVICE` when the tensors do not go together.
 */
export function rmsNorm(
  input: Tensor,
  normalizedShape: readonly number[],
  weight: MaybeTensor = null,
  eps: number | null = null,
): Tensor {
  try {
    return rmsNormOperator(input, normalizedShape, weight, eps);
  } catch (error) {
    throw diagnose(error, () => checkNorm('rmsNorm', normalizedShape, { input, weight, bias: null }));
  }
}

function checkNorm(
  operation: string,
  normalizedShape: readonly number[],
  tensors: { input: Tensor; weight: MaybeTensor; bias: MaybeTensor },
): void {
  const { input, weight, bias } = tensors;
  requireTensors(operation, { input }, { weight, bias });
  requireSameDevice(operation, tensors);
  const wanted = `[${normalizedShape.join(', ')}]`;
  const tail = input.shape.slice(Math.max(input.ndim - normalizedShape.length, 0));
  requireShape(
    operation,
    sameShape(tail, normalizedShape),
    `input ${shapeOf(input)} must end in the normalized shape ${wanted}.`,
    input,
  );
  for (const [name, tensor] of [['weight', weight] as const, ['bias', bias] as const]) {
    if (!tensor) continue;
    requireShape(
      operation,
      sameShape(tensor.shape, normalizedShape),
      `${name} ${shapeOf(tensor)} must have the normalized shape ${wanted}.`,
      tensor,
    );
  }
  requireFloating(operation, tensors);
  requireSameDtype(operation, tensors);
}
