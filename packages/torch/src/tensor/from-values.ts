import { markAsUntransferable } from 'node:worker_threads';
import { checkOptions, checkShape } from '../check.js';
import { describeValue } from '../describe.js';
import { FmoeError } from '../errors.js';
import { native } from '../native/index.js';
import { type DType, dtypeCode, dtypeTraits, type TypedArray } from './dtype.js';
import type { TensorOptions } from './factories.js';
import type { Tensor } from './tensor.js';
import { guarded, wrap } from './tensor-base.js';

type Value = number | bigint | boolean;
type NestedValues = Value | readonly NestedValues[];

/** libtorch's kernels keep sets of dimensions in 64 bits. */
const maxDimensions = 64;

/**
 * A tensor of nested arrays of numbers, bigints or booleans. float32 unless a dtype is given.
 *
 * @throws FmoeError `ERR_SHAPE` when the arrays are ragged or nested deeper than 64 levels, `ERR_DTYPE` for a fraction or a
 * number out of range under an integer dtype, `ERR_ARGUMENT` for other values.
 */
export function tensor(values: NestedValues, options: TensorOptions = {}): Tensor {
  checkOptions('tensor', options, ['dtype', 'device', 'requiresGrad']);
  const { dtype = 'float32', device = 'cpu', requiresGrad = false } = options;
  const shape = shapeOf(values);
  const flat: Value[] = [];
  flatten(values, shape, 0, flat);
  const wide = dtypeTraits(dtype).isFloatingPoint
    ? fromTypedArray(Float64Array.from(flat, Number), shape)
    : fromTypedArray(BigInt64Array.from(flat, integerReader(dtype)), shape);
  // From the widest type of their class values go to the wanted dtype by libtorch's own conversion.
  let placed = wide;
  try {
    placed = wide.to({ dtype, device });
    return requiresGrad ? placed.requiresGrad_(requiresGrad) : placed;
  } catch (error) {
    placed.dispose();
    throw error;
  } finally {
    if (placed !== wide) wide.dispose();
  }
}

function shapeOf(values: NestedValues): number[] {
  const shape: number[] = [];
  for (let level: unknown = values; Array.isArray(level); level = level[0]) {
    shape.push(level.length);
    if (shape.length > maxDimensions) {
      throw new FmoeError('ERR_SHAPE', `tensor: the arrays are nested deeper than ${maxDimensions} levels`, {
        op: 'tensor',
      });
    }
  }
  return shape;
}

function flatten(values: NestedValues, shape: readonly number[], depth: number, flat: Value[]): void {
  if (Array.isArray(values)) {
    if (values.length !== shape[depth]) throw raggedError(shape);
    for (const value of values as readonly NestedValues[]) flatten(value, shape, depth + 1, flat);
    return;
  }
  if (typeof values !== 'number' && typeof values !== 'bigint' && typeof values !== 'boolean') {
    const hint = ArrayBuffer.isView(values) ? '. Use fromTypedArray() for typed arrays' : '';
    throw new FmoeError(
      'ERR_ARGUMENT',
      `tensor: expected numbers, bigints or booleans in nested arrays, got ${describeValue(values)}${hint}`,
      { op: 'tensor', argument: 'values' },
    );
  }
  if (depth !== shape.length) throw raggedError(shape);
  flat.push(values);
}

const raggedError = (shape: readonly number[]): FmoeError =>
  new FmoeError(
    'ERR_SHAPE',
    `tensor: the nested arrays are ragged; the first of each level give [${shape.join(', ')}]`,
    {
      op: 'tensor',
      shapes: [shape],
    },
  );

/** Reads values of an integer dtype (or bool, where everything but 0 is true). */
function integerReader(dtype: DType): (value: Value) => bigint {
  if (dtype === 'bool') return (value) => (Number(value) === 0 ? 0n : 1n);
  const { bytes } = dtypeTraits(dtype);
  const bits = BigInt(bytes * 8);
  const [low, high] = dtype === 'uint8' ? [0n, 255n] : [-(1n << (bits - 1n)), (1n << (bits - 1n)) - 1n];
  const fail = (value: Value, problem: string): never => {
    throw new FmoeError('ERR_DTYPE', `tensor: ${value} is ${problem} ${dtype}`, {
      op: 'tensor',
      dtypes: [dtype],
    });
  };
  return (value) => {
    if (typeof value === 'number' && !Number.isInteger(value))
      fail(value, 'not an integer, but the dtype is');
    const integer = BigInt(value);
    return integer < low || integer > high ? fail(value, `outside of the ${low} … ${high} of`) : integer;
  };
}

