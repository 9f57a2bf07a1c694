// Letters: L length of the query, S length of key and value, B batch, E width, H heads, D = E / H.
import type { Tensor } from '../tensor/tensor.js';
import { requireShape, shapeOf } from './diagnose.js';
import { softmax } from './functional/activations.js';
import { scaledDotProductAttention } from './functional/attention.js';
import { dropout } from './functional/dropout.js';

export interface AttentionMasks {
  /** `[B, S]`: true (or minus infinity) leaves a key out. */
  keyPaddingMask?: Tensor | null;
  /** `[L, S]` or `[B H, L, S]`: true leaves a pair out; floating-point values are added to the scores. */
  attnMask?: Tensor | null;
  /** Hint that `attnMask` is the causal mask. Default false. */
  isCausal?: boolean;
}

/**
 * Attention of each head over projected tensors.
 *
 * @param query `[L, B, E]`
 * @param key `[S, B, E]`
 * @param value `[S, B, E]`
 * @returns the heads side by side `[L, B, E]`, and the weights `[B, H, L, S]` when asked for
 */
export function attend(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  heads: { count: number; dropout: number },
  masks: AttentionMasks,
  needWeights: boolean,
): [output: Tensor, weights: Tensor | null] {
  const [length, batch, width] = query.shape as [number, number, number];
  const split = (x: Tensor) =>
    x.reshape([x.shape[0] as number, batch, heads.count, width / heads.count]).permute([1, 2, 0, 3]);
  const join = (x: Tensor) => x.permute([2, 0, 1, 3]).reshape([length, batch, width]);
  const [q, k, v] = [split(query), split(key), split(value)]; // [B, H, L or S, D]
  const mask = mergeMasks(q, k, masks);
  if (!needWeights) {
    // The hint replaces the mask only while nothing was merged into it.
    const isCausal = (masks.isCausal ?? false) && !masks.keyPaddingMask;
    const attnMask = isCausal ? null : mask;
    return [join(scaledDotProductAttention(q, k, v, { attnMask, isCausal, dropoutP: heads.dropout })), null];
  }
  const scaled = q.mul(Math.sqrt(1 / (width / heads.count)));
  const scores = scaled.matmul(k.transpose(-2, -1));
  const weights = dropout(softmax(mask ? scores.add(mask) : scores, -1), heads.dropout);
  return [join(weights.matmul(v)), weights];
}

/** Both masks as one that is added to the scores `[B, H, L, S]`, or null. */
function mergeMasks(q: Tensor, k: Tensor, masks: AttentionMasks): Tensor | null {
  const [batch, count, length] = q.shape as [number, number, number, number];
  const sources = k.shape[2] as number;
  const { attnMask = null, keyPaddingMask = null } = masks;
  let merged: Tensor | null = null;
  if (attnMask) {
    const flat = attnMask.ndim === 2;
    const expected = flat ? [length, sources] : [batch * count, length, sources];
    checkMask('attnMask', attnMask, expected);
    const shape = flat ? [1, 1, length, sources] : [batch, count, length, sources];
    merged = additive(attnMask, q).reshape(shape);
  }
  if (keyPaddingMask) {
    checkMask(
      'keyPaddingMask',
      keyPaddingMask,
      batch === 1 && keyPaddingMask.ndim === 1 ? [sources] : [batch, sources],
    );
    const padding = additive(keyPaddingMask, q).reshape([batch, 1, 1, sources]);
    merged = merged ? merged.add(padding) : padding;
  }
  return merged;
}

function checkMask(name: string, mask: Tensor, expected: number[]): void {
  requireShape(
    'MultiheadAttention',
    mask.shape.join() === expected.join(),
    `${name} must be [${expected.join(', ')}], got ${shapeOf(mask)}.`,
    mask,
  );
}

/** Minus infinity where a bool mask is true; other masks as they are. */
function additive(mask: Tensor, like: Tensor): Tensor {
  if (mask.dtype !== 'bool') return mask.to(like.dtype);
  return like.newZeros([...mask.shape]).maskedFill(mask, Number.NEGATIVE_INFINITY);
}
