/** Shape letters: Q query length, B batch, V vocabulary, D model width. */
import { nn, type Tensor } from '@fmoe/torch';

/** Token embeddings, scaled by √D. With one table; the name of its parameter is `emb_layers.0.weight`. */
export class AdaptiveEmbedding extends nn.Module {
  /** A list, since frequent and rare words may one day have tables of different widths. */
  readonly emb_layers: nn.ModuleList<nn.Embedding>;
  readonly embScale: number;

  constructor(nToken: number, dModel: number) {
    super();
    this.emb_layers = new nn.ModuleList([new nn.Embedding(nToken, dModel)]);
    this.embScale = Math.sqrt(dModel);
  }

  /** The table `[V, D]`. */
  get weight(): nn.Parameter {
    return this.emb_layers[0]!.weight;
  }

  /** @param data token ids `[Q, B]` @returns `[Q, B, D]` */
  override forward(data: Tensor): Tensor {
    return this.emb_layers[0]!.forward(data).mul(this.embScale);
  }
}
