import {
  type BackwardOptions,
  backward,
  type GradientHook,
  type HookHandle,
  registerHook,
} from '../autograd/backward.js';
import { checkBoolean, checkOptions, checkTensor } from '../check.js';
import { checkDevice } from '../devices/device.js';
import { op, type Scalar } from '../dispatch/op.js';
import { FmoeError } from '../errors.js';
import { methodNames } from '../generated/overloads.js';
import type { TensorMethods } from '../generated/tensor-methods.js';
import { native } from '../native/index.js';
import { formatTensor } from '../printing/format-tensor.js';
import { type NestedArray, readArray, readArrayAsync, readData, readItem } from './data.js';
import { type DType, dtypes, isDType, type TypedArray } from './dtype.js';
import { type Index, indexTensor, setIndex } from './indexing.js';
import { installMethods } from './surface.js';
import { guarded, setTensorClass, TensorBase, wrap } from './tensor-base.js';

/** Where a tensor goes, and as what. */
export interface ToOptions {
  dtype?: DType;
  device?: string;
  /** Do not wait for a copy between host and device. */
  nonBlocking?: boolean;
  /** Copy even when nothing changes. */
  copy?: boolean;
}

// Every operator of the generated surface is a method as well.
export interface Tensor extends TensorMethods {}

/**
 * An n-dimensional array with PyTorch's semantics: broadcasting, views that share memory, in-place methods that end in an
 * underscore. Made by factories (`torch.zeros`, `torch.tensor` …) and operators.
 *
 * A tensor belongs to the scope that it was born in (see `tidy`, `scope`); outside every scope it is freed by
 * `dispose()` or, some time later, by garbage collection.
 */
export class Tensor extends TensorBase {
  /** Whether gradients are computed for this tensor. Can be set on leaves. */
  get requiresGrad(): boolean {
    return guarded('requiresGrad', () => native().requiresGrad(this.handle));
  }

  set requiresGrad(value: boolean) {
    checkBoolean('requiresGrad', 'value', value);
    guarded('requiresGrad', () => native().setRequiresGrad(this.handle, value), [this]);
  }

  /** Sets `requiresGrad` and gives back this tensor. */
  requiresGrad_(value = true): this {
    this.requiresGrad = value;
    return this;
  }

  /** The gradient that `backward()` has added up here, or null. Each read gives a fresh handle to the same memory. */
  get grad(): Tensor | null {
    const handle = guarded('grad', () => native().getGradient(this.handle));
    return handle === 0 ? null : wrap(handle);
  }

  set grad(value: Tensor | null) {
    if (value !== null) checkTensor('grad', 'value', value);
    guarded('grad', () => native().setGradient(this.handle, value?.handle ?? 0), [this, value]);
  }

  /** Whether this tensor was made by the user and not by an operator that is recorded. */
  get isLeaf(): boolean {
    return guarded('isLeaf', () => native().isLeaf(this.handle));
  }

  /** The name of the graph node that made this tensor, such as `AddBackward0`; null for a leaf. */
  get gradFn(): string | null {
    return guarded('gradFn', () => native().gradFunctionName(this.handle));
  }

  /** Computes the gradients of the graph's leaves. See `torch.autograd.backward`. */
  backward(gradient?: Tensor | null, options?: BackwardOptions): void {
    backward([this], gradient === undefined ? undefined : [gradient], options);
  }

  /** Keeps the gradient of a tensor that is no leaf, readable as `grad` after `backward()`. */
  retainGrad(): void {
    guarded('retainGrad', () => native().retainGradient(this.handle), [this]);
  }

  /** Calls `hook` with this tensor's gradient in every backward; a tensor that it returns takes the gradient's place. */
  registerHook(hook: GradientHook): HookHandle {
    return registerHook(this, hook);
  }

  /** The same memory without history. */
  detach(): Tensor {
    return op('aten::detach')(this) as Tensor;
  }

  /** All sizes, or the size of one dimension (negative counts from the end). */
  size(): readonly number[];
  size(dim: number): number;
  size(dim?: number): readonly number[] | number {
    const { shape } = this;
    if (dim === undefined) return shape;
    const size = shape.at(dim);
    if (size === undefined || !Number.isInteger(dim)) {
      throw new FmoeError('ERR_INDEX', `size(${dim}): the tensor has ${shape.length} dimensions`, {
        op: 'size',
        shapes: [shape],
      });
    }
    return size;
  }

