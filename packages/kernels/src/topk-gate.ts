/** Shape letters: T tokens, N experts, K choices a token (top-k). */
import { checkOptions, type Tensor } from '@fmoe/torch';
import { kernel } from './load.js';

const run = kernel('topk_gate');

/**
 * How scores come from logits: `'softmaxChosen'` is the softmax over the K chosen logits, `'softmax'` that over all N,
 * `'sigmoid'` takes each logit by itself.
 */
export type ScoreFunction = 'softmaxChosen' | 'softmax' | 'sigmoid';

/** Settings of {@link topkGate}. */
export interface TopkGateOptions {
  /** Default `'softmaxChosen'`. */
  scoreFunction?: ScoreFunction;
  /** Divide the K scores of a token by their sum. Default false. */
  normalize?: boolean;
  /**
   * `[N]`, floating-point and finite. Added to the scores (with `'softmaxChosen'` to the logits) for the choice alone: it
   * changes which experts are chosen, not their scores, and gets no gradient.
   */
  selectionBias?: Tensor | null;
}

/** What {@link topkGate} chooses. */
export interface TopkGateResult {
  /** `[T, K]` int64, the best expert first. */
  readonly topIdx: Tensor;
  /** `[T, K]` float32, or float64 for float64 logits; differentiable with respect to the logits. */
  readonly topScore: Tensor;
}

const optionNames = ['scoreFunction', 'normalize', 'selectionBias'];

const functionNames: Readonly<Record<ScoreFunction, string>> = {
  softmaxChosen: 'softmax_chosen',
  softmax: 'softmax',
  sigmoid: 'sigmoid',
};

/**
 * The K best experts of each token and their scores. Of equal experts the lower id comes first. An expert with the logit
 * -∞ is chosen last and scores 0.
 *
 * A second derivative ends as `ERR_NOT_IMPLEMENTED`.
 *
 * @param logits `[T, N]` float32, float64, bfloat16 or float16
 * @param k K, at most N
 * @throws FmoeError `ERR_ARGUMENT` for logits of NaN or +∞ (on the CPU), a bias that is not finite, or unknown options; `ERR_SHAPE` for a K
 * outside [1, N]; `ERR_SHAPE`, `ERR_DTYPE`, `ERR_DEVICE` for tensors that do not fit.
 *
 * @example
 * ```ts
 * const { topIdx, topScore } = topkGate(torch.tensor([[1, 3, 3]]), 2);
 * topIdx.toArray(); // [[1n, 2n]]
 * topScore.toArray(); // [[0.5, 0.5]]
 * ```
 */
export function topkGate(logits: Tensor, k: number, options: TopkGateOptions = {}): TopkGateResult {
  checkOptions('topkGate', options, optionNames);
  const { scoreFunction = 'softmaxChosen', normalize = false, selectionBias = null } = options;
  // A name that is none goes through, and the operator says which there are.
  const name = functionNames[scoreFunction] ?? scoreFunction;
  const [topIdx, topScore] = run(logits, selectionBias, k, name, normalize) as [Tensor, Tensor];
  return { topIdx, topScore };
}
