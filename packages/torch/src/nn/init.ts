import { noGrad } from '../autograd/index.js';
import { FmoeError } from '../errors.js';
import { tidy } from '../scope.js';
import { tensor as makeTensor } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { checkChoice, checkNumber, checkTensor } from './check.js';
import { requireFloating, requireShape, shapeOf } from './diagnose.js';
import { lazyOperator } from './lazy-operator.js';

/*
 * Initial values, drawn by the same operators in the same order as PyTorch draws them, so that one seed gives the same
 * bits. Every function fills its tensor in place, outside of autograd, and returns it.
 */

const qrOperator = lazyOperator<[Tensor], [Tensor, Tensor]>('aten::linalg_qr');

/** Activations for which {@link calculateGain} knows a gain. */
export type Nonlinearity =
  | 'linear'
  | 'conv1d'
  | 'conv2d'
  | 'conv3d'
  | 'conv_transpose1d'
  | 'conv_transpose2d'
  | 'conv_transpose3d'
  | 'sigmoid'
  | 'tanh'
  | 'relu'
  | 'leaky_relu'
  | 'selu';

const NONLINEARITIES: readonly Nonlinearity[] = [
  'linear',
  'conv1d',
  'conv2d',
  'conv3d',
  'conv_transpose1d',
  'conv_transpose2d',
  'conv_transpose3d',
  'sigmoid',
  'tanh',
  'relu',
  'leaky_relu',
  'selu',
];

/**
 * The gain that keeps the variance of activations through a nonlinearity: 1 for linear maps and the sigmoid, 5/3 for
 * tanh, √2 for ReLU, √(2 / (1 + slope²)) for the leaky ReLU, 3/4 for SELU.
 *
 * @param slope the leaky ReLU's negative slope, default 0.01
 * @throws FmoeError `ERR_ARGUMENT` for any other name.
 */
export function calculateGain(nonlinearity: Nonlinearity, slope = 0.01): number {
  checkChoice('calculateGain', 'nonlinearity', nonlinearity, NONLINEARITIES);
  if (nonlinearity === 'tanh') return 5 / 3;
  if (nonlinearity === 'relu') return Math.sqrt(2);
  if (nonlinearity === 'selu') return 3 / 4;
  if (nonlinearity === 'leaky_relu') {
    return Math.sqrt(2 / (1 + checkNumber('calculateGain', 'slope', slope) ** 2));
  }
  return 1;
}

/**
 * How many inputs and outputs one unit of a weight `[out, in, *kernel]` is connected to.
 *
 * @throws FmoeError `ERR_SHAPE` for fewer than two dimensions.
 */
export function calculateFanInAndFanOut(weight: Tensor): { fanIn: number; fanOut: number } {
  checkTensor('calculateFanInAndFanOut', 'weight', weight);
  const [out, into, ...kernel] = weight.shape;
  if (out === undefined || into === undefined) {
    requireShape(
      'calculateFanInAndFanOut',
      false,
      `a weight needs two dimensions or more, got ${shapeOf(weight)}.`,
      weight,
    );
    return { fanIn: 0, fanOut: 0 };
  }
  const field = kernel.reduce((product, size) => product * size, 1);
  return { fanIn: into * field, fanOut: out * field };
}

/** Draws from the uniform distribution over [a, b). */
export function uniform_<T extends Tensor>(tensor: T, a = 0, b = 1): T {
  checkDraw('uniform_', tensor, a <= b, `the bounds must be ordered, got ${a} and ${b}`);
  return fill('uniform_', tensor, () => tensor.uniform_(a, b));
}

/** Draws from the normal distribution. */
export function normal_<T extends Tensor>(tensor: T, mean = 0, std = 1): T {
  checkDraw('normal_', tensor, std >= 0, `std must not be negative, got ${std}`);
  return fill('normal_', tensor, () => tensor.normal_(mean, std));
}

/** Fills with one value. */
export function constant_<T extends Tensor>(tensor: T, value: number): T {
  return fill('constant_', tensor, () => tensor.fill_(value));
}

/** Fills with ones. */
export function ones_<T extends Tensor>(tensor: T): T {
  return fill('ones_', tensor, () => tensor.fill_(1));
}

/** Fills with zeros. */
export function zeros_<T extends Tensor>(tensor: T): T {
  return fill('zeros_', tensor, () => tensor.zero_());
}

/** Ones on the diagonal of a matrix, zeros elsewhere. */
export function eye_<T extends Tensor>(tensor: T): T {
  return fill('eye_', tensor, () => {
    requireShape('eye_', tensor.ndim === 2, `expected a matrix, got ${shapeOf(tensor)}.`, tensor);
    tensor.zero_();
    tensor.diagonal().fill_(1);
  });
}

/** Glorot and Bengio (2010): uniform in ±gain · √(6 / (fanIn + fanOut)). */
export function xavierUniform_<T extends Tensor>(tensor: T, options: { gain?: number } = {}): T {
  const { fanIn, fanOut } = calculateFanInAndFanOut(tensor);
  const std = (options.gain ?? 1) * Math.sqrt(2 / (fanIn + fanOut));
  const bound = Math.sqrt(3) * std;
  return uniform_(tensor, -bound, bound);
}