  /** The transpose of a matrix: dimensions in reverse. A view. */
  get T(): Tensor {
    return op('aten::numpy_T')(this) as Tensor;
  }

  /**
   * This tensor as another dtype, on another device, or both. Gives back this very tensor when nothing changes (unless
   * `copy` is set). Differentiable.
   *
   * @throws FmoeError `ERR_ARGUMENT` for what is neither, `ERR_DEVICE` for a device that is not there.
   */
  to(target: DType | string | ToOptions): Tensor {
    const { dtype, device, nonBlocking, copy } = destination(target);
    const present = this.device;
    const stays = dtype === undefined || dtype === this.dtype;
    if (stays && copy !== true && (device === undefined || device === present || isCurrent(device, present)))
      return this;
    return op('aten::to.dtype_layout')(this, {
      dtype: dtype ?? this.dtype,
      device: device ?? present,
      nonBlocking,
      copy,
    }) as Tensor;
  }

  /** As float32. */
  float(): Tensor {
    return this.to('float32');
  }

  /** As float64. */
  double(): Tensor {
    return this.to('float64');
  }

  /** As float16. */
  half(): Tensor {
    return this.to('float16');
  }

  /** As bfloat16. */
  bfloat16(): Tensor {
    return this.to('bfloat16');
  }

  /** As int64. */
  long(): Tensor {
    return this.to('int64');
  }

  /** As int32. */
  int(): Tensor {
    return this.to('int32');
  }

  /** As bool: whether each element is not zero. */
  bool(): Tensor {
    return this.to('bool');
  }

  /** On the CPU. */
  cpu(): Tensor {
    return this.to('cpu');
  }

  /** On a GPU. */
  cuda(index?: number): Tensor {
    return this.to(index === undefined ? 'cuda' : `cuda:${index}`);
  }

  /**
   * The element at integer indices, the view of slices, a gather by index tensors: `x.at(0)`, `x.at(slice(1, 3), null)`,
   * `x.at('...', -1)`, `x.at(mask)`. The same as Python's `x[…]`.
   */
  at(...indices: Index[]): Tensor {
    return indexTensor(this, indices);
  }

  /** Writes into the elements that {@link at} would give: Python's `x[…] = value`. Works in place. */
  set(indices: Index | readonly Index[], value: Tensor | Scalar): this {
    setIndex(this, Array.isArray(indices) ? indices : [indices as Index], value);
    return this;
  }

  /**
   * The value of a tensor with one element. Waits for the device.
   *
   * @throws FmoeError `ERR_SHAPE` for any other number of elements, `ERR_DTYPE` for an integer that a JavaScript number
   * cannot hold exactly.
   */
  item(): number {
    return readItem(this);
  }

  /** {@link item} without blocking the event loop while the device works. */
  async itemAsync(): Promise<number> {
    if (this.numel() !== 1) return this.item();
    return Number(((await readArrayAsync(this.detach().reshape([1]))) as [number])[0]);
  }

  /** Nested arrays of numbers (bigint for int64, boolean for bool); a plain value when there are no dimensions. */
  toArray(): NestedArray {
    return readArray(this);
  }

  /** {@link toArray} without blocking the event loop while the device works. */
  toArrayAsync(): Promise<NestedArray> {
    return readArrayAsync(this);
  }

  /**
   * The elements in row-major order as a typed array: BigInt64Array for int64, Uint8Array for bool, Uint16Array with the raw
   * bits for float16 and bfloat16. A contiguous CPU tensor lends its memory: writing into one changes the other. Otherwise
   * it is a copy.
   */
  data(): TypedArray {
    return readData(this);
  }

  /** The tensor as PyTorch prints it. */
  override toString(): string {
    return formatTensor(this);
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return formatTensor(this);
  }
}

function destination(target: unknown): ToOptions {
  if (isDType(target)) return { dtype: target };
  if (typeof target === 'string') {
    if (!/^(cpu|cuda|meta)/.test(target)) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `to: '${target}' is neither a dtype (${dtypes.join(', ')}) nor a device`,
        { op: 'to' },
      );
    }
    return { device: checkDevice('to', target) };
  }
  checkOptions('to', target, ['dtype', 'device', 'nonBlocking', 'copy']);
  return target as ToOptions;
}

/** `cuda` without a number is the GPU that is current. */
const isCurrent = (device: string, present: string): boolean =>
  device === 'cuda' && present === `cuda:${native().currentDevice()}`;

setTensorClass(Tensor);
installMethods(Tensor.prototype, methodNames);
