import { autocast, type Tensor } from '@fmoe/torch';

/** The dtypes that a router can compute in. */
export const routerDtypes = ['float32', 'float64', 'bfloat16', 'float16'] as const;
export type RouterDtype = (typeof routerDtypes)[number];

/**
 * The tensor in the router's dtype. Without one that is float32 at least: half precision is converted, and float64 stays
 * float64. Small differences of logits decide which expert a token goes to, so the router does not share the model's low
 * precision.
 */
export function toRouterDtype(tensor: Tensor, dtype: RouterDtype | null): Tensor {
  const wanted = dtype ?? (tensor.dtype === 'float64' ? 'float64' : 'float32');
  return tensor.dtype === wanted ? tensor : tensor.to(wanted);
}

/** Runs `body` with the autocast of the tensor's device switched off. */
export function withoutAutocast<Result>(tensor: Tensor, body: () => Result): Result {
  const device = tensor.device.startsWith('cuda') ? 'cuda' : 'cpu';
  return autocast({ device, enabled: false }, body);
}
