import { FmoeError } from '../errors.js';
import { type HandleList, native } from '../native/index.js';
import type { DType } from '../tensor/dtype.js';
import { Tensor } from '../tensor/tensor.js';
import { guarded, handlesOf } from '../tensor/tensor-base.js';

/** The gradients of one dtype on one device. */
export interface GradientList {
  grads: HandleList;
  dtype: DType;
  device: string;
}

/** The parameters as an array; ERR_ARGUMENT for what is neither a tensor nor an iterable of tensors. */
export function toTensors(operation: string, parameters: Tensor | Iterable<Tensor>): Tensor[] {
  if (!(parameters instanceof Tensor) && typeof parameters?.[Symbol.iterator] !== 'function') {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${operation}: parameters must be a tensor or an iterable of tensors.`,
      {
        op: operation,
        argument: 'parameters',
      },
    );
  }
  const list = parameters instanceof Tensor ? [parameters] : [...parameters];
  list.forEach((item: unknown, i) => {
    if (item instanceof Tensor) return;
    throw new FmoeError('ERR_ARGUMENT', `${operation}: parameter ${i} is not a tensor.`, {
      op: operation,
      argument: 'parameters',
    });
  });
  return list;
}

/**
 * The gradients of parameters, sorted by what one operator call can take: dtype and device. Parameters without a gradient are
 * left out. The handles belong to the current scope.
 */
export function gradientLists(params: readonly Tensor[]): GradientList[] {
  const grads = guarded('grad', () => native().gradients(handlesOf(params)));
  const lists = new Map<string, { grads: number[]; dtype: DType; device: string }>();
  params.forEach((param, i) => {
    const grad = grads[i]!;
    if (grad === 0) return;
    const { dtype, device } = param;
    const key = `${dtype} ${device}`;
    const list = lists.get(key);
    if (list) list.grads.push(grad);
    else lists.set(key, { grads: [grad], dtype, device });
  });
  return [...lists.values()].map((list) => ({ ...list, grads: Float64Array.from(list.grads) }));
}
