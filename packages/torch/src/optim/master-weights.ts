// What a fused operator updates in place of a parameter. The operators walk over memory from front to back and take one
// dtype for everything, so two kinds of parameters need a stand-in: those in half precision that have a float32 master,
// and those that do not lie dense and row-major, which are copied for the length of a step.

import { type Handle, type HandleList, native } from '../native/index.js';
import { keep } from '../scope.js';
import { empty } from '../tensor/factories.js';
import type { Tensor } from '../tensor/tensor.js';
import { handlesOf } from '../tensor/tensor-base.js';
import { contiguous, copyAll, toFloat32 } from './handle-operator.js';
import type { ParameterState, TensorSpec } from './optimizer-types.js';

/** Name of the float32 master among a parameter's state tensors. */
export const MASTER_KEY = 'master_param';

/** Whether a parameter gets a master: its values are too coarse to add small updates to. */
export const usesMaster = (param: Tensor, masterWeights: boolean): boolean =>
  masterWeights && (param.dtype === 'float16' || param.dtype === 'bfloat16');

/** Stands between the parameters of a batch and the operator that updates them. */
export interface StandIns {
  /** Tensors of the shape, dtype and device that state tensors have. */
  readonly prototypes: readonly TensorSpec[];
  /** The tensors to update in this step. */
  targets(): HandleList;
  /** Gradients to match: row-major, in the targets' dtype. */
  gradients(grads: HandleList): HandleList;
  /** Brings the updated values into the parameters. */
  writeBack(targets: HandleList): void;
}

const mapHandles = (handles: HandleList, map: (handle: Handle) => Handle): HandleList =>
  Float64Array.from(handles, (handle) => map(handle));

/** Autograd makes gradients with the layout of their parameter, but a user may have put any other there. */
function rowMajor(grads: HandleList): HandleList {
  const binding = native();
  for (let i = 0; i < grads.length; i++) {
    if (!binding.isContiguous(grads[i]!)) return mapHandles(grads, contiguous);
  }
  return grads;
}

/** Updates the parameters themselves. */
export function directUpdate(params: readonly Tensor[]): StandIns {
  const handles = handlesOf(params);
  return { prototypes: params, targets: () => handles, gradients: rowMajor, writeBack: () => {} };
}

/** Updates row-major copies of the parameters that live for one step. */
export function stridedUpdate(params: readonly Tensor[]): StandIns {
  const handles = handlesOf(params);
  return {
    prototypes: params,
    targets: () => mapHandles(handles, contiguous),
    gradients: rowMajor,
    writeBack: (targets) => copyAll(handles, targets),
  };
}

/** Updates float32 masters, which are state and hold the true values, and rounds them into the parameters. */
export function masterUpdate(params: readonly Tensor[], states: readonly ParameterState[]): StandIns {
  const handles = handlesOf(params);
  const masters = params.map((param, i) => {
    const state = states[i]!;
    state[MASTER_KEY] ??= makeMaster(param);
    return state[MASTER_KEY];
  });
  const masterHandles = handlesOf(masters);
  return {
    prototypes: masters,
    targets: () => masterHandles,
    gradients: (grads) => mapHandles(grads, toFloat32),
    writeBack: () => copyAll(handles, masterHandles),
  };
}

function makeMaster(param: Tensor): Tensor {
  const master = keep(empty(param.shape, { dtype: 'float32', device: param.device }));
  copyAll(handlesOf([master]), handlesOf([param]));
  return master;
}

/** Copies the parameters into their masters. */
export function refreshMasters(states: ReadonlyMap<Tensor, ParameterState>): void {
  const pairs = [...states].flatMap(([param, state]) => {
    const master = state[MASTER_KEY];
    return master ? [[master, param] as const] : [];
  });
  if (pairs.length === 0) return;
  copyAll(handlesOf(pairs.map(([master]) => master)), handlesOf(pairs.map(([, param]) => param)));
}
