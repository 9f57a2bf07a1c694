import { type DType, dtypeCode, dtypeTraits, type TypedArray } from './dtype.js';
import { FmoeError } from './errors.js';
import type { Generator } from './generator.js';
import { native } from './native/index.js';
import { op } from './op.js';
import type { Tensor } from './tensor.js';
import { guarded, wrap } from './tensor-base.js';

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

type NestedValues = number | bigint | boolean | readonly NestedValues[];

const finish = (tensor: Tensor, options: TensorOptions): Tensor =>
  options.requiresGrad ? tensor.requiresGrad_() : tensor;

const named = ({ dtype, device }: TensorOptions, fallback: DType = 'float32') => ({
  dtype: dtype ?? fallback,
  device: device ?? 'cpu',
});

/** A tensor of the given shape filled with zeros. */
export function zeros(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return finish(op('aten::zeros')(shape, named(options)), options);
}

/** A tensor of the given shape filled with ones. */
export function ones(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return finish(op('aten::ones')(shape, named(options)), options);
}

/** A tensor of the given shape with whatever was in memory. */
export function empty(shape: readonly number[], options: TensorOptions = {}): Tensor {
  return finish(op('aten::empty.memory_format')(shape, named(options)), options);
}

/** A tensor of the given shape filled with one value. */
export function full(
  shape: readonly number[],
  value: number | bigint | boolean,
  options: TensorOptions = {},
): Tensor {
  return finish(op('aten::full')(shape, value, named(options)), options);
}

/** `[start, start + step, …)` up to but without `end`. */
export function arange(end: number, options?: TensorOptions): Tensor;
export function arange(start: number, end: number, options?: TensorOptions): Tensor;
export function arange(start: number, end: number, step: number, options?: TensorOptions): Tensor;
export function arange(...args: (number | TensorOptions | undefined)[]): Tensor {
  const numbers = args.filter((argument) => typeof argument === 'number');
  const options = (args.find((argument) => typeof argument === 'object') ?? {}) as TensorOptions;
  const [first, second, step = 1] = numbers;
  const [start, end] = second === undefined ? [0, first] : [first, second];
  return finish(op('aten::arange.start_step')(start, end, step, named(options)), options);
}

/** `steps` values from `start` to `end`, both included. */
export function linspace(start: number, end: number, steps: number, options: TensorOptions = {}): Tensor {
  return finish(op('aten::linspace')(start, end, steps, named(options)), options);
}

/** The identity matrix of n rows (and m columns). */
export function eye(n: number, options?: TensorOptions): Tensor;
export function eye(n: number, m: number, options?: TensorOptions): Tensor;
export function eye(n: number, m?: number | TensorOptions, options?: TensorOptions): Tensor {
  const columns = typeof m === 'number' ? m : n;
  const chosen = (typeof m === 'object' ? m : options) ?? {};
  return finish(op('aten::eye.m')(n, columns, named(chosen)), chosen);
}

/** Draws from the uniform distribution on [0, 1). */
export function rand(shape: readonly number[], options: RandomOptions = {}): Tensor {
  return finish(draw('rand', [shape], options, 'float32'), options);
}

/** Draws from the standard normal distribution. */
export function randn(shape: readonly number[], options: RandomOptions = {}): Tensor {
  return finish(draw('randn', [shape], options, 'float32'), options);
}

/** Draws integers from [low, high). int64 unless a dtype is given. */
export function randint(
  low: number,
  high: number,
  shape: readonly number[],
  options: RandomOptions = {},
): Tensor {
  const generator = options.generator;
  return generator === undefined
    ? op('aten::randint.low')(low, high, shape, named(options, 'int64'))
    : op('aten::randint.low_generator')(low, high, shape, { generator, ...named(options, 'int64') });
}

/** A random permutation of 0 … n-1. int64 unless a dtype is given. */
export function randperm(n: number, options: RandomOptions = {}): Tensor {
  return draw('randperm', [n], options, 'int64');
}

function draw(name: string, args: unknown[], options: RandomOptions, dtype: DType): Tensor {
  const { generator } = options;
  return generator === undefined
    ? op(`aten::${name}`)(...args, named(options, dtype))
    : op(`aten::${name}.generator`)(...args, { generator, ...named(options, dtype) });
}

/**
 * A tensor of nested arrays of numbers, bigints or booleans. float32 unless a dtype is given.
 *
 * @throws FmoeError `ERR_SHAPE` when the arrays are ragged, `ERR_ARGUMENT` for other values.
 */
