import { tidy } from '../scope.js';
import type { DType } from '../tensor/dtype.js';
import { Tensor } from '../tensor/tensor.js';

/** How far two values may lie apart: |actual - expected| <= atol + rtol · |expected|. */
export interface Tolerance {
  rtol?: number;
  atol?: number;
}

/** The tolerances per dtype when none are stated, those of PyTorch's `assert_close`; integers must be equal. */
export const defaultTolerances: Readonly<Record<DType, Required<Tolerance>>> = {
  float64: { rtol: 1e-7, atol: 1e-7 },
  float32: { rtol: 1.3e-6, atol: 1e-5 },
  float16: { rtol: 1e-3, atol: 1e-5 },
  bfloat16: { rtol: 1.6e-2, atol: 1e-5 },
  int64: { rtol: 0, atol: 0 },
  int32: { rtol: 0, atol: 0 },
  int16: { rtol: 0, atol: 0 },
  int8: { rtol: 0, atol: 0 },
  uint8: { rtol: 0, atol: 0 },
  bool: { rtol: 0, atol: 0 },
};

/**
 * Asserts that two tensors have the same shape and dtype and close values. Not-a-number equals itself. The message says
 * how many elements differ, by how much at worst, and where. Allocates nothing that outlives the call.
 *
 * @param expected a tensor, or nested arrays of numbers, which take the dtype of `actual`
 * @param tolerance default: that of the dtype in {@link defaultTolerances}
 * @throws Error when they differ
 */
export function expectAllClose(
  actual: Tensor,
  expected: Tensor | NestedNumbers,
  tolerance: Tolerance = {},
): void {
  if (!(actual instanceof Tensor)) throw new Error(`expected a Tensor, got ${String(actual)}`);
  const wanted = expected instanceof Tensor ? read(expected) : flatten(expected);
  const got = read(actual);
  if (got.shape.join() !== wanted.shape.join()) {
    throw new Error(`shapes differ: got [${got.shape.join(', ')}], expected [${wanted.shape.join(', ')}]`);
  }
  if (expected instanceof Tensor && expected.dtype !== actual.dtype) {
    throw new Error(`dtypes differ: got ${actual.dtype}, expected ${expected.dtype}`);
  }
  const { rtol, atol } = { ...defaultTolerances[actual.dtype], ...tolerance };
  compare(got.values, wanted.values, got.shape, rtol, atol);
}

/** Asserts that two tensors have the same shape, dtype and bits. */
export function expectIdentical(actual: Tensor, expected: Tensor): void {
  expectAllClose(actual, expected, { rtol: 0, atol: 0 });
  const [a, b] = [bytesOf(actual), bytesOf(expected)];
  const at = a.findIndex((byte, i) => byte !== b[i]);
  if (at >= 0) throw new Error(`values are equal but bits differ at byte ${at}`);
}

export type NestedNumbers = number | readonly NestedNumbers[];

interface Flat {
  shape: readonly number[];
  values: ArrayLike<number>;
}

function compare(
  got: ArrayLike<number>,
  wanted: ArrayLike<number>,
  shape: readonly number[],
  rtol: number,
  atol: number,
): void {
  let wrong = 0;
  let worst = { index: -1, difference: -1 };
  for (let i = 0; i < got.length; i++) {
    const [a, b] = [got[i] as number, wanted[i] as number];
    if (a === b || (Number.isNaN(a) && Number.isNaN(b))) continue;
    const difference = Math.abs(a - b);
    if (Number.isFinite(b) && difference <= atol + rtol * Math.abs(b)) continue;
    wrong++;
    const rank = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
    if (rank > worst.difference) worst = { index: i, difference: rank };
  }
  if (wrong === 0) return;
  const { index, difference } = worst;
  throw new Error(
    `${wrong} of ${got.length} elements differ (rtol ${rtol}, atol ${atol}); the worst, at ` +
      `[${position(index, shape).join(', ')}], is ${got[index]} instead of ${wanted[index]} (off by ${difference})`,
  );
}

/** Values as float64, which holds every dtype but large int64 exactly. */
function read(tensor: Tensor): Flat {
  return tidy(() => {
    const values = Float64Array.from(
      tensor.detach().to({ dtype: 'float64', device: 'cpu' }).contiguous().data() as Float64Array,
    );
    return { shape: tensor.shape, values };
  });
}

function bytesOf(tensor: Tensor): Uint8Array {
  return tidy(() => {
    const data = tensor.detach().cpu().contiguous().data();
    return Uint8Array.from(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  });
}

function flatten(value: NestedNumbers): Flat {
  const shape: number[] = [];
  for (let inner = value; typeof inner !== 'number'; inner = inner[0] ?? 0) shape.push(inner.length);
  const values: number[] = [];
  const visit = (item: NestedNumbers) => {
    if (typeof item === 'number') values.push(item);
    else item.forEach(visit);
  };
  visit(value);
  return { shape, values };
}

function position(index: number, shape: readonly number[]): number[] {
  const result: number[] = [];
  let rest = index;
  for (const size of [...shape].reverse()) {
    result.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return result;
}
