import { FmoeError, type FmoeErrorCode } from '../errors.js';
import type { Tensor } from './tensor.js';

/** A range of positions: Python's `start:stop:step`. Made by {@link slice}. */
export interface Slice {
  readonly start?: number | undefined;
  readonly stop?: number | undefined;
  readonly step?: number | undefined;
}

/**
 * What picks elements along one dimension (or makes a new one):
 * - an integer (negative counts from the end) picks one position and drops the dimension;
 * - a {@link Slice} picks a range;
 * - `null` makes a new dimension of size 1;
 * - `'...'` stands for as many whole dimensions as are left;
 * - an int64 or int32 tensor, or an array of integers, picks positions, which may repeat;
 * - a bool tensor, over as many dimensions as it has, picks where it is true.
 */
export type Index = number | Slice | null | '...' | Tensor | readonly number[];

/**
 * A range for `x.at(...)` and `x.set(...)`: Python's `start:stop:step`.
 *
 * @param start first position; default the first of the dimension. Negative counts from the end.
 * @param stop position after the last; default the end of the dimension
 * @param step distance between positions, 1 or more
 * @throws FmoeError ERR_INDEX for a bound that is no integer or a step below 1
 */
export function slice(start?: number, stop?: number, step?: number): Slice {
  for (const [name, bound] of Object.entries({ start, stop, step })) {
    if (bound !== undefined && !Number.isSafeInteger(bound)) {
      throw indexError(
        'slice',
        `${name} is ${String(bound)}, expected an integer. Leave it undefined for the default.`,
      );
    }
  }
  if (step !== undefined && step < 1) {
    throw indexError(
      'slice',
      `step is ${step}, but must be 1 or more. To walk backwards, use x.flip([dim]).`,
    );
  }
  return { start, stop, step };
}

/** An error of indexing, ERR_INDEX unless said otherwise. */
export function indexError(
  operation: string,
  problem: string,
  shapes?: readonly (readonly number[])[],
  code: FmoeErrorCode = 'ERR_INDEX',
): FmoeError {
  return new FmoeError(code, `${operation}: ${problem}`, { op: operation, ...(shapes && { shapes }) });
}
