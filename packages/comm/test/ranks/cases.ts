/** What the cases of all suites share. Every rank runs every case; each computes what all ranks should get. */
import assert from 'node:assert/strict';
import type { DType, NestedArray, Tensor, TensorOptions } from '@fmoe/torch';
import * as all from '@fmoe/torch';
import type { ProcessGroup } from '../../src/index.js';

/** Where the suites' tensors lie. */
export const device = process.env['FMOE_TEST_DEVICE'] ?? 'cpu';

/** Of the functions that make tensors, those that the suites use make them there. */
export const torch = {
  ...all,
  tensor: (values: Parameters<typeof all.tensor>[0], options: TensorOptions = {}) =>
    all.tensor(values, { device, ...options }),
  zeros: (shape: readonly number[], options: TensorOptions = {}) => all.zeros(shape, { device, ...options }),
  ones: (shape: readonly number[], options: TensorOptions = {}) => all.ones(shape, { device, ...options }),
  full: (shape: readonly number[], value: number, options: TensorOptions = {}) =>
    all.full(shape, value, { device, ...options }),
};

/** A case throws when something is wrong. */
export type Cases = Record<string, () => void | Promise<void>>;

export type Suite = (world: ProcessGroup) => Cases;

/** Small whole numbers, the same on every rank for the same arguments, that every dtype holds exactly. */
export function value(rank: number, index: number, seed = 0): number {
  const mixed = Math.imul(rank * 31 + index * 17 + seed * 101 + 7, 0x9e3779b1) >>> 0;
  return (mixed % 9) - 4;
}

export function range<Item>(count: number, item: (index: number) => Item): Item[] {
  return Array.from({ length: count }, (_, index) => item(index));
}

/** `[rows, width]` numbers of a rank. */
export function matrix(rank: number, rows: number, width: number, seed = 0): number[][] {
  return range(rows, (row) => range(width, (column) => value(rank, row * width + column, seed)));
}

/** A tensor of nested numbers, of any shape, rows of which there are none included. */
export function tensorOf(values: number[][], width: number, dtype: DType = 'float64'): Tensor {
  return torch.tensor(values.flat(), { dtype: 'float64' }).reshape([values.length, width]).to(dtype);
}

/** Plain numbers. */
export function numbers(tensor: Tensor): NestedArray {
  return tensor.to('float64').toArray();
}

export function equal(actual: Tensor, expected: unknown, what = ''): void {
  assert.deepEqual(numbers(actual), expected, what);
}

/** Largest absolute difference to nested numbers of the same shape. */
export function close(actual: Tensor, expected: Tensor, tolerance = 1e-12): void {
  assert.deepEqual(actual.shape, expected.shape);
  if (actual.numel() === 0) return;
  const difference = actual.sub(expected).abs().max().item();
  assert.ok(difference <= tolerance, `differs by ${difference}`);
}

export function throws(code: string, pattern: RegExp, body: () => unknown): void {
  assert.throws(body, (error: unknown) => {
    assert.ok(torch.FmoeError.isInstance(error), String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, pattern);
    return true;
  });
}

export function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0);
}
