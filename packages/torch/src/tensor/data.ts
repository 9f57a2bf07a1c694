import { raiseDeviceErrors } from '../devices/device-errors.js';
import { op } from '../dispatch/op.js';
import { FmoeError } from '../errors.js';
import { native } from '../native/index.js';
import { type DType, dtypeTraits, type TypedArray } from './dtype.js';
import type { Tensor } from './tensor.js';
import { guarded, type TensorBase, toFmoeError, wrap } from './tensor-base.js';

/** What `toArray()` gives. */
export type NestedArray = number | bigint | boolean | NestedArray[];

type Value = number | bigint | boolean;

/** @internal See `Tensor.data`. */
export function readData(tensor: TensorBase): TypedArray {
  raiseDeviceErrors();
  const { array } = dtypeTraits(tensor.dtype);
  return new array(guarded('data', () => native().toBuffer(tensor.handle), [tensor]));
}

/** @internal See `Tensor.item`. */
export function readItem(tensor: TensorBase): number {
  if (tensor.numel() !== 1) {
    throw new FmoeError(
      'ERR_SHAPE',
      `item(): needs one element, this tensor has ${tensor.numel()} in [${tensor.shape.join(', ')}]`,
      {
        op: 'item',
        shapes: [tensor.shape],
      },
    );
  }
  raiseDeviceErrors();
  const value = op('aten::item')(tensor) as Value;
  if (typeof value === 'bigint') {
    throw new FmoeError(
      'ERR_DTYPE',
      `item(): ${value} is beyond what a number holds exactly. Use toArray() or data()`,
      { op: 'item' },
    );
  }
  return Number(value);
}

/** @internal See `Tensor.toArray`. */
export function readArray(tensor: TensorBase): NestedArray {
  return nest(readValues(tensor), tensor.shape);
}

/** @internal See `Tensor.toArrayAsync`. */
export async function readArrayAsync(tensor: TensorBase): Promise<NestedArray> {
  if (tensor.device === 'cpu') return readArray(tensor);
  let copy: Tensor;
  try {
    copy = wrap(await native().toCpuAsync(tensor.handle));
  } catch (error) {
    throw toFmoeError(error, 'toArrayAsync', [tensor]);
  }
  try {
    return readArray(copy);
  } finally {
    copy.dispose();
  }
}

/** @internal The elements in row-major order as plain values. */
export function readValues(tensor: TensorBase): Value[] {
  const { dtype } = tensor;
  if (dtype === 'bool') return Array.from(readData(tensor) as Uint8Array, (value) => value !== 0);
  if (dtype !== 'float16' && dtype !== 'bfloat16') return Array.from(readData(tensor) as Float64Array);
  const wide = op('aten::to.dtype')(tensor, 'float32' satisfies DType) as Tensor;
  const values = Array.from(readData(wide) as Float32Array);
  wide.dispose();
  return values;
}

function nest(values: readonly Value[], shape: readonly number[]): NestedArray {
  if (shape.length === 0) return values[0]!;
  const [size, ...rest] = shape as [number, ...number[]];
  const stride = rest.reduce((product, length) => product * length, 1);
  if (rest.length === 0) return values.slice(0, size);
  return Array.from({ length: size }, (_, i) => nest(values.slice(i * stride, (i + 1) * stride), rest));
}
