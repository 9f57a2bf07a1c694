import { autocast, nn, type Tensor } from '@fmoe/torch';

/**
 * x Wᵀ + b in float32 at least: half-precision inputs are converted first, autocast does not apply, and float64 stays
 * float64. Small differences of logits decide which expert a token goes to, so the router does not share the model's low
 * precision.
 *
 * @param x `[T, D]`
 * @param weight `[N, D]`
 * @param bias `[N]` or null
 * @returns `[T, N]`
 */
export function routerLogits(x: Tensor, weight: Tensor, bias: Tensor | null): Tensor {
  return withoutAutocast(x, () =>
    nn.functional.linear(atLeastFloat32(x), atLeastFloat32(weight), bias && atLeastFloat32(bias)),
  );
}

/** The tensor in float32 when it is in half precision, else itself. */
export function atLeastFloat32(tensor: Tensor): Tensor {
  const { dtype } = tensor;
  return dtype === 'float16' || dtype === 'bfloat16' ? tensor.float() : tensor;
}

/** Runs `body` with the autocast of the tensor's device switched off. */
export function withoutAutocast<Result>(tensor: Tensor, body: () => Result): Result {
  const device = tensor.device.startsWith('cuda') ? 'cuda' : 'cpu';
  return autocast({ device, enabled: false }, body);
}
