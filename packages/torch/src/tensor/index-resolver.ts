import { op } from '../dispatch/op.js';
import type { FmoeErrorCode } from '../errors.js';
import { tensor } from './factories.js';
import { type Index, indexError, type Slice, slice } from './slice.js';
import type { Tensor } from './tensor.js';
import { TensorBase } from './tensor-base.js';

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
export interface ResolvedIndices {
  chain: ViewChain;
  advanced: (Tensor | null)[];
  /** Tensors made on the way. */
  temporaries: Tensor[];
}

/** Walks over the indices as over the dimensions of the result of those before. */
export class IndexResolver {
  readonly chain: ViewChain;
  readonly advanced: (Tensor | null)[] = [];
  readonly temporaries: Tensor[] = [];
  #dimension = 0;
  /** How far the view's dimensions lie behind those of the source; for messages. */
  #shift = 0;

  constructor(
    private readonly operation: string,
    private readonly source: Tensor,
    private readonly indices: readonly Index[],
  ) {
    this.chain = new ViewChain(source);
  }

  run(): ResolvedIndices {
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
    else if (index === null) {
      this.#insert();
      this.#whole();
    } else if (index === '...') {
      for (let i = 0; i < remaining; i++) this.#whole();
    } else if (isTensor(index)) this.#gather(index);
    else if (isList(index)) this.#gather(this.#listTensor(index));
    else if (typeof index === 'object') this.#slice(index);
    else {
      const hint = 'Use integers, slice(), null, arrays of integers, index tensors or masks.';
      this.#fail(`${String(index)} is no index. ${hint}`, 'ERR_ARGUMENT');
    }
  }

  /** Puts in a dimension of size 1. */
  #insert(): void {
    this.chain.replace(op('aten::unsqueeze')(this.chain.current, this.#dimension));
    this.#shift -= 1;
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
    this.#shift += 1;
  }

  #checkPosition(index: number, size: number): void {
    if (!Number.isSafeInteger(index)) this.#fail(`index ${index} is not an integer.`);
    if (index < -size || index >= size) {
      this.#fail(
        `index ${index} is out of range for dimension ${this.#dimension + this.#shift} of size ${size}.`,
      );
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
      this.#insert();
      this.advanced.push(this.#temporary(mask.reshape([1])));
      this.#dimension += 1;
      return;
    }
    const covered = this.chain.current.shape.slice(this.#dimension, this.#dimension + shape.length);
    if (String(covered) !== String(shape)) {
      const first = this.#dimension + this.#shift;
      const place = `dimensions ${first} to ${first + shape.length - 1}`;
      this.#fail(
        `a mask of shape [${shape.join(', ')}] lies over ${place}, which have shape [${covered.join(', ')}].`,
      );
    }
    this.advanced.push(mask);
    this.#dimension += shape.length;
  }
}

/** Frees what resolving made. */
export function release({ chain, temporaries }: ResolvedIndices): void {
  chain.release();
  for (const temporary of temporaries) temporary.dispose();
}
