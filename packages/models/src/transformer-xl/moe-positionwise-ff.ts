/** Shape letters: Q query length, B batch, D model width. */
import { FMoETransformerMLP, NaiveGate, NoisyGate } from '@fmoe/layers';
import { nn, type Tensor } from '@fmoe/torch';
import type { MoEConfig } from './config.js';
import type { PositionwiseFFOptions } from './positionwise-ff.js';

/** Settings of {@link MoEPositionwiseFF}; `dInner` is the width of one expert. */
export interface MoEPositionwiseFFOptions extends PositionwiseFFOptions {
  moe: Required<MoEConfig>;
}

const gates = { naive: NaiveGate, noisy: NoisyGate };

/** The Mixture-of-Experts feed-forward: experts with ReLU and dropout, with residual connection and normalisation. */
export class MoEPositionwiseFF extends FMoETransformerMLP {
  readonly layer_norm: nn.LayerNorm;
  readonly drop: nn.Dropout;
  readonly preLnorm: boolean;

  constructor(options: MoEPositionwiseFFOptions) {
    const { dModel, dInner, dropout, moe } = options;
    super({
      numExpert: moe.numExpert,
      topK: moe.topK,
      gate: gates[moe.gate],
      dModel,
      dHidden: dInner,
      activation: new nn.Sequential(new nn.ReLU({ inplace: true }), new nn.Dropout(dropout)),
    });
    this.layer_norm = new nn.LayerNorm(dModel);
    this.drop = new nn.Dropout(dropout);
    this.preLnorm = options.preLnorm;
  }

  /** @param input `[Q, B, D]` @returns `[Q, B, D]` */
  override forward(input: Tensor): Tensor {
    if (this.preLnorm) return input.add(this.drop.forward(super.forward(this.layer_norm.forward(input))));
    return this.layer_norm.forward(input.add(this.drop.forward(super.forward(input))));
  }
}
