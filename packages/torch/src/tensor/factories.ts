import { checkOptions } from '../check.js';
import { describeValue } from '../describe.js';
import { op } from '../dispatch/op.js';
import { FmoeError } from '../errors.js';
import type { Generator } from '../random/generator.js';
import type { DType } from './dtype.js';
import type { Tensor } from './tensor.js';

export { type FromTypedArrayOptions, fromTypedArray, tensor } from './from-values.js';

/** How a new tensor is made. */
export interface TensorOptions {
  /** Default: float32, whatever the values, as JavaScript has no `1.0`; where a factory says otherwise, it says so. */
  dtype?: DType;
  /** Default: `cpu`. */
  device?: string;
  /** Default: false. */
  requiresGrad?: boolean;
}

/** Options of a factory that draws numbers. */
export interface RandomOptions extends TensorOptions {
  /** Default: the device's own generator. */
  generator?: Generator;
}

const defaults: TensorOptions = {};
const names = ['dtype', 'device', 'requiresGrad'];
const randomNames = [...names, 'generator'];

/** Calls the operator with the options, and makes what it gives a leaf that requires gradients if they say so. */
function make(
  factory: string,
  operator: string,
  args: readonly unknown[],
  options: RandomOptions,
  fallback: DType = 'float32',
): Tensor {
  if (options !== defaults) checkOptions(factory, options, operator.includes('rand') ? randomNames : names);
  const { dtype = fallback, device = 'cpu', requiresGrad, generator } = options;
  const named =
    generator === undefined || generator === null ? { dtype, device } : { dtype, device, generator };
  const made = op(operator)(...args, named) as Tensor;
  if (requiresGrad === undefined || requiresGrad === false) return made;
  try {
    return made.requiresGrad_(requiresGrad);
  } catch (error) {
    made.dispose();
    throw error;
  }
}

/** A tensor of the given shape filled with zeros. */
export function zeros(shape: readonly number[], options: TensorOptions = defaults): Tensor {
  return make('zeros', 'aten::zeros', [shape], options);
}

/** A tensor of the given shape filled with ones. */
export function ones(shape: readonly number[], options: TensorOptions = defaults): Tensor {
  return make('ones', 'aten::ones', [shape], options);
}

/** A tensor of the given shape with whatever was in memory. */
export function empty(shape: readonly number[], options: TensorOptions = defaults): Tensor {
  return make('empty', 'aten::empty.memory_format', [shape], options);
}

/** A tensor of the given shape filled with one value. */
export function full(
  shape: readonly number[],
  value: number | bigint | boolean,
  options: TensorOptions = defaults,
): Tensor {
  return make('full', 'aten::full', [shape, value], options);
}

/**
 * `[start, start + step, …)` up to but without `end`.
 *
 * @throws FmoeError `ERR_ARGUMENT` for a step of 0 or of the wrong sign, and for a fractional one under an integer dtype.
 */
export function arange(end: number, options?: TensorOptions): Tensor;
export function arange(start: number, end: number, options?: TensorOptions): Tensor;
export function arange(start: number, end: number, step: number, options?: TensorOptions): Tensor;
export function arange(...args: (number | TensorOptions | undefined)[]): Tensor {
  const last = args.at(-1);
  const options = typeof last === 'object' ? last : defaults;
  const numbers = (typeof last === 'object' ? args.slice(0, -1) : args).filter(
    (argument) => argument !== undefined,
  );
  if (numbers.length < 1 || numbers.length > 3 || numbers.some((number) => typeof number !== 'number')) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `arange: expected (end), (start, end) or (start, end, step) as numbers, got (${args.map(describeValue).join(', ')})`,
      { op: 'arange' },
    );
  }
  const [first, second, step = 1] = numbers;
  const [start, end] = second === undefined ? [0, first] : [first, second];
  return make('arange', 'aten::arange.start_step', [start, end, step], options);
}

/** `steps` values from `start` to `end`, both included. */
export function linspace(
  start: number,
  end: number,
  steps: number,
  options: TensorOptions = defaults,
): Tensor {
  return make('linspace', 'aten::linspace', [start, end, steps], options);
}

/** The identity matrix of n rows (and m columns). */
export function eye(n: number, options?: TensorOptions): Tensor;
export function eye(n: number, m: number, options?: TensorOptions): Tensor;
export function eye(n: number, m?: number | TensorOptions, options?: TensorOptions): Tensor {
  const isOptions = typeof m === 'object' && m !== null;
  return make(
    'eye',
    'aten::eye.m',
    [n, isOptions || m === undefined ? n : m],
    (isOptions ? m : options) ?? defaults,
  );
}

/** Draws from the uniform distribution on [0, 1). */
export function rand(shape: readonly number[], options: RandomOptions = defaults): Tensor {
  return draw('rand', '', [shape], options, 'float32');
}

/** Draws from the standard normal distribution. */
export function randn(shape: readonly number[], options: RandomOptions = defaults): Tensor {
  return draw('randn', '', [shape], options, 'float32');
}

/** Draws integers from [low, high). int64 unless a dtype is given. */
export function randint(
  low: number,
  high: number,
  shape: readonly number[],
  options: RandomOptions = defaults,
): Tensor {
  return draw('randint', 'low', [low, high, shape], options, 'int64');
}

/** A random permutation of 0 … n-1. int64 unless a dtype is given. */
export function randperm(n: number, options: RandomOptions = defaults): Tensor {
  return draw('randperm', '', [n], options, 'int64');
}

function draw(name: string, overload: string, args: unknown[], options: RandomOptions, dtype: DType): Tensor {
  const seeded = options?.generator !== undefined && options.generator !== null;
  const overloads = [overload, seeded ? 'generator' : ''].filter((part) => part !== '').join('_');
  return make(name, `aten::${name}${overloads === '' ? '' : `.${overloads}`}`, args, options, dtype);
}
