/** Shape letters: Q query length, T target length, B batch, V vocabulary. */
import type { nn, Tensor } from '@fmoe/torch';

/**
 * What the trainer, evaluation and text generation know of a model. A model without a memory returns an empty list of
 * memories. Balance losses and expert loads are found by `collectBalanceLoss` and `readBalance` of `@fmoe/layers`.
 */
export interface LanguageModel extends nn.Module {
  /** Tokens of memory from segment to segment. */
  readonly memLen: number;
  /** Tokens at the end of a segment that the next one reads again. */
  readonly extLen: number;

  /**
   * The loss of a segment.
   *
   * @param data token ids `[Q, B]` int64
   * @param target the tokens that follow the last T positions `[T, B]` int64
   * @param mems what the segment before returned; empty at the start of a text
   * @returns negative log likelihoods in nats `[T, B]`, and the memory for the next segment, detached
   */
  forward(data: Tensor, target: Tensor, mems?: readonly Tensor[]): { loss: Tensor; mems: Tensor[] };

  /**
   * Logits of the token after each position.
   *
   * @returns `[Q, B, V]`, and the memory for the next segment
   */
  predict(data: Tensor, mems?: readonly Tensor[]): { logits: Tensor; mems: Tensor[] };

  /** Sets the lengths for evaluation with another memory than in training. */
  resetLength(lengths: { memLen?: number; extLen?: number }): void;
}
