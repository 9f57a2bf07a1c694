import { FmoeError, type Tensor } from '@fmoe/torch';

/** @internal A count for each rank, and, where a tensor is given, counts that add up to its rows. */
export function checkRows(
  operation: string,
  argument: string,
  rows: readonly number[],
  size: number,
  tensor?: Tensor,
  own?: number,
): void {
  if (
    !Array.isArray(rows) ||
    rows.length !== size ||
    !rows.every((count) => Number.isSafeInteger(count) && count >= 0)
  ) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${operation}: ${argument} needs a count for each of ${size} ranks, got ${Array.isArray(rows) ? `[${rows.join(', ')}]` : String(rows)}`,
      { op: operation, argument },
    );
  }
  if (tensor === undefined) return;
  const expected = own ?? (rows as number[]).reduce((sum, count) => sum + count, 0);
  if (tensor.shape[0] !== expected) {
    throw new FmoeError(
      'ERR_SHAPE',
      `${operation}: ${argument} says ${expected} rows, the tensor is [${tensor.shape.join(', ')}]`,
      { op: operation, argument, shapes: [tensor.shape] },
    );
  }
}
