import type { Handle } from '../native/index.js';
import type { Tensor } from '../tensor/tensor.js';
import type { GradientScaling } from './optimizer-types.js';

const onDevice = (tensor: Tensor | null, device: string): Handle | null => {
  if (tensor === null) return null;
  return tensor.device === device ? tensor.handle : tensor.to(device).handle;
};

/** A scaler's tensors as a fused operator takes them, on the device of what it updates. */
export function scalingHandles(
  scaling: GradientScaling | null,
  device: string,
): { gradScale: Handle | null; foundInf: Handle | null } {
  if (scaling === null) return { gradScale: null, foundInf: null };
  return { gradScale: onDevice(scaling.gradScale, device), foundInf: onDevice(scaling.foundInf, device) };
}
