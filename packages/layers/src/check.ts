import { checkOptions, FmoeError, Tensor } from '@fmoe/torch';

/**
 * Options of no other names than those that the class of what is made declares for itself as `optionNames`, else `ERR_ARGUMENT`.
 * A class that declares none may take more than its base knows: its options are not looked at.
 */
export function checkOptionsOf(
  made: { readonly name: string; readonly optionNames: readonly string[] },
  options: object,
): void {
  if (Object.hasOwn(made, 'optionNames')) checkOptions(made.name, options, made.optionNames);
}

/** An integer of at least `least`, else `ERR_ARGUMENT` with the owner's and the option's name. */
export function checkSize(owner: string, option: string, value: number, least = 1): number {
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${owner}: ${option} must be an integer of at least ${least}, got ${String(value)}.`,
    {
      op: owner,
      argument: option,
    },
  );
}

/** How many experts a token chooses: a positive integer of at most all experts. */
export function checkTopK(owner: string, topK: number, numExpert: number): number {
  checkSize(owner, 'topK', topK);
  if (topK <= numExpert) return topK;
  throw new FmoeError(
    'ERR_ARGUMENT',
    `${owner}: topK is ${topK}, but there are only ${numExpert} experts to choose from. Lower topK or raise numExpert.`,
    { op: owner, argument: 'topK' },
  );
}

/** Floating-point tokens `[..., D]` of the given width, else `ERR_SHAPE` or `ERR_DTYPE`; `ERR_ARGUMENT` for a nest. */
export function checkTokens(owner: string, x: Tensor, width: number): void {
  if (!(x instanceof Tensor)) {
    throw new FmoeError(
      'ERR_ARGUMENT',
      `${owner}: the input is no tensor. A layer of nests needs a gate whose forward takes them.`,
      { op: owner, argument: 'x' },
    );
  }
  const { shape } = x;
  if (shape.length < 2 || shape.at(-1) !== width) {
    throw new FmoeError(
      'ERR_SHAPE',
      `${owner}: the input has shape [${shape.join(', ')}], expected [..., ${width}]: rows of dModel numbers, one per token.`,
      { op: owner, argument: 'x', shapes: [shape] },
    );
  }
  if (!x.dtype.includes('float')) {
    throw new FmoeError('ERR_DTYPE', `${owner}: the input is ${x.dtype}, expected a floating-point tensor.`, {
      op: owner,
      argument: 'x',
      dtypes: [x.dtype],
    });
  }
}
