/** Shape letters: Q query length, T target length, B batch, M memory length, D model width. */
import { FmoeError, type Tensor } from '@fmoe/torch';

/** Token ids `[length, B]` in int64 or int32, else `ERR_SHAPE` or `ERR_DTYPE`. */
export function checkTokenIds(argument: string, ids: Tensor): void {
  const { shape, dtype } = ids;
  if (shape.length !== 2 || shape[0] === 0 || shape[1] === 0) {
    throw wrongShape(
      argument,
      `has shape [${shape.join(', ')}], expected [length, batch] with at least one token`,
      ids,
    );
  }
  if (dtype !== 'int64' && dtype !== 'int32') {
    throw new FmoeError('ERR_DTYPE', `TransformerXL: ${argument} is ${dtype}, expected token ids in int64.`, {
      op: 'TransformerXL',
      argument,
      dtypes: [dtype],
    });
  }
}

/** Targets `[T, B]` for the last T of Q positions. */
export function checkTarget(data: Tensor, target: Tensor): void {
  checkTokenIds('target', target);
  const [qlen, bsz] = data.shape as [number, number];
  const [tlen, columns] = target.shape as [number, number];
  if (columns === bsz && tlen <= qlen) return;
  throw wrongShape(
    'target',
    `has shape [${tlen}, ${columns}], but data has [${qlen}, ${bsz}]: expected as many columns and at most as many rows`,
    data,
    target,
  );
}

/** One memory `[M, B, D]` per layer and one for the embedding, all of one length, or none at all. */
export function checkMems(mems: readonly Tensor[], nLayer: number, bsz: number, dModel: number): void {
  if (mems.length === 0) return;
  if (mems.length !== nLayer + 1) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `TransformerXL: got ${mems.length} memories, expected ${nLayer + 1} (one per layer and one for the embedding) or none.`,
      { op: 'TransformerXL', argument: 'mems' },
    );
  }
  const length = mems[0]!.shape[0];
  for (const mem of mems) {
    const { shape } = mem;
    if (shape.length === 3 && shape[0] === length && shape[1] === bsz && shape[2] === dModel) continue;
    throw wrongShape(
      'mems',
      `hold a tensor of shape [${shape.join(', ')}], expected [${length}, ${bsz}, ${dModel}]`,
      mem,
    );
  }
}

function wrongShape(argument: string, problem: string, ...tensors: Tensor[]): FmoeError {
  return new FmoeError('ERR_SHAPE', `TransformerXL: ${argument} ${problem}.`, {
    op: 'TransformerXL',
    argument,
    shapes: tensors.map((tensor) => [...tensor.shape]),
  });
}
