/** Plain JavaScript arrays in and out, and seeded numbers, for the tests in src/. */

import type { DType, Tensor } from '@fmoe/torch';
import * as torch from '@fmoe/torch';

export type Matrix = number[][];

/** The (token, choice) → expert tables that every operator is tested on. */
export const routes: readonly { name: string; topIdx: Matrix; experts: number }[] = [
  { name: 'top-1', topIdx: [[1], [0], [1], [2], [1]], experts: 3 },
  {
    name: 'top-2',
    topIdx: [
      [3, 0],
      [1, 3],
      [0, 1],
      [3, 1],
      [2, 3],
      [0, 2],
      [3, 2],
    ],
    experts: 4,
  },
  {
    name: 'top-3, an expert without rows',
    topIdx: [
      [0, 3, 1],
      [3, 1, 0],
      [1, 0, 4],
    ],
    experts: 5,
  },
  {
    name: 'dropped slots',
    topIdx: [
      [0, -1],
      [-1, 1],
      [-1, -1],
      [1, 0],
    ],
    experts: 2,
  },
  {
    name: 'all dropped',
    topIdx: [
      [-1, -1],
      [-1, -1],
    ],
    experts: 3,
  },
  { name: 'all on one expert', topIdx: [[2], [2], [2], [2]], experts: 4 },
  { name: 'one expert', topIdx: [[0], [0], [0]], experts: 1 },
  { name: 'one token on all experts', topIdx: [[1, 0, 3, 2]], experts: 4 },
];

export const indices = (values: number[] | Matrix, dtype: DType = 'int64'): Tensor =>
  torch.tensor(values, { dtype });

/** Integers out of a tensor. */
export function integers(tensor: Tensor): number[] {
  return Array.from(tensor.data() as BigInt64Array, Number);
}

/** Values out of a floating tensor, flat, without rounding. */
export function numbers(tensor: Tensor): number[] {
  return torch.tidy(() => Array.from(tensor.detach().double().contiguous().data() as Float64Array));
}

/** Normal numbers of a dtype, drawn once for all dtypes; a leaf that wants a gradient. */
export function draw(shape: number[], dtype: DType = 'float64'): Tensor {
  const values = torch.randn(shape, { dtype: 'float64' }).to(dtype);
  values.requiresGrad = true;
  return values;
}

/** Rows of a matrix tensor as exact JavaScript numbers. */
export function matrix(tensor: Tensor): Matrix {
  const [rows = 0, columns = 0] = tensor.shape;
  const flat = numbers(tensor);
  return Array.from({ length: rows }, (_, r) => flat.slice(r * columns, (r + 1) * columns));
}

/** Slots ordered by expert, then by number, from the definition. */
export function sortedSlots(topIdx: Matrix, experts: number): number[][] {
  const flat = topIdx.flat();
  return Array.from({ length: experts }, (_, e) => [...flat.keys()].filter((slot) => flat[slot] === e));
}

/** The relative error of one rounding to a dtype. */
export const roundoff: Readonly<Record<string, number>> = {
  float64: 2 ** -53,
  float32: 2 ** -24,
  float16: 2 ** -11,
  bfloat16: 2 ** -8,
};

export const floatingDtypes = ['float64', 'float32', 'bfloat16', 'float16'] as const;

/**
 * Asserts that sums of `length` products agree with the exact ones: `length` roundings in the accumulation type of terms
 * whose absolute values add up to `magnitude`, and one rounding of the result.
 */
export function expectSums(
  actual: Tensor,
  exact: readonly number[],
  magnitude: readonly number[],
  length: number,
): void {
  const unit = roundoff[actual.dtype]!;
  // Half the smallest positive float16: below the normal range rounding is absolute.
  const tiny = actual.dtype === 'float16' ? 2 ** -25 : 0;
  const got = numbers(actual);
  if (got.length !== exact.length) throw new Error(`got ${got.length} values, expected ${exact.length}`);
  got.forEach((value, i) => {
    const accumulation = Math.min(unit, 2 ** -24) * (length + 2) * magnitude[i]!;
    const bound = accumulation + unit * (Math.abs(exact[i]!) + accumulation) + tiny;
    const error = Math.abs(value - exact[i]!);
    if (!(error <= bound)) {
      throw new Error(`element ${i} is ${value}, expected ${exact[i]}: off by ${error}, bound ${bound}`);
    }
  });
}

/** x³, whose second derivative is not constant. */
export const cube = (x: Tensor): Tensor => x.mul(x).mul(x);
