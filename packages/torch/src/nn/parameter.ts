import { FmoeError } from '../errors.js';
import { native } from '../native/index.js';
import { keep } from '../scope.js';
import { Tensor } from '../tensor/tensor.js';
import { checkTensor } from './check.js';
import { requireFloating } from './diagnose.js';

/**
 * A tensor that a {@link nn.Module} learns. Assigned to a property of a module, it appears in the module's `parameters()`
 * and `stateDict()`.
 *
 * A parameter is a leaf that shares the data of the tensor it is made from, requires a gradient unless told otherwise,
 * and belongs to no scope: it lives until it is disposed or forgotten.
 */
export class Parameter extends Tensor {
  /**
   * @param data the initial value; it stays the caller's and shares its memory with the parameter
   * @param requiresGrad default true, which needs a floating-point tensor
   * @throws FmoeError `ERR_ARGUMENT` when `data` is not a tensor, `ERR_DTYPE` when integers are to require a gradient.
   */
  constructor(data: Tensor, requiresGrad = true) {
    super(detachedHandle(data, requiresGrad));
    keep(this);
    this.requiresGrad = requiresGrad;
  }
}

function detachedHandle(data: Tensor, requiresGrad: boolean): number {
  checkTensor('Parameter', 'data', data);
  if (data.isDisposed) {
    throw new FmoeError('ERR_DISPOSED', 'Parameter: the tensor was disposed already.', { op: 'Parameter' });
  }
  if (requiresGrad) requireFloating('Parameter', { data });
  const detached = data.detach();
  // A handle of the parameter's own: that of `detached` goes when the object is disposed or forgotten.
  const handle = native().alias(detached.handle);
  detached.dispose();
  return handle;
}
