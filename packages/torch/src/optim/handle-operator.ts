import { op } from '../dispatch/op.js';
import { type Handle, type HandleList, native } from '../native/index.js';
import { dtypeCode } from '../tensor/dtype.js';
import { toFmoeError } from '../tensor/tensor-base.js';

/**
 * An operator called with handles in place of tensors. An optimizer keeps lists of handles from step to step, so that a
 * step costs one call and no new object for each parameter.
 *
 * @typeParam Arguments in schema order: a HandleList for a list of tensors, a handle (or null) for a tensor
 * @typeParam Result a handle, owned by the current scope, where the operator returns a new tensor
 */
export function handleOperator<Arguments extends unknown[], Result = void>(
  name: string,
): (...args: Arguments) => Result {
  let id: number | undefined;
  return (...args) => {
    id ??= op(name).schema.id;
    try {
      return native().call(id, ...args) as Result;
    } catch (error) {
      throw toFmoeError(error, name);
    }
  };
}

/** Adds a number to every tensor. */
export const addNumber = handleOperator<[self: HandleList, number: number]>('aten::_foreach_add_.Scalar');
/** Subtracts tensors from tensors. */
export const subtractAll = handleOperator<[self: HandleList, other: HandleList]>('aten::_foreach_sub_.List');
/** Copies tensors into tensors, converting dtypes. */
export const copyAll = handleOperator<[self: HandleList, source: HandleList]>('aten::_foreach_copy_');
/** Sets tensors to zero. */
export const zeroAll = handleOperator<[self: HandleList]>('aten::_foreach_zero_');
/** The tensor itself, or a row-major copy. */
export const contiguous = handleOperator<[self: Handle], Handle>('aten::contiguous');

const CONTIGUOUS_FORMAT = 0;
const toCopy = handleOperator<
  [Handle, dtype: number, layout: null, device: null, pin: null, nonBlocking: boolean, format: number],
  Handle
>('aten::_to_copy');

/** A row-major float32 copy. */
export const toFloat32 = (tensor: Handle): Handle =>
  toCopy(tensor, dtypeCode('float32'), null, null, null, false, CONTIGUOUS_FORMAT);
