/** Shape letters: Q query length, M memory length, B batch, D model width. */
import { nn, type Tensor, tidy } from '@fmoe/torch';
import type { TransformerXLConfig } from './config.js';
import { MoEPositionwiseFF } from './moe-positionwise-ff.js';
import { PositionwiseFF } from './positionwise-ff.js';
import { type AttentionContext, RelativeAttention } from './relative-attention.js';

/** Relative attention followed by a dense or Mixture-of-Experts feed-forward. */
export class DecoderLayer extends nn.Module {
  readonly dec_attn: RelativeAttention;
  readonly pos_ff: PositionwiseFF | MoEPositionwiseFF;

  constructor(config: TransformerXLConfig) {
    super();
    const { moe } = config;
    this.dec_attn = new RelativeAttention(config);
    this.pos_ff = moe ? new MoEPositionwiseFF({ ...config, moe }) : new PositionwiseFF(config);
  }

  /**
   * @param w hidden states `[Q, B, D]`
   * @param mem those of earlier segments `[M, B, D]`, or null
   * @returns `[Q, B, D]`
   */
  override forward(w: Tensor, context: AttentionContext, mem: Tensor | null): Tensor {
    // What backward does not need is freed here and not at the end of the step: the next layer finds warm memory.
    const attended = tidy(() => this.dec_attn.call(w, context, mem));
    return this.pos_ff.call(attended);
  }
}
