import { op } from '../dispatch/op.js';
import { tidy } from '../scope.js';
import { readValues } from '../tensor/data.js';
import type { Tensor } from '../tensor/tensor.js';
import { formatValues, isSummarized, shownPositions } from './format.js';
import { getPrintOptions } from './print-options.js';

/** The text of a tensor as PyTorch prints it. A large tensor is cut to its edges before anything is read. */
export function formatTensor(tensor: Tensor): string {
  if (tensor.isDisposed) return 'tensor(<disposed>)';
  return tidy(() => {
    const { shape, dtype, device } = tensor;
    const options = getPrintOptions();
    const edgesOnly = isSummarized(shape, options);
    let shown = tensor.detach();
    if (edgesOnly) {
      shape.forEach((size, dim) => {
        const positions = shownPositions(size, options.edgeItems);
        if (positions.length < size) shown = cut(shown, dim, size, options.edgeItems);
      });
    }
    return formatValues({
      data: readValues(shown),
      shape,
      dtype,
      device,
      gradFn: tensor.gradFn,
      requiresGrad: tensor.requiresGrad,
      edgesOnly,
    });
  });
}

function cut(tensor: Tensor, dim: number, size: number, edge: number): Tensor {
  const slice = op('aten::slice.Tensor');
  return op('aten::cat')([slice(tensor, dim, 0, edge), slice(tensor, dim, size - edge, size)], dim) as Tensor;
}
