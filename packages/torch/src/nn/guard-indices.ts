import { flagOnDevice } from '../devices/device-errors.js';
import { FmoeError } from '../errors.js';
import { tidy } from '../scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { lazyOperator } from './lazy-operator.js';

const clampOperator = lazyOperator<[Tensor, number, number]>('aten::clamp');
const whereOperator = lazyOperator<[Tensor, Tensor, Tensor]>('aten::where.self');

/**
 * Indices on a GPU, made harmless for its kernels: those outside of `[0, size)` are moved to the nearest one inside, and
 * the next read throws `ERR_INDEX`. On the CPU they come back as they are, as operators there check them by themselves.
 *
 * @param indices int64 or int32, any shape; other dtypes come back as they are
 * @param ignored a value that is allowed although it lies outside
 */
export function guardIndices(operation: string, indices: Tensor, size: number, ignored?: number): Tensor {
  return indices.device === 'cpu' ? indices : clampIndices(operation, indices, size, ignored);
}

/** What {@link guardIndices} does to indices on a GPU, on any device. */
export function clampIndices(operation: string, indices: Tensor, size: number, ignored?: number): Tensor {
  if (indices.dtype !== 'int64' && indices.dtype !== 'int32') return indices;
  const { device } = indices;
  const outOfRange = (when: string) =>
    new FmoeError(
      'ERR_INDEX',
      `${operation}: an index is out of range, as there are ${size} rows or classes${when}.`,
      {
        op: operation,
        devices: [device],
      },
    );
  if (size === 0) {
    if (indices.numel() > 0) throw outOfRange('');
    return indices;
  }
  return tidy(() => {
    const inside = clampOperator(indices, 0, size - 1);
    const moved = inside.ne(indices);
    const allowed = ignored === undefined || (ignored >= 0 && ignored < size) ? null : indices.eq(ignored);
    flagOnDevice(`${operation} ${size}`, allowed ? moved.gt(allowed) : moved, () =>
      outOfRange(`; found on ${device} at a later read (FMOE_CHECK=1 stops at the call)`),
    );
    return allowed ? whereOperator(allowed, indices, inside) : inside;
  });
}
