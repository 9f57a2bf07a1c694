/** Shape letters: T tokens, D' width of the output. */
import { FmoeError, Tensor, tensor, where, zeros } from '@fmoe/torch';
import { leavesOf, mapNest, type Nest } from './nest.js';

/** What masked tokens get, by the value that the mask holds for them: a number, or a tensor that fits their rows `[D']`. */
export type MaskValues = Readonly<Record<number, number | Tensor>>;

/**
 * Runs a layer on the tokens whose mask is 0 alone; the others never reach gate, hook, losses or experts. Each of those gets
 * the value that `maskDict` has for its mask, or zeros.
 *
 * Which tokens are left is read on the host, once.
 *
 * @param mask integer or bool, one element for each token in any arrangement
 * @param x `[T, D]`, or a nest of such tensors
 * @param body the layer, for some of the rows
 * @throws FmoeError `ERR_SHAPE` when the mask has not one element for each token, `ERR_DTYPE` for a floating-point mask.
 */
export function withMask(
  owner: string,
  mask: Tensor,
  maskDict: MaskValues,
  x: Nest,
  body: (kept: Nest) => Nest,
): Nest {
  const [first] = leavesOf(x) as [Tensor];
  const tokens = first.shape[0] as number;
  checkMask(owner, mask, tokens);
  const flat = mask.detach().to({ device: first.device, dtype: 'int64' }).reshape([tokens]);
  const kept = flat.eq(0).nonzero().squeeze(1);
  const output = body(mapNest(x, (leaf) => leaf.indexSelect(0, kept)));
  return mapNest(output, (rows) => {
    const width = rows.shape[1] as number;
    const { dtype, device } = rows;
    let whole = zeros([tokens, width], { dtype, device }).indexCopy_(0, kept, rows);
    for (const [key, value] of Object.entries(maskDict)) {
      const filler =
        typeof value === 'number' ? tensor(value, { dtype, device }) : value.to({ dtype, device });
      checkFiller(owner, key, filler, width);
      whole = where(flat.eq(Number(key)).unsqueeze(1), filler, whole);
    }
    return whole;
  });
}

function checkMask(owner: string, mask: Tensor, tokens: number): void {
  if (!(mask instanceof Tensor)) {
    throw new FmoeError('ERR_ARGUMENT', `${owner}: mask must be a tensor or null, got ${String(mask)}.`, {
      op: owner,
      argument: 'mask',
    });
  }
  if (mask.dtype.includes('float')) {
    throw new FmoeError('ERR_DTYPE', `${owner}: mask is ${mask.dtype}, expected integers or bools.`, {
      op: owner,
      argument: 'mask',
      dtypes: [mask.dtype],
    });
  }
  if (mask.numel() === tokens) return;
  throw new FmoeError(
    'ERR_SHAPE',
    `${owner}: mask has shape [${mask.shape.join(', ')}], expected one element for each of ${tokens} tokens.`,
    { op: owner, argument: 'mask', shapes: [mask.shape] },
  );
}

function checkFiller(owner: string, key: string, value: Tensor, width: number): void {
  const { shape } = value;
  if (shape.length === 0 || (shape.length === 1 && (shape[0] === 1 || shape[0] === width))) return;
  throw new FmoeError(
    'ERR_SHAPE',
    `${owner}: maskDict has a tensor of shape [${shape.join(', ')}] for ${key}, expected a number or [${width}].`,
    { op: owner, argument: 'maskDict', shapes: [shape] },
  );
}

/**
 * @throws FmoeError `ERR_ARGUMENT` for keys that are no integers other than 0, the mask of tokens that are kept, and for values that
 * are no numbers or tensors.
 */
export function checkMaskValues(owner: string, values: MaskValues): MaskValues {
  const refuse = (problem: string): never => {
    throw new FmoeError('ERR_ARGUMENT', `${owner}: maskDict ${problem}.`, {
      op: owner,
      argument: 'maskDict',
    });
  };
  if (typeof values !== 'object' || values === null) refuse(`must be an object, got ${String(values)}`);
  for (const [key, value] of Object.entries(values)) {
    if (!Number.isInteger(Number(key)) || Number(key) === 0) {
      refuse(`has the key ${key}; keys are the mask's integers, and 0 means that a token is kept`);
    }
    if (typeof value !== 'number' && !(value instanceof Tensor)) {
      refuse(`has ${String(value)} for ${key}, expected a number or a tensor`);
    }
  }
  return values;
}
