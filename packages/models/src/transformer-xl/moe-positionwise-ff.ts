/** Shape letters: Q query length, B batch, D model width. */
import { ExpertMLP, FMoE, type LocalExperts } from '@fmoe/layers';
import { nn, type Tensor } from '@fmoe/torch';
import { gateSource, type MoEConfig } from './moe-config.js';
import type { PositionwiseFFOptions } from './positionwise-ff.js';

/** Settings of {@link MoEPositionwiseFF}; `dInner` is the width of one expert. */
export interface MoEPositionwiseFFOptions extends PositionwiseFFOptions {
  moe: Required<MoEConfig>;
}

/**
 * The Mixture-of-Experts feed-forward, with residual connection and normalisation: experts of two layers with ReLU and
 * dropout, or of a class of the user's.
 */
export class MoEPositionwiseFF extends FMoE {
  readonly layer_norm: nn.LayerNorm;
  readonly drop: nn.Dropout;
  readonly preLnorm: boolean;

  constructor(options: MoEPositionwiseFFOptions) {
    const { dModel, moe } = options;
    const { numExpert, topK, expert, moeGroup } = moe;
    const experts =
      expert === null
        ? { experts: (_: number, __: number, local: LocalExperts) => twoLayerExperts(options, local) }
        : { expert };
    super({ numExpert, topK, dModel, gate: gateSource(moe), moeGroup, ...experts });
    this.layer_norm = new nn.LayerNorm(dModel);
    this.drop = new nn.Dropout(options.dropout);
    this.preLnorm = options.preLnorm;
  }

  /** @param input `[Q, B, D]` @returns `[Q, B, D]` */
  override forward(input: Tensor): Tensor {
    if (this.preLnorm) return input.add(this.drop.forward(super.forward(this.layer_norm.forward(input))));
    return this.layer_norm.forward(input.add(this.drop.forward(super.forward(input))));
  }
}

function twoLayerExperts(
  { dModel, dInner, dropout }: MoEPositionwiseFFOptions,
  local: LocalExperts,
): ExpertMLP {
  const activation = new nn.Sequential(new nn.ReLU({ inplace: true }), new nn.Dropout(dropout));
  return new ExpertMLP({ numExpert: local.ids.length, dModel, dHidden: dInner, activation, local });
}
