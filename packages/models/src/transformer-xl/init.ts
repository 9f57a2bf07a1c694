import { drawExperts, FMoE } from '@fmoe/layers';
import { emptyLike, nn, tidy } from '@fmoe/torch';

/** Standard deviations of the initial weights. */
export interface InitOptions {
  /** Of all matrices, embeddings and attention biases, and of the normalisation weights around 1. Default 0.02. */
  std?: number;
}

/**
 * Draws initial values as the reference's training script does: N(0, std) for every weight, the experts' and the router's
 * included, for the embedding and for the two attention biases; N(1, std) for the weights of normalisations; zero for all
 * other biases. Draws in the order of `model.namedParameters()`. Experts start with the same values wherever they live.
 */
export function initializeTransformerXL(model: nn.Module, options: InitOptions = {}): void {
  const std = options.std ?? 0.02;
  const drawn = new Set<nn.Parameter>();
  const lists = new Map<nn.Parameter, FMoE>();
  for (const layer of model.modules()) {
    if (!(layer instanceof FMoE) || !(layer.experts instanceof nn.ModuleList)) continue;
    for (const parameter of layer.experts.parameters()) lists.set(parameter, layer);
  }
  for (const [name, parameter] of model.namedParameters()) {
    if (drawn.has(parameter)) continue;
    const layer = lists.get(parameter);
    if (layer === undefined) draw(name, parameter, std);
    else for (const each of drawList(layer, std)) drawn.add(each);
  }
}

function draw(name: string, parameter: nn.Parameter, std: number): void {
  if (name.endsWith('layer_norm.weight')) nn.init.normal_(parameter, 1, std);
  else if (name.endsWith('.bias')) nn.init.zeros_(parameter);
  else drawExperts(parameter, (all) => nn.init.normal_(all, 0, std));
}

/** Draws the values of all experts of a list, and keeps those of the experts that are here. Experts elsewhere are like these. */
function drawList({ experts, localExperts }: FMoE, std: number): nn.Parameter[] {
  const { total, ids } = localExperts;
  const modules = [...(experts as nn.ModuleList)];
  for (let id = 0; id < total; id++) {
    const slot = ids.indexOf(id);
    for (const [name, parameter] of modules[Math.max(slot, 0)]!.namedParameters()) {
      if (slot >= 0) draw(`.${name}`, parameter, std);
      else tidy(() => draw(`.${name}`, emptyLike(parameter) as nn.Parameter, std));
    }
  }
  return experts.parameters();
}
