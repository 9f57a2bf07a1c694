import { noGrad } from '../autograd/index.js';
import { FmoeError } from '../errors.js';
import { tidy } from '../scope.js';
import { Tensor } from '../tensor/tensor.js';
import { show } from './check.js';
import { sameShape } from './diagnose.js';
import type { Module } from './module.js';

/** Tensors by path, as PyTorch names them. */
export type StateDict = Record<string, Tensor>;

export interface StateDictOptions {
  /** Return the parameters and buffers themselves instead of detached tensors. Default false. */
  keepVars?: boolean;
}

export interface LoadStateOptions {
  /** Every key must be on both sides. Default true. */
  strict?: boolean;
}

export interface LoadResult {
  /** Keys of the module that the dict does not have. */
  missingKeys: string[];
  /** Keys of the dict that the module does not have. */
  unexpectedKeys: string[];
}

/** See `Module.stateDict`. */
export function collectState(module: Module, options: StateDictOptions): StateDict {
  const state: StateDict = {};
  for (const [key, tensor] of entries(module, '', [])) {
    state[key] = options.keepVars ? tensor : tensor.detach();
  }
  return state;
}

/** See `Module.loadStateDict`. */
export function loadState(module: Module, dict: StateDict, options: LoadStateOptions): LoadResult {
  const name = module.constructor.name;
  if (typeof dict !== 'object' || dict === null || dict instanceof Tensor) {
    throw new FmoeError(
      'ERR_STATE_DICT',
      `${name}.loadStateDict: expected an object of tensors, got ${show(dict)}.`,
      { op: 'loadStateDict', argument: 'dict' },
    );
  }
  const targets = new Map(entries(module, '', []));
  const missingKeys = [...targets.keys()].filter((key) => !Object.hasOwn(dict, key));
  const unexpectedKeys = Object.keys(dict).filter((key) => !targets.has(key));
  const misfits = [...targets].flatMap(([key, target]) =>
    Object.hasOwn(dict, key) ? misfit(key, target, dict[key]) : [],
  );
  const strict = options.strict ?? true;
  const problems = [
    ...(strict ? list('missing keys', missingKeys) : []),
    ...(strict ? list('unexpected keys', unexpectedKeys) : []),
    ...list('values that do not fit', misfits),
  ];
  if (problems.length > 0) {
    const advice =
      misfits.length === 0
        ? ' Pass { strict: false } to load the rest all the same.'
        : ' The module keeps its values.';
    throw new FmoeError(
      'ERR_STATE_DICT',
      `${name}.loadStateDict: the state dict does not fit the module:${problems.join('')}\n${advice.trim()}`,
      { op: 'loadStateDict', argument: 'dict' },
    );
  }
  tidy(() =>
    noGrad(() => {
      for (const [key, target] of targets) {
        const value = Object.hasOwn(dict, key) ? dict[key] : undefined;
        if (value) target.copy_(value);
      }
    }),
  );
  return { missingKeys, unexpectedKeys };
}

/** A module's own parameters, then its own persistent buffers, then its children, as PyTorch orders them. */
function* entries(module: Module, prefix: string, above: Module[]): Generator<[string, Tensor]> {
  if (above.includes(module)) {
    throw new FmoeError(
      'ERR_STATE_DICT',
      `${module.constructor.name} contains itself at '${prefix.slice(0, -1)}', so its state has no end.`,
      { op: 'stateDict' },
    );
  }
  for (const [name, parameter] of module.ownParameters()) yield [prefix + name, parameter];
  for (const [name, buffer, { persistent }] of module.ownBuffers())
    if (persistent) yield [prefix + name, buffer];
  for (const [name, child] of module.namedChildren()) {
    yield* entries(child, `${prefix}${name}.`, [...above, module]);
  }
}

function misfit(key: string, target: Tensor, value: unknown): string[] {
  if (!(value instanceof Tensor)) return [`${key}: expected a Tensor, got ${show(value)}`];
  if (value.isDisposed) return [`${key}: the dict's tensor is disposed`];
  if (value.device === 'meta' && target.device !== 'meta')
    return [`${key}: the dict's tensor is on 'meta', it has no values`];
  if (sameShape(value.shape, target.shape)) return [];
  return [`${key}: the dict has [${value.shape.join(', ')}], the module [${target.shape.join(', ')}]`];
}

function list(title: string, items: string[]): string[] {
  return items.length === 0 ? [] : [`\n  ${title} (${items.length}): ${items.join(', ')}`];
}
