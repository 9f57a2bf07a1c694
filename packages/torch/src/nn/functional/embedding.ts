import { noGrad } from '../../autograd/index.js';
import { FmoeError } from '../../errors.js';
import { tidy } from '../../scope.js';
import type { Tensor } from '../../tensor/tensor.js';
import {
  diagnose,
  requireDtype,
  requireSameDevice,
  requireShape,
  requireTensors,
  shapeOf,
} from '../diagnose.js';
import { guardIndices } from '../guard-indices.js';
import { lazyOperator } from '../lazy-operator.js';

const embeddingOperator = lazyOperator<[Tensor, Tensor, number, boolean, boolean]>('aten::embedding');
const renormOperator = lazyOperator<[Tensor, Tensor, number, number]>('aten::embedding_renorm_');

export interface EmbeddingFunctionOptions {
  /** Row whose gradient stays zero; negative counts from the end. */
  paddingIdx?: number | null;
  /** Rows that are looked up and whose norm exceeds this are scaled down to it, in place and outside of autograd. */
  maxNorm?: number | null;
  /** The p of the p-norm for `maxNorm`. Default 2. */
  normType?: number;
  /** Divide gradients by how often the index occurs in the batch. Default false. */
  scaleGradByFreq?: boolean;
}

/**
 * Looks up rows of a table.
 *
 * @param input indices, int64 or int32, any shape `[...]`
 * @param weight the table `[V, D]`
 * @returns `[..., D]`
 * @throws FmoeError `ERR_INDEX` when an index lies outside `[0, V)` (on a GPU: at the next read),
 * `ERR_DTYPE` when the indices are not integers, `ERR_SHAPE` when the table is not two-dimensional, `ERR_ARGUMENT` for a `paddingIdx`
 * outside of the table.
 */
export function embedding(input: Tensor, weight: Tensor, options: EmbeddingFunctionOptions = {}): Tensor {
  const { paddingIdx = null, maxNorm = null, normType = 2, scaleGradByFreq = false } = options;
  try {
    const rows = weight.shape[0] ?? 0;
    const padding = paddingIdx === null ? -1 : resolvePaddingIndex('embedding', paddingIdx, rows);
    const indices = guardIndices('embedding', input, rows);
    if (maxNorm !== null) renormalise(indices, weight, maxNorm, normType);
    const output = embeddingOperator(weight, indices, padding, scaleGradByFreq, false);
    if (indices !== input) indices.dispose();
    return output;
  } catch (error) {
    throw diagnose(error, () => checkEmbedding(input, weight));
  }
}

/** A padding index counted from the start; `ERR_ARGUMENT` when it is outside of the table. */
export function resolvePaddingIndex(operation: string, paddingIdx: number, rows: number): number {
  if (Number.isSafeInteger(paddingIdx) && paddingIdx >= -rows && paddingIdx < rows) {
    return paddingIdx < 0 ? paddingIdx + rows : paddingIdx;
  }
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${operation}: paddingIdx must name one of the ${rows} rows (${-rows} to ${rows - 1}), got ${paddingIdx}.`,
    { op: operation, argument: 'paddingIdx' },
  );
}

function renormalise(input: Tensor, weight: Tensor, maxNorm: number, normType: number): void {
  tidy(() => {
    noGrad(() => renormOperator(weight.detach(), input.contiguous(), maxNorm, normType));
  });
}

function checkEmbedding(input: Tensor, weight: Tensor): void {
  requireTensors('embedding', { input, weight });
  requireDtype('embedding', 'input', input, ['int64', 'int32']);
  requireShape(
    'embedding',
    weight.ndim === 2,
    `weight must be [rows, width], got ${shapeOf(weight)}.`,
    weight,
  );
  requireSameDevice('embedding', { input, weight });
}
