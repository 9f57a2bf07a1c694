import { op, type Scalar } from '../dispatch/op.js';
import { full } from './factories.js';
import { IndexResolver, type ResolvedIndices, release } from './index-resolver.js';
import type { Index } from './slice.js';
import type { Tensor } from './tensor.js';
import { TensorBase } from './tensor-base.js';

export { type Index, type Slice, slice } from './slice.js';

const gathers = ({ advanced }: ResolvedIndices): boolean => advanced.some((index) => index !== null);

/**
 * The elements at `indices`, as Python's `x[...]`: a view for integers, slices, `null` and `'...'`, a new tensor once an index
 * tensor or a mask takes part. If index tensors stand next to each other their dimensions stay in place, otherwise they come
 * first. Missing indices take whole dimensions.
 *
 * @returns always a fresh handle, also when nothing is picked out
 * @throws FmoeError ERR_INDEX for an index out of range, too many indices, a second `'...'`, a mask of another shape or a step
 *   below 1; ERR_DTYPE for an index tensor of another dtype; ERR_ARGUMENT for anything else
 */
export function indexTensor(source: Tensor, indices: readonly Index[]): Tensor {
  const resolved = new IndexResolver('at', source, indices).run();
  const { chain, advanced } = resolved;
  try {
    if (gathers(resolved)) return op('aten::index.Tensor')(chain.current, advanced);
    if (chain.current === source) return op('aten::alias')(source);
    const view = chain.current;
    chain.current = source;
    return view;
  } finally {
    release(resolved);
  }
}

/** Drops leading dimensions of size 1, which an assignment may have too many of. */
function withoutLeadingOnes(value: Tensor): Tensor {
  const first = value.shape.findIndex((size) => size !== 1);
  return value.reshape(value.shape.slice(first === -1 ? value.ndim : first));
}

/**
 * Writes `value` into the elements at `indices`, in place, as Python's `x[...] = value`. The value is broadcast. Where an index
 * tensor names a position twice, which value ends there is not defined.
 *
 * @throws FmoeError as {@link indexTensor}; ERR_SHAPE (or ERR_INDEX) when the value cannot be broadcast; ERR_DTYPE when index
 *   tensors take part and the value has another dtype; ERR_AUTOGRAD for a leaf that requires gradients
 */
export function setIndex(target: Tensor, indices: readonly Index[], value: Tensor | Scalar): void {
  const resolved = new IndexResolver('set', target, indices).run();
  const { chain, advanced, temporaries } = resolved;
  try {
    const view = chain.current;
    if (value instanceof TensorBase) {
      const values = withoutLeadingOnes(value);
      if (values !== value) temporaries.push(values);
      if (gathers(resolved)) op('aten::index_put_')(view, advanced, values);
      else op('aten::copy_')(view, values);
    } else if (gathers(resolved)) {
      const scalar = full([], value, { dtype: target.dtype, device: target.device });
      temporaries.push(scalar);
      op('aten::index_put_')(view, advanced, scalar);
    } else {
      op('aten::fill_.Scalar')(view, value);
    }
  } finally {
    release(resolved);
  }
}