/** How typed-array data becomes a tensor. */
export interface FromTypedArrayOptions {
  /**
   * Default: what the array's class says. A Uint16Array holds the raw bits of `float16` or `bfloat16`, which must be named; a
   * Uint8Array may hold the raw bytes of any dtype.
   */
  dtype?: DType;
  /** Copy the data. Default: share memory, so that writing into one changes the other. */
  copy?: boolean;
}

const dtypeOfArray: readonly (readonly [new () => ArrayBufferView, DType])[] = [
  [Float32Array, 'float32'],
  [Float64Array, 'float64'],
  [BigInt64Array, 'int64'],
  [Int32Array, 'int32'],
  [Int16Array, 'int16'],
  [Int8Array, 'int8'],
  [Uint8Array, 'uint8'],
];

/**
 * A CPU tensor of a typed array's elements, row-major.
 *
 * Without `copy` the tensor keeps the ArrayBuffer alive and the two share memory; the buffer can then no longer be
 * transferred to another thread. Data that is not aligned to its elements, and memory of a SharedArrayBuffer or of a
 * resizable ArrayBuffer, is copied in any case.
 *
 * @param shape default: one dimension
 * @throws FmoeError `ERR_SHAPE` when the shape has another number of elements, `ERR_DTYPE` when the array cannot hold the
 * dtype, `ERR_ARGUMENT` for what is no typed array.
 */
export function fromTypedArray(
  array: TypedArray,
  shape?: readonly number[],
  options: FromTypedArrayOptions = {},
): Tensor {
  if (!ArrayBuffer.isView(array) || array instanceof DataView) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `fromTypedArray: expected a typed array, got ${describeValue(array)}`,
      {
        op: 'fromTypedArray',
        argument: 'array',
      },
    );
  }
  checkOptions('fromTypedArray', options, ['dtype', 'copy']);
  const dtype = dtypeFor(array, options.dtype);
  const { bytes } = dtypeTraits(dtype);
  const sizes = shape ?? [array.byteLength / bytes];
  checkShape('fromTypedArray', sizes);
  const elements = sizes.reduce((product, size) => product * size, 1);
  if (elements * bytes !== array.byteLength) {
    throw new FmoeError(
      'ERR_SHAPE',
      `fromTypedArray: the shape [${sizes.join(', ')}] needs ${elements} elements of ${dtype}, the array has ${array.byteLength / bytes}`,
      { op: 'fromTypedArray', shapes: [sizes] },
    );
  }
  // Memory that moves or shrinks cannot be lent.
  const source = isStable(array.buffer) ? array : Uint8Array.from(bytesOf(array));
  const { buffer, byteOffset, byteLength } = source;
  const copy = options.copy === true || byteOffset % bytes !== 0;
  const handle = guarded('fromTypedArray', () =>
    native().fromBuffer(buffer as ArrayBuffer, byteOffset, byteLength, sizes, dtypeCode(dtype), copy),
  );
  if (!copy) markAsUntransferable(buffer);
  return dtype === 'bool' ? normalised(wrap(handle), array, sizes) : wrap(handle);
}

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** Memory that stays where it is, as large as it is, for as long as somebody holds its ArrayBuffer. */
const isStable = (buffer: ArrayBufferLike): boolean =>
  buffer instanceof ArrayBuffer && (buffer as { resizable?: boolean }).resizable !== true;

function dtypeFor(array: ArrayBufferView, wanted: DType | undefined): DType {
  const natural = dtypeOfArray.find(([type]) => array instanceof type)?.[1];
  const name = array.constructor?.name ?? 'typed array';
  const fail = (problem: string): never => {
    throw new FmoeError('ERR_DTYPE', `fromTypedArray: ${problem}`, {
      op: 'fromTypedArray',
      argument: 'dtype',
    });
  };
  if (wanted === undefined)
    return (
      natural ?? fail(`the class ${name} does not say which dtype its elements are: give the option dtype`)
    );
  const { bytes, isFloatingPoint } = dtypeTraits(wanted);
  const holds =
    wanted === natural ||
    natural === 'uint8' ||
    (array instanceof Uint16Array && bytes === 2 && isFloatingPoint);
  return holds ? wanted : fail(`a ${name} cannot hold ${wanted}`);
}

/** A bool is 0 or 1 to libtorch, and any other byte undefined behaviour. */
function normalised(flags: Tensor, array: ArrayBufferView, shape: readonly number[]): Tensor {
  const values = bytesOf(array);
  if (values.every((value) => value <= 1)) return flags;
  flags.dispose();
  return fromTypedArray(
    Uint8Array.from(values, (value) => Math.min(value, 1)),
    shape,
    { dtype: 'bool' },
  );
}
