/** Shape letters: T tokens, D model width, N all experts. */
import { routerLogits as wideLogits } from '@fmoe/kernels';
import { autocast, nn, type Tensor } from '@fmoe/torch';

/** The dtypes that a router can compute in. */
export const routerDtypes = ['float32', 'float64', 'bfloat16', 'float16'] as const;
export type RouterDtype = (typeof routerDtypes)[number];

/** Float32, and float64 for float64 tokens. */
const wideDtype = (tensor: Tensor): RouterDtype => (tensor.dtype === 'float64' ? 'float64' : 'float32');

/**
 * The tensor in the router's dtype. Without one that is float32 at least: half precision is converted, and float64 stays
 * float64. Small differences of logits decide which expert a token goes to, so the router does not share the model's low
 * precision.
 */
export function toRouterDtype(tensor: Tensor, dtype: RouterDtype | null): Tensor {
  const wanted = dtype ?? wideDtype(tensor);
  return tensor.dtype === wanted ? tensor : tensor.to(wanted);
}

/**
 * `x · weightᵀ + bias` in the router's dtype. Where that is float32, tokens in half precision are read as they are: no copy of
 * them is made for it or kept.
 *
 * @param x `[T, D]`
 * @param weight `[N, D]`
 * @param bias `[N]`
 * @returns `[T, N]`
 */
export function routerLogits(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  dtype: RouterDtype | null,
): Tensor {
  const wanted = dtype ?? wideDtype(x);
  const tokens = wanted === wideDtype(x) ? x : x.to(wanted);
  return wanted === wideDtype(tokens)
    ? wideLogits(tokens, weight, bias)
    : nn.functional.linear(tokens, weight.to(wanted), bias?.to(wanted));
}

/** Runs `body` with the autocast of the tensor's device switched off. */
export function withoutAutocast<Result>(tensor: Tensor, body: () => Result): Result {
  const device = tensor.device.startsWith('cuda') ? 'cuda' : 'cpu';
  return autocast({ device, enabled: false }, body);
}
