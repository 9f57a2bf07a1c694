import { op } from '../dispatch/op.js';
import type { Tensor } from '../tensor/tensor.js';

/**
 * Names an operator now and binds it at the first call, so that importing `nn` loads no native library.
 *
 * @typeParam Arguments positional arguments in the order of the operator's schema
 */
export function lazyOperator<Arguments extends unknown[], Result = Tensor>(
  name: string,
): (...args: Arguments) => Result {
  let bound: ((...args: unknown[]) => unknown) | undefined;
  return (...args) => {
    bound ??= op(name) as (...args: unknown[]) => unknown;
    return bound(...args) as Result;
  };
}
