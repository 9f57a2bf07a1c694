import { describeValue } from '../describe.js';
import { readNativeError } from '../dispatch/native-errors.js';
import { FmoeError, type FmoeErrorDetails } from '../errors.js';
import { type Handle, native } from '../native/index.js';
import { type DType, dtypeName } from './dtype.js';
import type { Tensor } from './tensor.js';

/** Frees what was born outside every scope and then forgotten. Runs only when the event loop turns. */
const forgotten = new FinalizationRegistry<Handle>((handle) => native().release(handle));

/** What a tensor is without operators: its handle, and what the native table knows of it. */
export class TensorBase {
  /** @internal The name of the tensor in the native table. */
  readonly handle: Handle;
  private cachedShape: readonly number[] | undefined;

  /** @internal Tensors come from factories and operators. */
  constructor(handle: Handle) {
    this.handle = handle;
    this.cachedShape = undefined;
    if (native().activeScope[0] === 0) forgotten.register(this, handle);
  }

  /** Sizes of the dimensions. */
  get shape(): readonly number[] {
    this.cachedShape ??= guarded('shape', () => native().shape(this.handle));
    return this.cachedShape;
  }

  /** @internal An in-place operator may have changed the shape. */
  forgetShape(): void {
    this.cachedShape = undefined;
  }

  /** Element type. */
  get dtype(): DType {
    return guarded('dtype', () => dtypeName(native().dtype(this.handle)));
  }

  /** Where the elements live: `cpu`, `cuda:0` … */
  get device(): string {
    return guarded('device', () => native().device(this.handle));
  }

  /** Number of dimensions. */
  get ndim(): number {
    return this.shape.length;
  }

  /** Number of elements. */
  numel(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }

  /** Steps between elements, in elements, for each dimension. */
  stride(): number[] {
    return guarded('stride', () => native().strides(this.handle));
  }

  /** Whether the elements lie row-major without gaps. */
  isContiguous(): boolean {
    return guarded('isContiguous', () => native().isContiguous(this.handle));
  }

  /** True once the tensor was disposed, by itself or with its scope. */
  get isDisposed(): boolean {
    return !native().isLive(this.handle);
  }

  /**
   * Frees this handle now. What a graph still needs of the tensor stays alive with the graph. Disposing twice is harmless;
   * any other use of a disposed tensor throws `ERR_DISPOSED`, except that its shape, once read, can still be read.
   */
  dispose(): void {
    native().release(this.handle);
  }

  /** `using x = …` disposes at the end of the block. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}

let tensorClass: (new (handle: Handle) => Tensor) | undefined;

/** @internal Set by tensor.ts, which builds on this file. */
export function setTensorClass(implementation: new (handle: Handle) => Tensor): void {
  tensorClass = implementation;
}

/** @internal The tensor of a fresh handle. */
export function wrap(handle: Handle): Tensor {
  return new tensorClass!(handle);
}

/** @internal Handles for the native boundary. */
export function handlesOf(tensors: ArrayLike<TensorBase | null | undefined>): Float64Array {
  const handles = new Float64Array(tensors.length);
  for (let i = 0; i < tensors.length; i++) handles[i] = tensors[i]?.handle ?? 0;
  return handles;
}

/** @internal Registers a tensor that left its scope for good, so that garbage collection frees it in the end. */
export function watchForgotten(tensor: TensorBase): void {
  forgotten.register(tensor, tensor.handle);
}

/**
 * @internal The error that a user sees for one that native code threw. What JavaScript threw, in a hook or in a function of
 * the user's, passes unchanged.
 *
 * @param operands the arguments; tensors among them are described
 * @param names the arguments' names
 */
export function toFmoeError(
  error: unknown,
  op: string,
  operands: readonly unknown[] = [],
  names: readonly string[] = [],
): unknown {
  const failure = readNativeError(error);
  if (failure === undefined) return error;
  const { code, message } = failure;
  const details: FmoeErrorDetails = { op, cause: error };
  const tensors = operands.flat().filter((operand) => operand instanceof TensorBase);
  let argument = /^argument '([^']+)'/.exec(message)?.[1];
  if (code === 'ERR_DISPOSED') {
    const at = operands.findIndex((operand) => [operand].flat().some(isDisposed));
    argument ??= names[at];
    const which =
      argument === undefined
        ? ''
        : ` (argument '${argument}'${tensors.length > 1 ? `, number ${at + 1}` : ''})`;
    if (argument !== undefined) details.argument = argument;
    return new FmoeError(code, `${op}: ${message}${which}`, details);
  }
  if (argument !== undefined) details.argument = argument;
  const live = tensors.filter((tensor) => !tensor.isDisposed);
  if (live.length > 0) {
    details.shapes = live.map((tensor) => tensor.shape);
    details.dtypes = live.map((tensor) => tensor.dtype);
    details.devices = live.map((tensor) => tensor.device);
  }
  return new FmoeError(code, `${op}: ${message}${contextOf(code, operands)}`, details);
}

const isDisposed = (operand: unknown): boolean => operand instanceof TensorBase && operand.isDisposed;

/** The arguments, where sizes or dtypes are what went wrong and the message may not say which. */
function contextOf(code: string, operands: readonly unknown[]): string {
  if (!['ERR_SHAPE', 'ERR_DTYPE', 'ERR_INDEX', 'ERR_OUT_OF_MEMORY'].includes(code) || operands.length === 0)
    return '';
  const given = operands.filter((operand) => operand !== undefined);
  return ` (arguments: ${given.map(describeOperand).join(', ')})`;
}

function describeOperand(operand: unknown): string {
  if (operand instanceof TensorBase)
    return operand.isDisposed ? 'disposed' : `${operand.dtype}[${operand.shape.join(', ')}]`;
  if (Array.isArray(operand) && operand.some((item) => item instanceof TensorBase)) {
    const items = operand.slice(0, 8).map(describeOperand);
    return `[${items.join(', ')}${operand.length > 8 ? `, … ${operand.length - 8} more` : ''}]`;
  }
  return describeValue(operand);
}

/** @internal Runs native code and turns what it throws into an FmoeError. */
export function guarded<Result>(op: string, body: () => Result, operands?: readonly unknown[]): Result {
  try {
    return body();
  } catch (error) {
    throw toFmoeError(error, op, operands);
  }
}
