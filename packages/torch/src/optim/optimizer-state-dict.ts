// Optimizer state in PyTorch's layout. Options are camelCase here and snake_case there; everything else has one name.
import { noGrad } from '../autograd/index.js';
import { FmoeError } from '../errors.js';
import { keep, tidy } from '../scope.js';
import type { DType } from '../tensor/dtype.js';
import { zeros } from '../tensor/factories.js';
import { Tensor } from '../tensor/tensor.js';
import { MASTER_KEY, usesMaster } from './master-weights.js';
import type { Optimizer } from './optimizer.js';
import type { OptimizerOptions, ParameterState } from './optimizer-types.js';

/** Plain values of a parameter group. */
export type GroupValue = number | string | boolean | null | readonly (number | string)[];

/** A parameter group of a state dict: options under PyTorch's names, and the indices of its parameters. */
export interface GroupStateDict {
  params: number[];
  [option: string]: GroupValue;
}

/** What `optimizer.stateDict()` returns; the layout of PyTorch's `state_dict()`. */
export interface OptimizerStateDict {
  /** State tensors by parameter index and name. A `step` may be a number. */
  state: Record<string, Record<string, Tensor | number>>;
  param_groups: GroupStateDict[];
}

const toSnakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** The part of an optimizer that state dicts deal with. */
type AnyOptimizer = Pick<
  Optimizer<OptimizerOptions>,
  'paramGroups' | 'state' | 'defaults' | 'checkAllOptions'
>;

/** Writes the state and the groups of an optimizer. */
export function packOptimizerState(
  { paramGroups, state, defaults }: AnyOptimizer,
  pytorchKeys: Readonly<Record<string, unknown>>,
): OptimizerStateDict {
  const packed: OptimizerStateDict = { state: {}, param_groups: [] };
  let index = 0;
  for (const group of paramGroups) {
    const values: Record<string, unknown> = {};
    for (const key of Object.keys(defaults)) {
      const value: unknown = group[key as keyof OptimizerOptions];
      // PyTorch does not know master weights: the key is there only where they are used.
      if (key !== 'masterWeights' || value === true)
        values[toSnakeCase(key)] = Array.isArray(value) ? [...value] : value;
    }
    Object.assign(values, pytorchKeys);
    if (group.initialLr !== undefined) values['initial_lr'] = group.initialLr;
    if (group.paramNames) values['param_names'] = [...group.paramNames];
    const params = group.params.map((param) => {
      const own = state.get(param);
      if (own && Object.keys(own).length > 0) packed.state[index] = { ...own };
      return index++;
    });
    packed.param_groups.push({ ...values, params } as GroupStateDict);
  }
  return packed;
}

