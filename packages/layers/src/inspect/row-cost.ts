import { nn } from '@fmoe/torch';
import { ZeroExpert } from '../experts/null-experts.js';

/** What one row costs that goes through a module, in the forward pass. */
export interface RowCost {
  /** Multiplications and additions of its matrix products; what is done element by element is left out. */
  flops: number;
  /** Numbers kept for the backward pass, besides the module's input and output. */
  savedNumbers: number;
}

/**
 * What a row costs in a module: what its method `costPerRow()` says, or the known cost of a linear layer, a zero expert or an
 * identity; null when it is not known. An expert of your own may have such a method to appear in `describeMoE` in full.
 */
export function rowCost(module: nn.Module): RowCost | null {
  if ('costPerRow' in module && typeof module.costPerRow === 'function')
    return module.costPerRow() as RowCost;
  if (module instanceof nn.Linear)
    return { flops: 2 * module.inFeatures * module.outFeatures, savedNumbers: 0 };
  if (module instanceof ZeroExpert || module instanceof nn.Identity) return { flops: 0, savedNumbers: 0 };
  return null;
}
