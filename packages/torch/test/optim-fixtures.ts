import { readFileSync } from 'node:fs';
import * as torch from '../src/index.js';
import type { NestedNumbers } from '../src/testing/index.js';

const { optim } = torch;

/** A tensor in a fixture; others are plain values, with infinities as text. */
export interface StoredTensor {
  dtype: torch.DType;
  values: NestedNumbers;
}

/** A state dict of PyTorch as the fixtures hold it. */
export interface StoredState {
  state: Record<string, Record<string, StoredTensor>>;
  param_groups: torch.optim.GroupStateDict[];
}

export interface OptimizerCase {
  title: string;
  optimizer: 'SGD' | 'Adam' | 'AdamW' | 'Adagrad';
  options: Record<string, unknown>;
  groups: Record<string, unknown>[] | null;
  dtype: torch.DType;
  params: NestedNumbers[];
  grads: (NestedNumbers | null)[][];
  /** After steps 1, 3 and 6. */
  paramsAfter: NestedNumbers[][];
  stateAfter3: StoredState;
  stateAfter6: StoredState;
}

/** The cases of a file that make_optim_fixtures.py wrote. */
export function readCases<Case>(name: string): Case[] {
  return JSON.parse(readFileSync(new URL(`fixtures/${name}`, import.meta.url), 'utf8')).cases;
}

/** PyTorch's option names as this package's. */
export function camelOptions(options: Record<string, unknown>): Record<string, unknown> {
  const rename = (key: string): string =>
    key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()).replace(/^T(?=[A-Z])/, 't');
  return Object.fromEntries(Object.entries(options).map(([key, value]) => [rename(key), value]));
}

/** The class of a name. */
export function makeOptimizer(
  name: OptimizerCase['optimizer'],
  params: torch.optim.ParameterInput<torch.optim.OptimizerOptions>,
  options: Record<string, unknown>,
): torch.optim.Optimizer {
  return new (optim[name] as new (...args: unknown[]) => torch.optim.Optimizer)(
    params,
    camelOptions(options),
  );
}

/** A PyTorch state dict with tensors in it. */
export function toStateDict(stored: StoredState): torch.optim.OptimizerStateDict {
  const tensors = (own: Record<string, StoredTensor>) =>
    Object.fromEntries(
      Object.entries(own).map(([key, { values, dtype }]) => [key, torch.tensor(values, { dtype })]),
    );
  const state = Object.fromEntries(Object.entries(stored.state).map(([id, own]) => [id, tensors(own)]));
  return { state, param_groups: structuredClone(stored.param_groups) };
}

/** Parameters of a case on a device. */
export function makeParams({ params, dtype }: OptimizerCase, device: string): torch.Tensor[] {
  return params.map((values) => torch.tensor(values, { dtype, device, requiresGrad: true }));
}

/** Makes the optimizer of a case. */
export function optimizerOf(fixture: OptimizerCase, params: torch.Tensor[]): torch.optim.Optimizer {
  const { optimizer, options, groups } = fixture;
  const input = groups
    ? groups.map((group, i) => ({ params: [params[i]!], ...camelOptions(group) }))
    : params;
  return makeOptimizer(optimizer, input as torch.Tensor[], options);
}

/** Sets the gradients of a step. */
export function setGradients(fixture: OptimizerCase, params: torch.Tensor[], step: number): void {
  torch.tidy(() => {
    params.forEach((param, i) => {
      const grad = fixture.grads[step]![i];
      const { dtype, device } = param;
      param.grad = grad === null || grad === undefined ? null : torch.tensor(grad, { dtype, device });
    });
  });
}
