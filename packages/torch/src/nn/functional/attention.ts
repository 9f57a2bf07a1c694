import type { Tensor } from '../../tensor/tensor.js';
import { checkProbability } from '../check.js';
import {
  diagnose,
  requireFloating,
  requireSameDevice,
  requireSameDtype,
  requireShape,
  requireTensors,
  shapeOf,
} from '../diagnose.js';
import { lazyOperator } from '../lazy-operator.js';

const attentionOperator = lazyOperator<
  [Tensor, Tensor, Tensor, Tensor | null, number, boolean, number | null, boolean]
>('aten::scaled_dot_product_attention');

export interface AttentionOptions {
  /** Broadcasts to `[..., L, S]`: a bool tensor (true takes part) or one that is added to the scores. */
  attnMask?: Tensor | null;
  /** Probability of dropping an attention weight; pass 0 outside of training. Default 0. */
  dropoutP?: number;
  /** Position i sees positions up to i. Not together with `attnMask`. Default false. */
  isCausal?: boolean;
  /** Factor of the scores. Default 1 / sqrt(E). */
  scale?: number | null;
  /** Fewer key and value heads than query heads, each shared by a group. Default false. */
  enableGqa?: boolean;
}

/**
 * softmax(q kᵀ · scale + mask) v, through the fused kernels where they apply.
 *
 * @param query `[..., L, E]`
 * @param key `[..., S, E]`
 * @param value `[..., S, Ev]`
 * @returns `[..., L, Ev]`
 * @throws FmoeError `ERR_SHAPE`, `ERR_DTYPE`, `ERR_DEVICE` when the tensors do not go together, `ERR_ARGUMENT` for
 * `dropoutP` outside of [0, 1] or both `attnMask` and `isCausal`.
 */
export function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: AttentionOptions = {},
): Tensor {
  const { attnMask = null, dropoutP = 0, isCausal = false, scale = null, enableGqa = false } = options;
  checkProbability(OPERATION, 'dropoutP', dropoutP);
  try {
    return attentionOperator(query, key, value, attnMask, dropoutP, isCausal, scale, enableGqa);
  } catch (error) {
    throw diagnose(error, () => checkAttention(query, key, value, options));
  }
}

const OPERATION = 'scaledDotProductAttention';

function checkAttention(query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions): void {
  const tensors = { query, key, value };
  requireTensors(OPERATION, tensors, { attnMask: options.attnMask });
  requireSameDevice(OPERATION, { ...tensors, attnMask: options.attnMask });
  const sizes = `query ${shapeOf(query)}, key ${shapeOf(key)}, value ${shapeOf(value)}`;
  const all = [query, key, value];
  requireShape(
    OPERATION,
    all.every((t) => t.ndim >= 2),
    `expected two dimensions or more, got ${sizes}.`,
    ...all,
  );
  requireShape(
    OPERATION,
    query.shape.at(-1) === key.shape.at(-1),
    `query and key must have the same width, got ${sizes}.`,
    ...all,
  );
  requireShape(
    OPERATION,
    key.shape.at(-2) === value.shape.at(-2),
    `key and value must have the same length, got ${sizes}.`,
    ...all,
  );
  requireFloating(OPERATION, tensors);
  requireSameDtype(OPERATION, tensors);
}
