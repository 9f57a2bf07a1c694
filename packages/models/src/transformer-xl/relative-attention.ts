/** Shape letters: Q query length, M memory length, L = M + Q key length, B batch, A heads, C head width, D model width. */
import { baddbmm, bmm, cat, nn, type Tensor } from '@fmoe/torch';

const { linear } = nn.functional;

/** Settings of {@link RelativeAttention}. */
export interface RelativeAttentionOptions {
  nHead: number;
  dModel: number;
  dHead: number;
  dropout: number;
  dropatt: number;
  preLnorm: boolean;
}

/** What all layers of a forward pass share. */
export interface AttentionContext {
  /** Embedded distances `[L+1, D]`. */
  positions: Tensor;
  /** Content bias u `[A, C]` and position bias v `[A, C]`. */
  r_w_bias: Tensor;
  r_r_bias: Tensor;
  /** Additive mask `[1, Q, L+1]` before the relative shift. */
  mask: Tensor;
}

/**
 * Multi-head attention with relative positions and memory (Dai et al., Transformer-XL, arXiv 1901.02860, section 3.3): the
 * score of query i and key j is ((q_i + u)·k_j + (q_i + v)·r_{i-j}) / √C. With its residual connection and normalisation.
 */
export class RelativeAttention extends nn.Module {
  /** Queries, keys and values in one matrix `[3·A·C, D]`. */
  readonly qkv_net: nn.Linear;
  readonly drop: nn.Dropout;
  readonly dropatt: nn.Dropout;
  readonly o_net: nn.Linear;
  readonly layer_norm: nn.LayerNorm;
  /** Keys of the distances `[A·C, D]`. */
  readonly r_net: nn.Linear;
  readonly nHead: number;
  readonly dHead: number;
  readonly preLnorm: boolean;

  constructor(options: RelativeAttentionOptions) {
    super();
    const { nHead, dHead, dModel } = options;
    const width = nHead * dHead;
    this.qkv_net = new nn.Linear(dModel, 3 * width, { bias: false });
    this.drop = new nn.Dropout(options.dropout);
    this.dropatt = new nn.Dropout(options.dropatt);
    this.o_net = new nn.Linear(width, dModel, { bias: false });
    this.layer_norm = new nn.LayerNorm(dModel);
    this.r_net = new nn.Linear(dModel, width, { bias: false });
    this.nHead = nHead;
    this.dHead = dHead;
    this.preLnorm = options.preLnorm;
  }

  /**
   * @param w hidden states `[Q, B, D]`
   * @param mem those of earlier segments `[M, B, D]`, without gradient, or null
   * @returns `[Q, B, D]`
   */
  override forward(w: Tensor, context: AttentionContext, mem: Tensor | null): Tensor {
    const [qlen, bsz] = w.shape as [number, number, number];
    const { nHead, dHead } = this;
    const batch = bsz * nHead;
    const scale = 1 / Math.sqrt(dHead);
    const [rawQuery, rawKey, rawValue] = this.project(w, mem);
    const klen = rawKey.shape[0]!;

    // Scaling the queries is cheaper than scaling the scores.
    const query = rawQuery.mul(scale).view([qlen, bsz, nHead, dHead]);
    const contentQuery = query.add(context.r_w_bias.mul(scale)).view([qlen, batch, dHead]).transpose(0, 1);
    const positionQuery = query.add(context.r_r_bias.mul(scale)).view([qlen, batch, dHead]).transpose(0, 1);
    const key = rawKey.reshape([klen, batch, dHead]).permute([1, 2, 0]);
    const value = rawValue.reshape([klen, batch, dHead]).transpose(0, 1);
    const distanceKey = linear(context.positions, this.r_net.weight)
      .view([klen + 1, nHead, dHead])
      .permute([1, 2, 0])
      .expand([bsz, nHead, dHead, klen + 1])
      .reshape([batch, dHead, klen + 1]);

    const byDistance = baddbmm(context.mask, positionQuery, distanceKey);
    const scores = baddbmm(relativeShift(byDistance, qlen, klen), contentQuery, key);
    const probability = this.dropatt.forward(scores.softmax(-1));
    const attended = bmm(probability, value)
      .transpose(0, 1)
      .reshape([qlen, bsz, nHead * dHead]);
    const output = w.add(this.drop.forward(linear(attended, this.o_net.weight)));
    return this.preLnorm ? output : this.layer_norm.forward(output);
  }

  /** Queries `[Q, B, A·C]`, keys and values `[L, B, A·C]`. */
  private project(w: Tensor, mem: Tensor | null): [Tensor, Tensor, Tensor] {
    const { weight } = this.qkv_net;
    const width = this.nHead * this.dHead;
    const current = linear(this.normalised(w), weight).chunk(3, -1) as [Tensor, Tensor, Tensor];
    if (mem === null) return current;
    // The memory asks no queries and passes no gradient on, so it has a smaller product of its own.
    const remembered = linear(this.normalised(mem), weight.narrow(0, width, 2 * width)).chunk(2, -1);
    const [query, key, value] = current;
    return [query, cat([remembered[0]!, key], 0), cat([remembered[1]!, value], 0)];
  }

  private normalised(hidden: Tensor): Tensor {
    return this.preLnorm ? this.layer_norm.forward(hidden) : hidden;
  }
}

/**
 * From scores by distance `[n, Q, L+1]` to scores by key `[n, Q, L]`: key j of query i lies Q-1-i places to the right of key
 * j of the last query. Reading the rows without their first Q-1 numbers, L at a time, does just that, as a view.
 */
export function relativeShift(scores: Tensor, qlen: number, klen: number): Tensor {
  return scores
    .view([-1, qlen * (klen + 1)])
    .narrow(1, qlen - 1, qlen * klen)
    .view([-1, qlen, klen]);
}
