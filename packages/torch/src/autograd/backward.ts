import { checkFunction, checkOptions, checkTensors } from '../check.js';
import { describeValue } from '../describe.js';
import { FmoeError } from '../errors.js';
import { native } from '../native/index.js';
import { insideNativeScope } from '../scope.js';
import type { Tensor } from '../tensor/tensor.js';
import { guarded, handlesOf, TensorBase, wrap } from '../tensor/tensor-base.js';

/** Options of {@link backward}. */
export interface BackwardOptions {
  /** Keep the graph for another backward. Default: what `createGraph` says. */
  retainGraph?: boolean;
  /** Record the backward itself, for higher derivatives. Default: false. */
  createGraph?: boolean;
  /** Add up gradients in these tensors only. Default: in every leaf. */
  inputs?: readonly Tensor[];
}

/**
 * Adds the gradients of the outputs to the `grad` of the graph's leaves.
 *
 * @param gradOutputs the gradient of each output; may be left out for outputs with one element
 * @throws FmoeError `ERR_AUTOGRAD` when an output has no graph, or the graph was freed by an earlier backward.
 */
export function backward(
  outputs: readonly Tensor[],
  gradOutputs?: readonly (Tensor | null)[],
  options: BackwardOptions = {},
): void {
  checkTensors('backward', 'outputs', outputs);
  if (gradOutputs !== undefined) checkTensors('backward', 'gradOutputs', gradOutputs, true);
  checkOptions('backward', options, ['retainGraph', 'createGraph', 'inputs']);
  const { createGraph = false, retainGraph = createGraph, inputs } = options;
  if (inputs !== undefined) checkTensors('backward', 'inputs', inputs);
  if (outputs.length === 0 || inputs?.length === 0) {
    const missing = outputs.length === 0 ? 'outputs' : 'inputs';
    throw new FmoeError('ERR_ARGUMENT', `backward: '${missing}' is empty`, {
      op: 'backward',
      argument: missing,
    });
  }
  const gradients = handlesOf(gradOutputs ?? []);
  guarded(
    'backward',
    () => native().backward(handlesOf(outputs), gradients, retainGraph, createGraph, handlesOf(inputs ?? [])),
    [outputs, gradOutputs, inputs],
  );
}

/** Options of {@link grad}. */
export interface GradOptions {
  gradOutputs?: readonly (Tensor | null)[];
  retainGraph?: boolean;
  createGraph?: boolean;
  /** Give null for an input that the outputs do not depend on. Default: throw. */
  allowUnused?: boolean;
}

/**
 * The gradients of the sum of outputs with respect to inputs, without touching any `grad`.
 *
 * @throws FmoeError `ERR_AUTOGRAD` when an output has no graph or an input is unused (see `allowUnused`).
 */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options?: GradOptions & { allowUnused?: false },
): Tensor[];
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: GradOptions,
): (Tensor | null)[];
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: GradOptions = {},
): (Tensor | null)[] {
  checkOptions('grad', options, ['gradOutputs', 'retainGraph', 'createGraph', 'allowUnused']);
  const { createGraph = false, retainGraph = createGraph, allowUnused = false, gradOutputs } = options;
  const outputList = outputs instanceof TensorBase ? [outputs] : outputs;
  const inputList = inputs instanceof TensorBase ? [inputs] : inputs;
  checkTensors('grad', 'outputs', outputList);
  checkTensors('grad', 'inputs', inputList);
  if (gradOutputs !== undefined) checkTensors('grad', 'gradOutputs', gradOutputs, true);
  const gradients = handlesOf(gradOutputs ?? []);
  const handles = guarded(
    'grad',
    () =>
      native().grad(
        handlesOf(outputList),
        handlesOf(inputList),
        gradients,
        retainGraph,
        createGraph,
        allowUnused,
      ),
    [outputList, inputList, gradOutputs],
  );
  return handles.map((handle) => (handle === 0 ? null : wrap(handle)));
}

/**
 * Sees a gradient; may return another one in its place. What it computes is recorded only if the backward was called with
 * `createGraph` (or inside of `enableGrad`).
 */
// biome-ignore lint/suspicious/noConfusingVoidType: a hook that only looks returns nothing
export type GradientHook = (gradient: Tensor) => Tensor | undefined | void;

/** Takes a hook away again. */
export interface HookHandle {
  remove(): void;
}

/** @internal See `Tensor.registerHook`. */
export function registerHook(tensor: TensorBase, hook: GradientHook): HookHandle {
  checkFunction('registerHook', 'hook', hook);
  let active = true;
  const key = guarded(
    'registerHook',
    () =>
      native().registerHook(tensor.handle, ([handle]) =>
        insideNativeScope(() => (active && handle !== 0 ? [replacement(hook(wrap(handle!)))] : [0])),
      ),
    [tensor],
  );
  return {
    remove: () => {
      active = false;
      // The graph may outlive the tensor, and the hook with it; it does nothing any more.
      if (!tensor.isDisposed) native().removeHook(tensor.handle, key);
    },
  };
}

function replacement(returned: unknown): number {
  if (returned === undefined || returned === null) return 0;
  if (returned instanceof TensorBase) return returned.handle;
  throw new FmoeError(
    'ERR_AUTOGRAD',
    `registerHook: a hook must return a tensor or nothing, this one returned ${describeValue(returned)}`,
    { op: 'registerHook' },
  );
}
