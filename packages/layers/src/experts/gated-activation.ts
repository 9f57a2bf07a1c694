/** Shape letters: H hidden width of an expert. */
import { nn, type Tensor } from '@fmoe/torch';

/**
 * A gated linear unit between the two layers of an expert (Shazeer, 2020, arXiv 2002.05202): it takes `[..., 2H]`, the gate
 * in the first half and the linear part in the second, and gives `[..., H]`. An expert with such an activation makes its
 * first layer twice as wide. Subclass it for a unit of your own.
 */
export abstract class GatedActivation extends nn.Module {
  /** @param input `[..., 2H]` @returns `[..., H]` */
  abstract override forward(input: Tensor): Tensor;
}

/** SiLU(gate) · linear. */
export class SwiGLU extends GatedActivation {
  override forward(input: Tensor): Tensor {
    const [gate, linear] = halves(input);
    return gate.silu().mul(linear);
  }
}

/** GELU(gate) · linear, with the exact GELU. */
export class GEGLU extends GatedActivation {
  override forward(input: Tensor): Tensor {
    const [gate, linear] = halves(input);
    return gate.gelu().mul(linear);
  }
}

/** ReLU(gate) · linear. */
export class ReGLU extends GatedActivation {
  override forward(input: Tensor): Tensor {
    const [gate, linear] = halves(input);
    return gate.relu().mul(linear);
  }
}

function halves(input: Tensor): [gate: Tensor, linear: Tensor] {
  return input.chunk(2, -1) as [Tensor, Tensor];
}
