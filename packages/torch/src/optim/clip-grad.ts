import { noGrad } from '../autograd/index.js';
import { FmoeError } from '../errors.js';
import type { Handle, HandleList } from '../native/index.js';
import { tidy } from '../scope.js';
import { tensor } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { wrap } from '../tensor/tensor-base.js';
import { type GradientList, gradientLists, toTensors } from './gradients.js';
import { handleOperator } from './handle-operator.js';
import { checkRange, optimizerError } from './parameter-groups.js';

/** Options of {@link clipGradNorm_}. */
export interface ClipGradNormOptions {
  /** Order of the norm; Infinity for the largest magnitude. Default 2. */
  normType?: number;
  /** Throw when the norm is not finite, which waits for the device. Default false. */
  errorIfNonfinite?: boolean;
}

const norms = handleOperator<[grads: HandleList, order: number], Handle[]>('aten::_foreach_norm.Scalar');
const stack = handleOperator<[tensors: HandleList], Handle>('aten::stack');
const vectorNorm = handleOperator<[self: Handle, order: number], Handle>('aten::linalg_vector_norm');
const multiplyAll = handleOperator<[grads: HandleList, factor: Handle]>('aten::_foreach_mul_.Tensor');
const raiseAll = handleOperator<[grads: HandleList, minimum: number]>('aten::_foreach_clamp_min_.Scalar');
const lowerAll = handleOperator<[grads: HandleList, maximum: number]>('aten::_foreach_clamp_max_.Scalar');

/** The norm of all gradients as one vector, on the device of the first. */
function totalNorm(lists: readonly GradientList[], normType: number): Tensor {
  if (lists.length === 0) return tensor(0);
  const { device } = lists[0]!;
  const parts = lists.flatMap((list) => {
    const own = [...norms(list.grads, normType)];
    return list.device === device ? own : own.map((norm) => wrap(norm).to(device).handle);
  });
  return wrap(vectorNorm(stack(Float64Array.from(parts)), normType));
}

/**
 * Scales the gradients down, in place, so that their norm, taken over all of them as one vector, is at most `maxNorm`:
 * `g *= min(1, maxNorm / (norm + 1e-6))`, as `torch.nn.utils.clip_grad_norm_`.
 *
 * @param parameters tensors whose gradients are clipped; those without one are passed over
 * @param maxNorm the largest norm allowed, 0 or more
 * @returns the norm before clipping, without dimensions; reading it waits for the device
 * @throws FmoeError ERR_ARGUMENT for a negative `maxNorm` or a parameter that is no tensor; ERR_RUNTIME for a norm that is not
 *   finite, when asked for
 */
export function clipGradNorm_(
  parameters: Tensor | Iterable<Tensor>,
  maxNorm: number,
  { normType = 2, errorIfNonfinite = false }: ClipGradNormOptions = {},
): Tensor {
  const operation = 'clipGradNorm_';
  checkRange(operation, 'maxNorm', maxNorm);
  if (!(normType > 0)) {
    throw optimizerError(
      operation,
      'normType',
      `normType is ${normType}, expected a number above 0 or Infinity.`,
    );
  }
  const params = toTensors(operation, parameters);
  return noGrad(() =>
    tidy(() => {
      const lists = gradientLists(params);
      const norm = totalNorm(lists, normType);
      if (errorIfNonfinite && !Number.isFinite(norm.item())) {
        const remedy =
          'Lower the learning rate or look for the operator that made it; set errorIfNonfinite: false to go on.';
        throw new FmoeError('ERR_RUNTIME', `${operation}: the gradients' norm is ${norm.item()}. ${remedy}`, {
          op: operation,
        });
      }
      // Multiplying by 1 where nothing is to clip costs less than reading the norm.
      const factor = norm.add(1e-6).reciprocal().mul(maxNorm).clamp(null, 1);
      for (const { grads, device } of lists) multiplyAll(grads, factor.to(device).handle);
      return norm;
    }),
  );
}

/**
 * Clamps every element of the gradients, in place, to `[-clipValue, clipValue]`.
 *
 * @throws FmoeError ERR_ARGUMENT for a negative `clipValue` or a parameter that is no tensor
 */
export function clipGradValue_(parameters: Tensor | Iterable<Tensor>, clipValue: number): void {
  checkRange('clipGradValue_', 'clipValue', clipValue);
  const params = toTensors('clipGradValue_', parameters);
  noGrad(() => {
    tidy(() => {
      for (const { grads } of gradientLists(params)) {
        raiseAll(grads, -clipValue);
        lowerAll(grads, clipValue);
      }
    });
  });
}
