import { FmoeError, type FmoeErrorCode } from './errors.js';
import { full, tensor } from './factories.js';
import { op, type Scalar } from './op.js';
import type { Tensor } from './tensor.js';
import { TensorBase } from './tensor-base.js';

/** A range of positions: Python's `start:stop:step`. Made by {@link slice}. */
export interface Slice {
  readonly start?: number | undefined;
  readonly stop?: number | undefined;
  readonly step?: number | undefined;
}

/**
 * What picks elements along one dimension (or makes a new one):
 * - an integer (negative counts from the end) picks one position and drops the dimension;
 * - a {@link Slice} picks a range;
 * - `null` makes a new dimension of size 1;
 * - `'...'` stands for as many whole dimensions as are left;
 * - an int64 or int32 tensor, or an array of integers, picks positions, which may repeat;
 * - a bool tensor, over as many dimensions as it has, picks where it is true.
 */
export type Index = number | Slice | null | '...' | Tensor | readonly number[];

/**
 * A range for `x.at(...)` and `x.set(...)`: Python's `start:stop:step`.
 *
 * @param start first position; default the first of the dimension. Negative counts from the end.
 * @param stop position after the last; default the end of the dimension
 * @param step distance between positions, 1 or more
 * @throws FmoeError ERR_INDEX for a bound that is no integer or a step below 1
 */
export function slice(start?: number, stop?: number, step?: number): Slice {
  for (const [name, bound] of Object.entries({ start, stop, step })) {
    if (bound !== undefined && !Number.isSafeInteger(bound)) {
      throw indexError(
        'slice',
        `${name} is ${String(bound)}, expected an integer. Leave it undefined for the default.`,
      );
    }
  }
  if (step !== undefined && step < 1) {
    throw indexError(
      'slice',
      `step is ${step}, but must be 1 or more. To walk backwards, use x.flip([dim]).`,
    );
  }
  return { start, stop, step };
}

function indexError(
  operation: string,
  problem: string,
  shapes?: readonly (readonly number[])[],
  code: FmoeErrorCode = 'ERR_INDEX',
): FmoeError {
  return new FmoeError(code, `${operation}: ${problem}`, { op: operation, ...(shapes && { shapes }) });
}

const isTensor = (index: Index): index is Tensor => index instanceof TensorBase;
const isMask = (index: Index): index is Tensor => isTensor(index) && index.dtype === 'bool';
const isList = (index: Index): index is readonly number[] => Array.isArray(index);

/** How many of the tensor's dimensions an index takes. */
function dimensionsTaken(index: Index): number {
  if (index === null || index === '...') return 0;
  return isMask(index) ? index.ndim : 1;
}

/** A chain of views in which each step frees the one before, so that none is left to a scope. */
class ViewChain {
  current: Tensor;
  readonly #source: Tensor;

  constructor(source: Tensor) {
    this.#source = source;
    this.current = source;
  }

  replace(view: Tensor): void {
    this.release();
    this.current = view;
  }

  release(): void {
    if (this.current !== this.#source) this.current.dispose();
    this.current = this.#source;
  }
}

/** A view, and the index tensors still to be applied to its dimensions (null for a whole one). */
interface Resolved {
  chain: ViewChain;
  advanced: (Tensor | null)[];
  /** Tensors made on the way. */
  temporaries: Tensor[];
}

/** Walks over the indices as over the dimensions of the result of those before. */
class Resolver {
  readonly chain: ViewChain;
  readonly advanced: (Tensor | null)[] = [];
  readonly temporaries: Tensor[] = [];
  #dimension = 0;

  constructor(
    private readonly operation: string,
    private readonly source: Tensor,
    private readonly indices: readonly Index[],
  ) {
    this.chain = new ViewChain(source);
  }

  run(): Resolved {
    const taken = this.indices.reduce((sum: number, index) => sum + dimensionsTaken(index), 0);
    const { ndim } = this.source;
    if (taken > ndim) this.#fail(`too many indices: ${taken} for a tensor of ${ndim} dimensions.`);
    if (this.indices.filter((index) => index === '...').length > 1) this.#fail("'...' may occur only once.");
    try {
      for (const index of this.indices) this.#apply(index, ndim - taken);
      return this;
    } catch (error) {
      release(this);
      throw error;
    }
  }

  #fail(problem: string, code?: FmoeErrorCode): never {
    throw indexError(this.operation, problem, [this.source.shape], code);
  }