export function tensor(values: NestedValues, options: TensorOptions = {}): Tensor {
  const shape: number[] = [];
  for (
    let level: NestedValues | undefined = values;
    Array.isArray(level);
    level = level[0] as NestedValues | undefined
  ) {
    shape.push(level.length);
  }
  const flat: (number | bigint | boolean)[] = [];
  flatten(values, shape, 0, flat);
  const dtype = options.dtype ?? 'float32';
  const wide = fillFrom(flat, dtype, shape);
  const placed = wide.to({ dtype, device: options.device ?? 'cpu' });
  if (placed !== wide) wide.dispose();
  return finish(placed, options);
}

function flatten(
  values: NestedValues,
  shape: readonly number[],
  depth: number,
  flat: (number | bigint | boolean)[],
): void {
  if (!Array.isArray(values)) {
    if (depth !== shape.length) throw raggedError(shape);
    if (typeof values !== 'number' && typeof values !== 'bigint' && typeof values !== 'boolean') {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `tensor(): expected numbers, bigints or booleans, got ${String(values)}`,
        { op: 'tensor' },
      );
    }
    flat.push(values);
    return;
  }
  if (values.length !== shape[depth]) throw raggedError(shape);
  for (const value of values as readonly NestedValues[]) flatten(value, shape, depth + 1, flat);
}

const raggedError = (shape: readonly number[]): FmoeError =>
  new FmoeError(
    'ERR_SHAPE',
    `tensor(): the nested arrays are ragged; the first of each level give [${shape.join(', ')}]`,
    {
      op: 'tensor',
      shapes: [shape],
    },
  );

/** Values go through the widest type of their class, so that the conversion to the wanted dtype is libtorch's. */
function fillFrom(
  values: readonly (number | bigint | boolean)[],
  dtype: DType,
  shape: readonly number[],
): Tensor {
  if (dtypeTraits(dtype).isFloatingPoint) return fromTypedArray(Float64Array.from(values, Number), shape);
  const integers = BigInt64Array.from(values, (value) => {
    if (typeof value === 'number' && !Number.isInteger(value)) {
      if (dtype === 'bool') return 1n;
      throw new FmoeError('ERR_DTYPE', `tensor(): ${value} is not an integer, but the dtype is ${dtype}`, {
        op: 'tensor',
      });
    }
    return BigInt(value);
  });
  return fromTypedArray(integers, shape);
}

/** How typed-array data becomes a tensor. */
export interface FromTypedArrayOptions {
  /** Default: what the array's class says; `bool` of a Uint8Array, `float16` or `bfloat16` of a Uint16Array must be named. */
  dtype?: DType;
  /** Copy the data. Default: share memory, so that writing into one changes the other. */
  copy?: boolean;
}

const dtypeOfArray = new Map<unknown, DType>([
  [Float32Array, 'float32'],
  [Float64Array, 'float64'],
  [BigInt64Array, 'int64'],
  [Int32Array, 'int32'],
  [Int16Array, 'int16'],
  [Int8Array, 'int8'],
  [Uint8Array, 'uint8'],
]);

/**
 * A CPU tensor of a typed array's elements, row-major.
 *
 * @param shape default: one dimension
 * @throws FmoeError `ERR_SHAPE` when the shape has another number of elements, `ERR_DTYPE` when the array cannot hold the
 * dtype.
 */
export function fromTypedArray(
  array: TypedArray,
  shape: readonly number[] = [array.length],
  options: FromTypedArrayOptions = {},
): Tensor {
  const dtype = options.dtype ?? dtypeOfArray.get(array.constructor);
  if (dtype === undefined) {
    throw new FmoeError(
      'ERR_DTYPE',
      `fromTypedArray(): give the dtype of a ${array?.constructor?.name ?? String(array)}`,
      {
        op: 'fromTypedArray',
      },
    );
  }
  const { bytes } = dtypeTraits(dtype);
  if (array.BYTES_PER_ELEMENT !== bytes && array.BYTES_PER_ELEMENT !== 1) {
    throw new FmoeError('ERR_DTYPE', `fromTypedArray(): a ${array.constructor.name} cannot hold ${dtype}`, {
      op: 'fromTypedArray',
    });
  }
  const elements = shape.reduce((product, size) => product * size, 1);
  if (shape.some((size) => size < 0 || !Number.isInteger(size)) || elements * bytes !== array.byteLength) {
    throw new FmoeError(
      'ERR_SHAPE',
      `fromTypedArray(): the shape [${shape.join(', ')}] needs ${elements} elements of ${dtype}, the array has ${array.byteLength / bytes}`,
      { op: 'fromTypedArray', shapes: [shape] },
    );
  }
  return wrap(
    guarded('fromTypedArray', () =>
      native().fromBuffer(
        array.buffer as ArrayBuffer,
        array.byteOffset,
        array.byteLength,
        shape,
        dtypeCode(dtype),
        // libtorch wants elements aligned to their size; shared memory has no references to count.
        options.copy === true || array.byteOffset % bytes !== 0 || array.buffer instanceof SharedArrayBuffer,
      ),
    ),
  );
}
