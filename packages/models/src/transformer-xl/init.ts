import { drawExperts } from '@fmoe/layers';
import { nn } from '@fmoe/torch';

/** Standard deviations of the initial weights. */
export interface InitOptions {
  /** Of all matrices, embeddings and attention biases, and of the normalisation weights around 1. Default 0.02. */
  std?: number;
}

/**
 * Draws initial values as the reference's training script does: N(0, std) for every weight, the experts' and the router's
 * included, for the embedding and for the two attention biases; N(1, std) for the weights of normalisations; zero for all
 * other biases. Draws in the order of `model.namedParameters()`.
 */
export function initializeTransformerXL(model: nn.Module, options: InitOptions = {}): void {
  const std = options.std ?? 0.02;
  for (const [name, parameter] of model.namedParameters()) {
    if (name.endsWith('layer_norm.weight')) nn.init.normal_(parameter, 1, std);
    else if (name.endsWith('.bias')) nn.init.zeros_(parameter);
    else drawExperts(parameter, (all) => nn.init.normal_(all, 0, std));
  }
}
