import { FmoeError } from '../../errors.js';
import type { Tensor } from '../../tensor/tensor.js';
import { checkChoice } from '../check.js';
import { diagnose, requireDim, requireFloating, requireShape, requireTensors, shapeOf } from '../diagnose.js';
import { lazyOperator } from '../lazy-operator.js';

/** Overwrite the input instead of returning a new tensor. */
export interface InplaceOption {
  inplace?: boolean;
}

type Unary = [Tensor];

const reluOperator = lazyOperator<Unary>('aten::relu');
const reluInPlaceOperator = lazyOperator<Unary>('aten::relu_');
const geluOperator = lazyOperator<[Tensor, string]>('aten::gelu');
const siluOperator = lazyOperator<Unary>('aten::silu');
const siluInPlaceOperator = lazyOperator<Unary>('aten::silu_');
const sigmoidOperator = lazyOperator<Unary>('aten::sigmoid');
const tanhOperator = lazyOperator<Unary>('aten::tanh');
const softmaxOperator = lazyOperator<[Tensor, number, null]>('aten::softmax.int');
const logSoftmaxOperator = lazyOperator<[Tensor, number, null]>('aten::log_softmax.int');
const leakyReluOperator = lazyOperator<[Tensor, number]>('aten::leaky_relu');
const leakyReluInPlaceOperator = lazyOperator<[Tensor, number]>('aten::leaky_relu_');
const eluOperator = lazyOperator<[Tensor, number]>('aten::elu');
const eluInPlaceOperator = lazyOperator<[Tensor, number]>('aten::elu_');
const softplusOperator = lazyOperator<[Tensor, number, number]>('aten::softplus');
const gluOperator = lazyOperator<[Tensor, number]>('aten::glu');

/** max(x, 0). */
export function relu(input: Tensor, options: InplaceOption = {}): Tensor {
  return run('relu', input, () => (options.inplace ? reluInPlaceOperator(input) : reluOperator(input)));
}

/**
 * x Φ(x) with the normal distribution's Φ, exactly (`'none'`) or by the tanh formula (`'tanh'`)
 * (Hendrycks and Gimpel, 2016).
 */
export function gelu(input: Tensor, options: { approximate?: 'none' | 'tanh' } = {}): Tensor {
  const approximate = checkChoice('gelu', 'approximate', options.approximate ?? 'none', ['none', 'tanh']);
  return run('gelu', input, () => geluOperator(input, approximate));
}

/** x · sigmoid(x), also called swish. */
export function silu(input: Tensor, options: InplaceOption = {}): Tensor {
  return run('silu', input, () => (options.inplace ? siluInPlaceOperator(input) : siluOperator(input)));
}

/** 1 / (1 + exp(-x)). */
export function sigmoid(input: Tensor): Tensor {
  return run('sigmoid', input, () => sigmoidOperator(input));
}

/** The hyperbolic tangent. */
export function tanh(input: Tensor): Tensor {
  return run('tanh', input, () => tanhOperator(input));
}

/** exp(x) / Σ exp(x) along `dim`. */
export function softmax(input: Tensor, dim: number): Tensor {
  return run('softmax', input, () => softmaxOperator(input, checkDim('softmax', dim), null), dim);
}

/** log(softmax(x)) along `dim`, computed stably. */
export function logSoftmax(input: Tensor, dim: number): Tensor {
  return run('logSoftmax', input, () => logSoftmaxOperator(input, checkDim('logSoftmax', dim), null), dim);
}

/** x where x is positive, else `negativeSlope` · x. */
export function leakyRelu(input: Tensor, negativeSlope = 0.01, options: InplaceOption = {}): Tensor {
  return run('leakyRelu', input, () =>
    options.inplace
      ? leakyReluInPlaceOperator(input, negativeSlope)
      : leakyReluOperator(input, negativeSlope),
  );
}

/** x where x is positive, else `alpha` · (exp(x) - 1). */
export function elu(input: Tensor, alpha = 1, options: InplaceOption = {}): Tensor {
  return run('elu', input, () =>
    options.inplace ? eluInPlaceOperator(input, alpha) : eluOperator(input, alpha),
  );
}

/** log(1 + exp(beta · x)) / beta, and x itself where beta · x exceeds `threshold`. */
export function softplus(input: Tensor, beta = 1, threshold = 20): Tensor {
  return run('softplus', input, () => softplusOperator(input, beta, threshold));
}

/**
 * a · sigmoid(b), where a and b are the halves of the input along `dim` (Dauphin et al., 2016).
 *
 * @throws FmoeError `ERR_SHAPE` when the size along `dim` is odd.
 */
export function glu(input: Tensor, dim = -1): Tensor {
  try {
    return run('glu', input, () => gluOperator(input, dim), dim);
  } catch (error) {
    throw diagnose(error, () => {
      const size = input.shape.at(dim) ?? 0;
      requireShape(
        'glu',
        size % 2 === 0,
        `dimension ${dim} of ${shapeOf(input)} has size ${size} and cannot be halved.`,
        input,
      );
    });
  }
}

function run(name: string, input: Tensor, call: () => Tensor, dim?: number): Tensor {
  try {
    return call();
  } catch (error) {
    throw diagnose(error, () => {
      requireTensors(name, { input });
      if (dim !== undefined) requireDim(name, input, dim);
      requireFloating(name, { input });
    });
  }
}

function checkDim(operation: string, dim: number): number {
  if (Number.isSafeInteger(dim)) return dim;
  throw new FmoeError('ERR_ARGUMENT', `${operation}: dim must be given as an integer, got ${String(dim)}.`, {
    op: operation,
    argument: 'dim',
  });
}