function stateError(problem: string, shapes?: readonly (readonly number[])[]): FmoeError {
  const message = `loadStateDict: ${problem}`;
  return new FmoeError('ERR_STATE_DICT', message, { op: 'loadStateDict', ...(shapes && { shapes }) });
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A group's options as the state dict has them, checked; keys it lacks keep their value. */
function readOptions(optimizer: AnyOptimizer, saved: GroupStateDict, index: number): OptimizerOptions {
  const group = optimizer.paramGroups[index]!;
  const options: Record<string, unknown> = {};
  for (const key of Object.keys(optimizer.defaults)) {
    const value: unknown = saved[toSnakeCase(key)];
    options[key] = value ?? group[key as keyof OptimizerOptions];
  }
  try {
    optimizer.checkAllOptions(options as unknown as OptimizerOptions);
  } catch (error) {
    if (!FmoeError.isInstance(error)) throw error;
    const message = `loadStateDict: parameter group ${index}: ${error.message}`;
    throw new FmoeError('ERR_STATE_DICT', message, { op: 'loadStateDict', cause: error });
  }
  const initialLr = saved['initial_lr'];
  if (typeof initialLr === 'number') options['initialLr'] = initialLr;
  return options as unknown as OptimizerOptions;
}

function checkLayout(optimizer: AnyOptimizer, stateDict: unknown): asserts stateDict is OptimizerStateDict {
  const { state, param_groups: groups } = isObject(stateDict) ? stateDict : {};
  if (
    !isObject(state) ||
    !Array.isArray(groups) ||
    !groups.every((g) => isObject(g) && Array.isArray(g['params']))
  ) {
    throw stateError('expected { state: { index: tensors }, param_groups: [{ params: [indices] }] }.');
  }
  const here = optimizer.paramGroups;
  if (groups.length !== here.length) {
    throw stateError(`the state has ${groups.length} parameter groups, the optimizer has ${here.length}.`);
  }
  groups.forEach(({ params }: { params: unknown[] }, i) => {
    const count = here[i]!.params.length;
    if (params.length !== count) {
      throw stateError(
        `parameter group ${i} has ${params.length} parameters in the state and ${count} in the optimizer.`,
      );
    }
  });
}

/** Checks one parameter's state tensors against what its options need. */
function checkState(
  id: string,
  saved: unknown,
  param: Tensor,
  needed: readonly string[],
): asserts saved is Record<string, Tensor | number> {
  if (!isObject(saved)) throw stateError(`the state of parameter ${id} is not an object.`);
  const missing = needed.filter((key) => saved[key] === undefined);
  const unexpected = Object.keys(saved).filter((key) => key !== MASTER_KEY && !needed.includes(key));
  if (missing.length > 0 || unexpected.length > 0) {
    const parts = [
      ...(missing.length > 0 ? [`lacks ${missing.join(', ')}`] : []),
      ...(unexpected.length > 0 ? [`has an unexpected ${unexpected.join(', ')}`] : []),
    ];
    const remedy = 'Was it saved by another kind of optimizer or with other options?';
    throw stateError(`the state of parameter ${id} ${parts.join(' and ')}. ${remedy}`);
  }
  for (const [key, value] of Object.entries(saved)) {
    if (key === 'step' && typeof value === 'number') continue;
    if (!(value instanceof Tensor)) throw stateError(`${key} of parameter ${id} is not a tensor.`);
    const { shape } = value;
    const fits = key === 'step' ? value.numel() === 1 : String(shape) === String(param.shape);
    if (!fits) {
      const expected = key === 'step' ? 'one element' : `shape [${param.shape.join(', ')}]`;
      throw stateError(`${key} of parameter ${id} has shape [${shape.join(', ')}], expected ${expected}.`, [
        shape,
        param.shape,
      ]);
    }
  }
}

/** Copies a value into the state, into the tensor that is there already where it fits. */
function assign(
  state: ParameterState,
  key: string,
  value: Tensor | number,
  dtype: DType,
  device: string,
): void {
  const shape = key === 'step' || typeof value === 'number' ? [] : value.shape;
  let target = state[key];
  if (target === undefined || target.dtype !== dtype || target.device !== device) {
    target?.dispose();
    target = keep(zeros(shape, { dtype, device }));
    state[key] = target;
  }
  if (typeof value === 'number') target.fill_(value);
  else target.copy_(value.reshape(shape));
}

/**
 * Takes a state dict over into an optimizer. Everything is checked before anything changes.
 *
 * @param keysOf names of the state tensors that options need
 */
export function loadOptimizerState(
  optimizer: AnyOptimizer,
  stateDict: unknown,
  keysOf: (options: OptimizerOptions) => readonly string[],
): void {
  checkLayout(optimizer, stateDict);
  const options = stateDict.param_groups.map((group, i) => readOptions(optimizer, group, i));
  const owners = new Map<string, { param: Tensor; options: OptimizerOptions }>();
  stateDict.param_groups.forEach((saved, g) => {
    saved.params.forEach((id, i) => {
      owners.set(String(id), { param: optimizer.paramGroups[g]!.params[i]!, options: options[g]! });
    });
  });
  for (const [id, saved] of Object.entries(stateDict.state)) {
    const owner = owners.get(id);
    if (!owner) throw stateError(`the state of parameter ${id} belongs to no parameter group.`);
    checkState(id, saved, owner.param, keysOf(owner.options));
  }

  const loaded = new Set<Tensor>();
  noGrad(() => {
    tidy(() => {
      for (const [id, saved] of Object.entries(stateDict.state)) {
        const { param, options: own } = owners.get(id)!;
        loaded.add(param);
        const state = optimizer.state.get(param) ?? {};
        optimizer.state.set(param, state);
        const floatState = usesMaster(param, own.masterWeights) ? 'float32' : param.dtype;
        for (const [key, value] of Object.entries(saved)) {
          assign(state, key, value, key === 'step' ? 'float32' : floatState, param.device);
        }
      }
    });
  });
  for (const [param, state] of optimizer.state) {
    if (loaded.has(param)) continue;
    for (const tensor of Object.values(state)) tensor.dispose();
    optimizer.state.delete(param);
  }
  options.forEach((own, i) => {
    Object.assign(optimizer.paramGroups[i]!, own);
  });
}
