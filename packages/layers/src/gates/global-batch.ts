/**
 * What a gate computes over the tokens of all ranks as if one process had them. A `group` of null stands for a batch of this
 * rank's tokens alone.
 *
 * Gradients are those of a run whose gradients are averaged over the ranks afterwards, as data parallelism does: averaged,
 * they are the gradients of the one process.
 *
 * Shape letters: T tokens of this rank, N all experts, W ranks.
 */
import { full, noGrad, type Tensor, tensor } from '@fmoe/torch';
import type { GateGroup } from './base-gate.js';

type Batch = GateGroup | null;

/** The sum over the ranks; no gradient. */
export function sumOverBatch(values: Tensor, group: Batch): Tensor {
  if (group === null) return values;
  return noGrad(() => group.allReduce_(values.detach().clone()));
}

/** The sum over the ranks, differentiable. */
export function differentiableSum(values: Tensor, group: Batch): Tensor {
  if (group === null) return values;
  const scaled = values.mul(group.size);
  return scaled.sub(scaled.detach()).add(sumOverBatch(values, group));
}

/**
 * Mean over all tokens.
 *
 * @param rows `[T, N]`
 * @returns `[T, N]` itself for this rank's tokens alone, else their common mean as `[1, N]`: the mean over dimension 0 is the
 * same
 */
export function meanOverBatch(rows: Tensor, group: Batch): Tensor {
  if (group === null) return rows;
  const tokens = sumOverBatch(
    full([1, 1], rows.shape[0]!, { dtype: rows.dtype, device: rows.device }),
    group,
  );
  return differentiableSum(rows.sum([0], true), group).div(tokens.clampMin(1));
}

/** The mean over all tokens of what is given as the mean over this rank's, a scalar. */
export function meanOfRanks(mean: Tensor, tokens: number, group: Batch): Tensor {
  if (group === null) return mean;
  const total = sumOverBatch(full([], tokens, { dtype: mean.dtype, device: mean.device }), group);
  return differentiableSum(mean.mul(tokens), group).div(total.clampMin(1));
}

/** The ranks' tensors `[1, …]` one after the other, `[W, …]`; no gradient. */
export function gatherOfRanks(row: Tensor, group: Batch): Tensor {
  if (group === null) return row;
  const one = group.members.map(() => 1);
  return noGrad(() => group.allGather(row, one));
}

/** How many tokens each rank has. Reads them from the device. */
export function tokensOfRanks(tokens: number, device: string, group: GateGroup): number[] {
  const all = gatherOfRanks(tensor([tokens], { dtype: 'int64', device }), group);
  return Array.from(all.cpu().data() as BigInt64Array, Number);
}

/**
 * Random rows for this rank's tokens: drawn for all tokens of the batch on each rank, so that with equal seeds a token gets
 * the same numbers however the tokens are spread over the ranks.
 *
 * @param draw such as `(shape) => rand(shape)`
 * @returns `[T, width]`
 */
export function drawRows(
  draw: (shape: number[]) => Tensor,
  [tokens, width]: readonly [tokens: number, width: number],
  device: string,
  group: Batch,
): Tensor {
  if (group === null) return draw([tokens, width]);
  const counts = tokensOfRanks(tokens, device, group);
  const before = counts.slice(0, group.rank).reduce((a, b) => a + b, 0);
  const total = counts.reduce((a, b) => a + b, 0);
  return draw([total, width]).narrow(0, before, tokens);
}