/** Glorot and Bengio (2010): normal with deviation gain · √(2 / (fanIn + fanOut)). */
export function xavierNormal_<T extends Tensor>(tensor: T, options: { gain?: number } = {}): T {
  const { fanIn, fanOut } = calculateFanInAndFanOut(tensor);
  return normal_(tensor, 0, (options.gain ?? 1) * Math.sqrt(2 / (fanIn + fanOut)));
}

export interface KaimingOptions {
  /** Negative slope of the leaky ReLU that follows. Default 0. */
  a?: number;
  /** Keep the variance in the forward (`fan_in`, the default) or the backward pass. */
  mode?: 'fan_in' | 'fan_out';
  /** Default `leaky_relu`. */
  nonlinearity?: Nonlinearity;
}

/** He et al. (2015): uniform in ±gain · √(3 / fan). */
export function kaimingUniform_<T extends Tensor>(tensor: T, options: KaimingOptions = {}): T {
  if (isEmpty(tensor)) return tensor;
  const bound = Math.sqrt(3) * kaimingDeviation(tensor, options);
  return uniform_(tensor, -bound, bound);
}

/** He et al. (2015): normal with deviation gain / √fan. */
export function kaimingNormal_<T extends Tensor>(tensor: T, options: KaimingOptions = {}): T {
  if (isEmpty(tensor)) return tensor;
  return normal_(tensor, 0, kaimingDeviation(tensor, options));
}

export interface TruncatedNormalOptions {
  /** Default 0. */
  mean?: number;
  /** Default 1. */
  std?: number;
  /** Lower bound. Default -2. */
  a?: number;
  /** Upper bound. Default 2. */
  b?: number;
}

/** Draws from a normal distribution cut off at `a` and `b`, by the inverse of its distribution function. */
export function truncNormal_<T extends Tensor>(tensor: T, options: TruncatedNormalOptions = {}): T {
  const { mean = 0, std = 1, a = -2, b = 2 } = options;
  checkDraw(
    'truncNormal_',
    tensor,
    std > 0 && a < b,
    `std must be positive and a below b, got ${std}, ${a}, ${b}`,
  );
  return fill('truncNormal_', tensor, () => {
    const lower = normalCdf((a - mean) / std);
    const upper = normalCdf((b - mean) / std);
    tensor.uniform_(2 * lower - 1, 2 * upper - 1);
    tensor.erfinv_();
    tensor.mul_(std * Math.SQRT2);
    tensor.add_(mean);
    tensor.clamp_(a, b);
  });
}

/**
 * Saxe et al. (2013): a matrix with orthonormal rows or columns, times `gain`; dimensions after the first count as one.
 */
export function orthogonal_<T extends Tensor>(tensor: T, options: { gain?: number } = {}): T {
  const gain = options.gain ?? 1;
  return fill('orthogonal_', tensor, () => {
    requireFloating('orthogonal_', { tensor });
    requireShape(
      'orthogonal_',
      tensor.ndim >= 2,
      `expected two dimensions or more, got ${shapeOf(tensor)}.`,
      tensor,
    );
    if (tensor.numel() === 0) return;
    const rows = tensor.shape[0] as number;
    const columns = tensor.numel() / rows;
    const flat = tensor.newEmpty([rows, columns]).normal_(0, 1);
    const [q, r] = qrOperator(rows < columns ? flat.t() : flat);
    // Makes the result uniform over all orthogonal matrices (Mezzadri, 2006).
    q.mul_(r.diag(0).sign());
    const shaped = (rows < columns ? q.t() : q).reshape([...tensor.shape]);
    tensor.copy_(shaped).mul_(gain);
  });
}

function kaimingDeviation(tensor: Tensor, options: KaimingOptions): number {
  const { a = 0, mode = 'fan_in', nonlinearity = 'leaky_relu' } = options;
  checkChoice('kaiming', 'mode', mode, ['fan_in', 'fan_out']);
  const { fanIn, fanOut } = calculateFanInAndFanOut(tensor);
  const fan = mode === 'fan_in' ? fanIn : fanOut;
  return calculateGain(nonlinearity, a) / Math.sqrt(fan);
}

function isEmpty(tensor: Tensor): boolean {
  return checkTensor('kaiming', 'tensor', tensor).shape.includes(0);
}

/** The distribution function of the standard normal distribution. */
function normalCdf(x: number): number {
  const erf = tidy(() =>
    makeTensor(x / Math.SQRT2, { dtype: 'float64' })
      .erf()
      .item(),
  );
  return (1 + erf) / 2;
}

function checkDraw(operation: string, tensor: Tensor, holds: boolean, problem: string): void {
  checkTensor(operation, 'tensor', tensor);
  requireFloating(operation, { tensor });
  if (holds) return;
  throw new FmoeError('ERR_ARGUMENT', `${operation}: ${problem}.`, { op: operation });
}

function fill<T extends Tensor>(operation: string, tensor: T, write: () => void): T {
  checkTensor(operation, 'tensor', tensor);
  tidy(() => {
    noGrad(() => {
      write();
    });
  });
  return tensor;
}