  #apply(index: Index, remaining: number): void {
    if (typeof index === 'number') this.#select(index);
    else if (index === null) this.#whole(op('aten::unsqueeze')(this.chain.current, this.#dimension));
    else if (index === '...') {
      for (let i = 0; i < remaining; i++) this.#whole();
    } else if (isTensor(index)) this.#gather(index);
    else if (isList(index)) this.#gather(this.#listTensor(index));
    else if (typeof index === 'object') this.#slice(index);
    else {
      const hint = 'Use integers, slice(), null, arrays of integers, index tensors or masks.';
      this.#fail(`${String(index)} is no index. ${hint}`, 'ERR_ARGUMENT');
    }
  }

  /** Leaves one dimension of the (new) view as it is. */
  #whole(view?: Tensor): void {
    if (view) this.chain.replace(view);
    this.advanced.push(null);
    this.#dimension += 1;
  }

  #select(index: number): void {
    const size = this.chain.current.shape[this.#dimension]!;
    this.#checkPosition(index, size);
    this.chain.replace(op('aten::select.int')(this.chain.current, this.#dimension, index));
  }

  #checkPosition(index: number, size: number): void {
    if (!Number.isSafeInteger(index)) this.#fail(`index ${index} is not an integer.`);
    if (index < -size || index >= size) {
      this.#fail(`index ${index} is out of range for dimension ${this.#dimension} of size ${size}.`);
    }
  }

  #slice(range: Slice): void {
    const { start, stop, step } = slice(range.start, range.stop, range.step);
    if (start === undefined && stop === undefined && step === undefined) this.#whole();
    else
      this.#whole(
        op('aten::slice.Tensor')(this.chain.current, this.#dimension, start ?? null, stop ?? null, step ?? 1),
      );
  }

  #listTensor(list: readonly number[]): Tensor {
    const size = this.chain.current.shape[this.#dimension]!;
    for (const index of list) this.#checkPosition(index, size);
    return this.#temporary(tensor(list, { dtype: 'int64' }));
  }

  #temporary(made: Tensor): Tensor {
    this.temporaries.push(made);
    return made;
  }

  #gather(index: Tensor): void {
    const { dtype, shape } = index;
    if (dtype === 'bool') {
      this.#mask(index);
      return;
    }
    if (dtype !== 'int64' && dtype !== 'int32') {
      this.#fail(`an index tensor is ${dtype}, expected int64 or int32, or bool for a mask.`, 'ERR_DTYPE');
    }
    if (shape.length === 0) {
      this.#select(index.item());
      return;
    }
    this.advanced.push(index);
    this.#dimension += 1;
  }

  #mask(mask: Tensor): void {
    const { shape } = mask;
    if (shape.length === 0) {
      // Without dimensions it keeps all or nothing: a mask over a new dimension of size 1.
      this.chain.replace(op('aten::unsqueeze')(this.chain.current, this.#dimension));
      this.advanced.push(this.#temporary(mask.reshape([1])));
      this.#dimension += 1;
      return;
    }
    const covered = this.chain.current.shape.slice(this.#dimension, this.#dimension + shape.length);
    if (String(covered) !== String(shape)) {
      const place = `dimensions ${this.#dimension} to ${this.#dimension + shape.length - 1}`;
      this.#fail(
        `a mask of shape [${shape.join(', ')}] lies over ${place}, which have shape [${covered.join(', ')}].`,
      );
    }
    this.advanced.push(mask);
    this.#dimension += shape.length;
  }
}

function release({ chain, temporaries }: Resolved): void {
  chain.release();
  for (const temporary of temporaries) temporary.dispose();
}

const gathers = ({ advanced }: Resolved): boolean => advanced.some((index) => index !== null);

/**
 * The elements at `indices`, as Python's `x[...]`: a view for integers, slices, `null` and `'...'`, a new tensor once an index
 * tensor or a mask takes part. If index tensors stand next to each other their dimensions stay in place, otherwise they come
 * first. Missing indices take whole dimensions.
 *
 * @returns always a fresh handle, also when nothing is picked out
 * @throws FmoeError ERR_INDEX for an index out of range, too many indices, a second `'...'`, a mask of another shape or a step
 *   below 1; ERR_DTYPE for an index tensor of another dtype; ERR_ARGUMENT for anything else
 */
export function indexTensor(source: Tensor, indices: readonly Index[]): Tensor {
  const resolved = new Resolver('at', source, indices).run();
  const { chain, advanced } = resolved;
  try {
    if (gathers(resolved)) return op('aten::index.Tensor')(chain.current, advanced);
    if (chain.current === source) return op('aten::alias')(source);
    const view = chain.current;
    chain.current = source;
    return view;
  } finally {
    release(resolved);
  }
}

/** Drops leading dimensions of size 1, which an assignment may have too many of. */
function withoutLeadingOnes(value: Tensor): Tensor {
  const first = value.shape.findIndex((size) => size !== 1);
  return value.reshape(value.shape.slice(first === -1 ? value.ndim : first));
}

/**
 * Writes `value` into the elements at `indices`, in place, as Python's `x[...] = value`. The value is broadcast. Where an index
 * tensor names a position twice, which value ends there is not defined.
 *
 * @throws FmoeError as {@link indexTensor}; ERR_SHAPE (or ERR_INDEX) when the value cannot be broadcast; ERR_DTYPE when index
 *   tensors take part and the value has another dtype; ERR_AUTOGRAD for a leaf that requires gradients
 */
export function setIndex(target: Tensor, indices: readonly Index[], value: Tensor | Scalar): void {
  const resolved = new Resolver('set', target, indices).run();
  const { chain, advanced, temporaries } = resolved;
  try {
    const view = chain.current;
    if (value instanceof TensorBase) {
      const values = withoutLeadingOnes(value);
      if (values !== value) temporaries.push(values);
      if (gathers(resolved)) op('aten::index_put_')(view, advanced, values);
      else op('aten::copy_')(view, values);
    } else if (gathers(resolved)) {
      const scalar = full([], value, { dtype: target.dtype, device: target.device });
      temporaries.push(scalar);
      op('aten::index_put_')(view, advanced, scalar);
    } else {
      op('aten::fill_.Scalar')(view, value);
    }
  } finally {
    release(resolved);
  }
}
