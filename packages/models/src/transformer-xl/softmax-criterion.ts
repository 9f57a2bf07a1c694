/** Shape letters: T target length, B batch, V vocabulary, D model width. */
import { nn, type Tensor, tidy } from '@fmoe/torch';

/** The output layer and the cross-entropy of its softmax. Its parameters are `out_layers.0.{weight,bias}`. */
export class SoftmaxCriterion extends nn.Module {
  readonly out_layers: nn.ModuleList<nn.Linear>;

  /** @param tied a table `[V, D]` to use as the weight, or null for a weight of its own */
  constructor(nToken: number, dModel: number, tied: nn.Parameter | null) {
    super();
    const layer = new nn.Linear(dModel, nToken);
    if (tied) {
      layer.weight.dispose();
      layer.weight = tied;
    }
    this.out_layers = new nn.ModuleList([layer]);
  }

  /** @param hidden `[..., D]` @returns logits `[..., V]` */
  logits(hidden: Tensor): Tensor {
    return this.out_layers[0]!.forward(hidden);
  }

  /**
   * @param hidden `[T, B, D]`
   * @param target token ids `[T, B]`
   * @returns negative log likelihood of each target, nats `[T, B]`
   */
  override forward(hidden: Tensor, target: Tensor): Tensor {
    const { shape } = hidden;
    return tidy(() => {
      const logits = this.logits(hidden.reshape([-1, shape.at(-1)!]));
      return nn.functional
        .crossEntropy(logits, target.reshape([-1]), { reduction: 'none' })
        .view(target.shape);
    });
  }
}
