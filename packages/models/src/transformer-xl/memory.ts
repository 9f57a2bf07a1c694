/** Shape letters: M memory length, Q query length, B batch, D model width. */
import { cat, keep, type Tensor } from '@fmoe/torch';

/**
 * The hidden states that the next segment remembers: for each layer the last `memLen` of what was remembered and what is
 * new, without the last `extLen` new ones, which the next segment reads again.
 *
 * @param hids new hidden states, one `[Q, B, D]` per layer and one for the embedding
 * @param mems remembered ones `[M, B, D]`, as many; empty when there are none
 * @returns detached tensors `[M', B, D]`, or an empty list with `memLen` 0
 */
export function nextMems(
  hids: readonly Tensor[],
  mems: readonly Tensor[],
  memLen: number,
  extLen: number,
): Tensor[] {
  if (memLen === 0) return [];
  const qlen = hids[0]!.shape[0]!;
  const mlen = mems[0]?.shape[0] ?? 0;
  const used = Math.max(0, qlen - extLen);
  const fromMem = Math.min(mlen, Math.max(0, memLen - used));
  const fresh = Math.min(used, memLen);
  return hids.map((hid, index) => {
    const detached = hid.detach();
    const recent = fresh === qlen ? detached : detached.narrow(0, used - fresh, fresh);
    return fromMem === 0 ? recent : cat([mems[index]!.narrow(0, mlen - fromMem, fromMem), recent], 0);
  });
}

/**
 * Holds the memory of a stream of segments from step to step. Its tensors belong to no scope: a step inside `tidy` can
 * store what it computed, and what was stored before is freed.
 *
 * @example
 * const memory = new SegmentMemory();
 * tidy(() => {
 *   const { loss, mems } = model.call(data, target, memory.tensors);
 *   memory.replace(mems);
 * });
 */
export class SegmentMemory {
  #tensors: readonly Tensor[] = [];

  /** One `[M, B, D]` per layer and one for the embedding; empty at the start of a stream. */
  get tensors(): readonly Tensor[] {
    return this.#tensors;
  }

  /** Stores the memory for the next segment and frees the one before. */
  replace(mems: readonly Tensor[]): void {
    const previous = this.#tensors;
    this.#tensors = keep([...mems]);
    for (const tensor of previous) if (!mems.includes(tensor)) tensor.dispose();
  }

  /** Forgets everything, as at the start of a stream. */
  clear(): void {
    this.replace([]);
  }
}
