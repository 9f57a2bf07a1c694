/** Shape letters: Q query length, T target length, B batch, V vocabulary, M memory length, D model width, A heads, C head width. */
import { empty, nn, type Tensor } from '@fmoe/torch';
import { AdaptiveEmbedding } from './adaptive-embedding.js';
import { MaskCache } from './attention-mask.js';
import { checkMems, checkTarget, checkTokenIds } from './check-input.js';
import {
  checkLengths,
  resolveTransformerXLConfig,
  type TransformerXLConfig,
  type TransformerXLOptions,
} from './config.js';
import { DecoderLayer } from './decoder-layer.js';
import { initializeTransformerXL } from './init.js';
import { nextMems } from './memory.js';
import { PositionalEmbedding } from './positional-embedding.js';
import { SoftmaxCriterion } from './softmax-criterion.js';

/** What a forward pass returns. */
export interface TransformerXLOutput {
  /** Negative log likelihood of each target, nats `[T, B]`. */
  loss: Tensor;
  /** The memory for the next segment: detached, one `[M, B, D]` per layer and one for the embedding. */
  mems: Tensor[];
}

/**
 * Transformer-XL (Dai et al., 2019, arXiv 1901.02860) as a language model: relative attention with a memory of earlier
 * segments, tied embedding, dense or Mixture-of-Experts feed-forward in every layer.
 *
 * State-dict keys are those of the public PyTorch example. Weights are drawn by {@link initializeTransformerXL}. With
 * experts, each forward pass in training mode leaves balance losses on the gates: `collectBalanceLoss(model)`.
 *
 * The model keeps no memory itself: pass the `mems` of one segment to the next, or let a `SegmentMemory` hold them.
 */
export class TransformerXL extends nn.Module {
  /** Content bias u `[A, C]`, shared by all layers. */
  readonly r_w_bias: nn.Parameter;
  /** Position bias v `[A, C]`, shared by all layers. */
  readonly r_r_bias: nn.Parameter;
  readonly word_emb: AdaptiveEmbedding;
  readonly drop: nn.Dropout;
  readonly layers: nn.ModuleList<DecoderLayer>;
  readonly crit: SoftmaxCriterion;
  readonly pos_emb: PositionalEmbedding;
  readonly config: Readonly<TransformerXLConfig>;
  #memLen: number;
  #extLen: number;
  readonly #masks = new MaskCache();

  /** @throws FmoeError `ERR_CONFIG` naming the setting that is unknown, missing, out of its range, or at odds with another. */
  constructor(options: TransformerXLOptions) {
    super();
    const config = resolveTransformerXLConfig(options);
    const { nToken, nLayer, nHead, dHead, dModel } = config;
    this.config = config;
    this.#memLen = config.memLen;
    this.#extLen = config.extLen;
    this.r_w_bias = new nn.Parameter(empty([nHead, dHead]));
    this.r_r_bias = new nn.Parameter(empty([nHead, dHead]));
    this.word_emb = new AdaptiveEmbedding(nToken, dModel);
    this.drop = new nn.Dropout(config.dropout);
    this.layers = new nn.ModuleList(Array.from({ length: nLayer }, () => new DecoderLayer(config)));
    this.crit = new SoftmaxCriterion(nToken, dModel, config.tieWeight ? this.word_emb.weight : null);
    this.pos_emb = new PositionalEmbedding(dModel, config.clampLen);
    initializeTransformerXL(this, { std: config.initStd });
  }

  /** Positions remembered from segment to segment. */
  get memLen(): number {
    return this.#memLen;
  }

  /** Positions at the end of a segment that the next one reads again. */
  get extLen(): number {
    return this.#extLen;
  }

  /**
   * Sets other lengths, for evaluation with a longer memory than in training; what is left out stays.
   *
   * @throws FmoeError `ERR_CONFIG` for negative lengths, or no memory with `sameLength`.
   */
  resetLength(lengths: { memLen?: number; extLen?: number }): void {
    const { memLen, extLen } = resolveTransformerXLConfig({ ...this.config, ...lengths });
    checkLengths(this.config.sameLength, memLen);
    this.#memLen = memLen;
    this.#extLen = extLen;
  }

  /**
   * The loss of a segment.
   *
   * @param data token ids `[Q, B]`, where Q = T, or T and `extLen` earlier tokens
   * @param target the tokens that follow the last T of them `[T, B]`
   * @param mems the memory that the segment before returned; empty at the start of a text
   * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE`, `ERR_INDEX` or `ERR_ARGUMENT` for ids, targets or memories that do not fit.
   */
  override forward(data: Tensor, target: Tensor, mems: readonly Tensor[] = []): TransformerXLOutput {
    checkTokenIds('data', data);
    checkTarget(data, target);
    const encoded = this.encode(data, mems);
    const qlen = data.shape[0]!;
    const tlen = target.shape[0]!;
    const predicted = tlen === qlen ? encoded.hidden : encoded.hidden.narrow(0, qlen - tlen, tlen);
    return { loss: this.crit.call(predicted, target), mems: encoded.mems };
  }

  /**
   * The logits of the token after each position, for example to generate text.
   *
   * @param data token ids `[Q, B]`
   * @param mems as for {@link forward}
   * @returns logits `[Q, B, V]` and the memory for the next segment
   * @throws FmoeError as {@link forward}
   */
  predict(data: Tensor, mems: readonly Tensor[] = []): { logits: Tensor; mems: Tensor[] } {
    checkTokenIds('data', data);
    const encoded = this.encode(data, mems);
    return { logits: this.crit.logits(encoded.hidden), mems: encoded.mems };
  }

  /** Hidden states of the last layer `[Q, B, D]` and the memory for the next segment. */
  private encode(data: Tensor, mems: readonly Tensor[]): { hidden: Tensor; mems: Tensor[] } {
    const [qlen, bsz] = data.shape as [number, number];
    const { nLayer, dModel } = this.config;
    checkMems(mems, nLayer, bsz, dModel);
    const mlen = mems[0]?.shape[0] ?? 0;
    let hidden = this.drop.forward(this.word_emb.call(data));
    const context = {
      positions: this.drop.forward(this.pos_emb.forward(qlen + mlen)),
      r_w_bias: this.r_w_bias,
      r_r_bias: this.r_r_bias,
      mask: this.mask(qlen, mlen, hidden),
    };
    const hids = [hidden];
    let index = 0;
    for (const layer of this.layers) {
      hidden = layer.call(hidden, context, mlen > 0 ? mems[index]! : null);
      hids.push(hidden);
      index++;
    }
    return { hidden: this.drop.forward(hidden), mems: nextMems(hids, mems, this.#memLen, this.#extLen) };
  }

  private mask(qlen: number, mlen: number, like: Tensor): Tensor {
    const { dtype, device } = like;
    // A memory longer than memLen can come from before a resetLength: then that is the reach.
    const memLen = Math.max(this.#memLen, mlen);
    return this.#masks.get({ qlen, mlen, memLen, sameLength: this.config.sameLength, dtype, device });
  }

  /** Frees all parameters, their gradients, all buffers, and what was kept from pass to pass. */
  override dispose(): void {
    super.dispose();
    this.pos_emb.releaseTable();
    this.#masks.clear();
  }
}
