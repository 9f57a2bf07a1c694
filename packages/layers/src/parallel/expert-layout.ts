/** Shape letters: N all experts, E experts of this rank. */
import { nn } from '@fmoe/torch';
import { MoELayer } from '../moe-layer.js';
import type { LocalExperts } from './local-experts.js';

/** What a tensor of a layer's experts is among those of all ranks. */
export interface ExpertTensor {
  /** Its name on one process with all experts. */
  name: string;
  /** For a tensor `[E, …]` the experts that its rows belong to; without it the tensor is that of one expert. */
  experts?: LocalExperts;
}

/**
 * The parameters and buffers of a model that belong to experts, by their names here. Of a list of expert modules those are the ones
 * of each module, and the module's place in the list is another on one process; of one module for all experts, the ones
 * whose first dimension is E.
 */
export function expertLayout(model: nn.Module): Map<string, ExpertTensor> {
  const layout = new Map<string, ExpertTensor>();
  for (const [path, layer] of model.namedModules()) {
    if (!(layer instanceof MoELayer)) continue;
    const { total, ids } = layer.localExperts;
    const prefix = path === '' ? 'experts' : `${path}.experts`;
    for (const [name, tensor] of [...layer.experts.namedParameters(), ...layer.experts.namedBuffers()]) {
      if (layer.experts instanceof nn.ModuleList) {
        const [slot, ...rest] = name.split('.');
        layout.set(`${prefix}.${name}`, { name: [prefix, ids[Number(slot)], ...rest].join('.') });
      } else if (tensor.shape[0] === ids.length) {
        layout.set(`${prefix}.${name}`, { name: `${prefix}.${name}`, experts: { total, ids } });
      }
    }
  }
  return layout;
}
