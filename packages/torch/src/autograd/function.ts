import { checkTensors, refusePromise } from '../check.js';
import { describeValue } from '../describe.js';
import { op } from '../dispatch/op.js';
import { FmoeError } from '../errors.js';
import { native } from '../native/index.js';
import { insideNativeScope } from '../scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { guarded, handlesOf, TensorBase, wrap } from '../tensor/tensor-base.js';
import { noGrad } from './grad-mode.js';

/** What forward hands to backward. */
export class FunctionContext {
  /** Anything that is no tensor: numbers, shapes, flags. Tensors go through {@link saveForBackward}. */
  state: Record<string, unknown> = {};
  /** @internal */
  saved: readonly Tensor[] = [];
  /** @internal */
  nonDifferentiable: readonly Tensor[] = [];
  /** @internal */
  dirty: readonly Tensor[] = [];
  /** For each argument of forward, whether its gradient is wanted. */
  needsInputGrad: readonly boolean[] = [];
  private unpacked: readonly Tensor[] | undefined;

  /**
   * Keeps inputs or outputs of forward for backward. The graph owns them: a tensor held by the closure instead would keep
   * its own graph alive for ever.
   */
  saveForBackward(...tensors: Tensor[]): void {
    checkTensors('saveForBackward', 'tensors', tensors);
    this.saved = tensors;
  }

  /** In backward: what {@link saveForBackward} was given. */
  get savedTensors(): readonly Tensor[] {
    return this.unpacked ?? this.saved;
  }

  /** Outputs that have no gradient, such as indices. */
  markNonDifferentiable(...tensors: Tensor[]): void {
    checkTensors('markNonDifferentiable', 'tensors', tensors);
    this.nonDifferentiable = tensors;
  }

  /** Inputs that forward changed in place; they must be among the outputs. */
  markDirty(...tensors: Tensor[]): void {
    checkTensors('markDirty', 'tensors', tensors);
    this.dirty = tensors;
  }

  /** @internal */
  unpack(tensors: readonly Tensor[] | undefined): void {
    this.unpacked = tensors;
  }
}

/** A gradient for each argument of forward; null for none. */
export type Gradients = Tensor | null | readonly (Tensor | null)[];

interface FunctionClass<Args extends unknown[], Output extends Tensor | Tensor[]> {
  readonly name: string;
  forward(context: FunctionContext, ...args: Args): Output;
  backward(context: FunctionContext, ...gradients: Tensor[]): Gradients;
}

/**
 * A differentiable function whose backward is written in TypeScript: subclass it with static `forward` and `backward`, and
 * call `Subclass.apply(…)`.
 *
 * ```ts
 * class Square extends autograd.Function {
 *   static forward(context: FunctionContext, x: Tensor): Tensor {
 *     context.saveForBackward(x);
 *     return x.mul(x);
 *   }
 *   static backward(context: FunctionContext, gradient: Tensor): Tensor {
 *     const [x] = context.savedTensors;
 *     return gradient.mul(x).mul(2);
 *   }
 * }
 * const y = Square.apply(x);
 * ```
 *
 * Each call of backward crosses from the engine to JavaScript: for hot code write an operator in C++ instead.
 */
export class AutogradFunction {
  /**
   * Runs `forward` without recording and ties `backward` into the graph.
   *
   * @throws FmoeError `ERR_ARGUMENT` when forward gives back something else than tensors.
   */
  static apply<Args extends unknown[], Output extends Tensor | Tensor[]>(
    this: FunctionClass<Args, Output>,
    ...args: Args
  ): Output {
    const context = new FunctionContext();
    context.needsInputGrad = args.map(
      (argument) => argument instanceof TensorBase && (argument as Tensor).requiresGrad,
    );
    // Not the arguments themselves: what backward holds lives as long as the graph.
    const isTensor = args.map((argument) => argument instanceof TensorBase);
    const inputs = args.filter(
      (argument): argument is Args[number] & Tensor => argument instanceof TensorBase,
    );
    const output = noGrad(() => this.forward(context, ...args));
    const outputs: readonly Tensor[] = Array.isArray(output) ? output : [output];
    if (outputs.length === 0 || !outputs.every((item) => item instanceof TensorBase)) {
      throw new FmoeError(
        'ERR_ARGUMENT',
        `autograd.Function: forward must return a tensor or an array of tensors, got ${describeValue(output)}`,
        { op: this.name },
      );
    }
    const zerosFor = outputs.map(({ shape, dtype, device }) => ({ shape, dtype, device }));

    const backward = (gradients: number[], saved: number[]): number[] =>
      insideNativeScope(() => {
        context.unpack(saved.map(wrap));
        try {
          const given = gradients.map((handle, i) => (handle === 0 ? zeros(zerosFor[i]!) : wrap(handle)));
          return gradientHandles(this.name, this.backward(context, ...given), isTensor);
        } finally {
          context.unpack(undefined);
        }
      });

    const handles = guarded(
      'autograd.Function.apply',
      () =>
        native().attachFunction(
          handlesOf(inputs),
          handlesOf(outputs),
          handlesOf(context.saved),
          handlesOf(context.nonDifferentiable),
          handlesOf(context.dirty),
          backward as (...tensors: number[][]) => number[],
        ),
      args,
    );
    // The closure must not hold what the graph owns.
    context.saved = [];
    context.nonDifferentiable = [];
    context.dirty = [];
    const results = handles.map(wrap);
    return (Array.isArray(output) ? results : results[0]) as Output;
  }
}

/** What backward returned, as handles for the tensors among the arguments of forward. */
function gradientHandles(name: string, result: unknown, isTensor: readonly boolean[]): number[] {
  refusePromise(`${name}.backward`, result, 'but the engine waits for no promise');
  const list: readonly unknown[] = Array.isArray(result) ? result : [result];
  const fail = (problem: string): never => {
    throw new FmoeError('ERR_AUTOGRAD', `autograd.Function: backward of ${name} returned ${problem}`, {
      op: name,
    });
  };
  if (list.length !== isTensor.length)
    fail(`${list.length} gradients, forward took ${isTensor.length} arguments`);
  const handles: number[] = [];
  list.forEach((gradient, i) => {
    const isNone = gradient === null || gradient === undefined;
    if (!isNone && !(gradient instanceof TensorBase))
      fail(`${describeValue(gradient)} for argument ${i}, not a tensor or null`);
    if (isTensor[i]) handles.push(isNone ? 0 : (gradient as TensorBase).handle);
  });
  return handles;
}

const zeros = ({
  shape,
  dtype,
  device,
}: {
  shape: readonly number[];
  dtype: string;
  device: string;
}): Tensor => op('aten::zeros')(shape, { dtype, device }) as Tensor;
