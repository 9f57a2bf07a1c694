/** Shape letters: r rows, D model width. */
import { FmoeError, nn, type Tensor } from '@fmoe/torch';
import { ChebyshevLayer } from './chebyshev-layer.js';

/** Settings of {@link KANExpert}. */
export interface KANExpertOptions {
  /** Width between the two layers. Default half of the model's. */
  dHidden?: number;
  /** Degree of the polynomials. Default 3. */
  degree?: number;
}

/** An expert of two Kolmogorov-Arnold layers, D to the hidden width and back. */
export class KANExpert extends nn.Module {
  readonly up: ChebyshevLayer;
  readonly down: ChebyshevLayer;

  /** @throws FmoeError `ERR_ARGUMENT` for sizes that are no positive integers. */
  constructor(dModel: number, options: KANExpertOptions = {}) {
    super();
    const { dHidden = Math.ceil(dModel / 2), degree = 3 } = options;
    for (const [argument, value] of Object.entries({ dModel, dHidden, degree })) {
      if (Number.isSafeInteger(value) && value >= 1) continue;
      const problem = `KANExpert: ${argument} must be a positive integer, got ${value}.`;
      throw new FmoeError('ERR_ARGUMENT', problem, { op: 'KANExpert', argument });
    }
    this.up = new ChebyshevLayer(dModel, dHidden, degree);
    this.down = new ChebyshevLayer(dHidden, dModel, degree);
  }

  /** @param rows `[r, D]` @returns `[r, D]` */
  override forward(rows: Tensor): Tensor {
    return this.down.call(this.up.call(rows));
  }

  /** For `describeMoE`: two matrix products; tanh, the polynomials and the basis of each layer are kept. */
  costPerRow(): { flops: number; savedNumbers: number } {
    const layers = [this.up, this.down];
    const terms = ({ inFeatures, degree }: ChebyshevLayer) => inFeatures * (degree + 1);
    return {
      flops: layers.reduce((sum, layer) => sum + 2 * terms(layer) * layer.outFeatures, 0),
      savedNumbers: this.up.outFeatures + layers.reduce((sum, layer) => sum + 2 * terms(layer), 0),
    };
  }
}
