/** Shape letters: Q query length, M memory length, L = M + Q key length. */
import { arange, type DType, keep, noGrad, type Tensor, tidy, zeros } from '@fmoe/torch';

/** How many masks of different lengths are kept; text generation asks for a new one each step until the memory is full. */
const capacity = 32;

/** What an attention mask depends on. */
export interface MaskRequest {
  qlen: number;
  mlen: number;
  memLen: number;
  sameLength: boolean;
  dtype: DType;
  device: string;
}

/**
 * Which keys a query must not see: `[Q, L]` bool. These are the keys after it and, with `sameLength`, those more than
 * `memLen - 1` positions before it.
 */
export function forbiddenKeys(request: Omit<MaskRequest, 'dtype'>): Tensor {
  const { qlen, mlen, memLen, sameLength, device } = request;
  return tidy(() => {
    const klen = qlen + mlen;
    const query = arange(qlen, { dtype: 'int64', device }).unsqueeze(1);
    const key = arange(klen, { dtype: 'int64', device }).unsqueeze(0);
    const future = key.gt(query.add(mlen));
    if (!sameLength) return future;
    // Query i stands at key i + mlen.
    return future.logicalOr(key.le(query.add(mlen - memLen)));
  });
}

/**
 * The additive mask `[1, Q, L+1]`, 0 or -inf, in the layout in which scores are before the relative shift: it is the first
 * summand of the matrix product that makes those scores, so masking costs no operator of its own.
 */
export function shiftedMask(request: MaskRequest): Tensor {
  return tidy(() =>
    noGrad(() => {
      const { qlen, mlen, dtype, device } = request;
      const klen = qlen + mlen;
      const mask = zeros([qlen * (klen + 1)], { dtype, device });
      const visible = mask.narrow(0, qlen - 1, qlen * klen);
      visible.maskedFill_(forbiddenKeys(request).reshape([-1]), Number.NEGATIVE_INFINITY);
      return mask.view([1, qlen, klen + 1]);
    }),
  );
}

/** Makes each mask once; the masks belong to no scope. */
export class MaskCache {
  readonly #masks = new Map<string, Tensor>();

  get(request: MaskRequest): Tensor {
    const { qlen, mlen, memLen, sameLength, dtype, device } = request;
    const key = `${qlen} ${mlen} ${sameLength ? memLen : ''} ${dtype} ${device}`;
    const found = this.#masks.get(key);
    if (found) return found;
    if (this.#masks.size >= capacity) this.clear();
    const mask = keep(shiftedMask(request));
    this.#masks.set(key, mask);
    return mask;
  }

  /** Frees all masks. */
  clear(): void {
    for (const mask of this.#masks.values()) mask.dispose();
    this.#masks.clear();
  }
}
