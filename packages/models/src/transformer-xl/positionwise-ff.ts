/** Shape letters: Q query length, B batch, D model width. */
import { nn, type Tensor, tidy } from '@fmoe/torch';

/** Settings of {@link PositionwiseFF}. */
export interface PositionwiseFFOptions {
  dModel: number;
  dInner: number;
  dropout: number;
  preLnorm: boolean;
}

/** The dense feed-forward: two linear layers with a ReLU, with residual connection and normalisation. */
export class PositionwiseFF extends nn.Module {
  /** Linear, ReLU, Dropout, Linear, Dropout; its position in the row is part of a parameter's name. */
  readonly CoreNet: nn.Sequential;
  readonly layer_norm: nn.LayerNorm;
  readonly preLnorm: boolean;

  constructor(options: PositionwiseFFOptions) {
    super();
    const { dModel, dInner, dropout } = options;
    this.CoreNet = new nn.Sequential(
      new nn.Linear(dModel, dInner),
      new nn.ReLU({ inplace: true }),
      new nn.Dropout(dropout),
      new nn.Linear(dInner, dModel),
      new nn.Dropout(dropout),
    );
    this.layer_norm = new nn.LayerNorm(dModel);
    this.preLnorm = options.preLnorm;
  }

  /** @param input `[Q, B, D]` @returns `[Q, B, D]` */
  override forward(input: Tensor): Tensor {
    return tidy(() => {
      if (this.preLnorm) return input.add(this.CoreNet.forward(this.layer_norm.forward(input)));
      return this.layer_norm.forward(input.add(this.CoreNet.forward(input)));
    });
  }
}
