/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { gradcheck, manualSeed, randn, type Tensor } from '@fmoe/torch';
import { expectAllClose, type TestDevice } from '@fmoe/torch/testing';
import { expect } from 'vitest';
import { type BaseGate, type LinearGate, type Route, resolveRoute, type TokenRoute } from '../src/index.js';
import { affine, type Matrix, type PlainCells, type PlainChoice, transpose } from './plain-gates.js';

const tight = { rtol: 1e-10, atol: 1e-12 };

export const matrix = (tensor: Tensor): Matrix => tensor.detach().cpu().toArray() as Matrix;
export const integers = (tensor: Tensor): Matrix =>
  (tensor.cpu().toArray() as bigint[][]).map((row) => row.map(Number));

/** Tokens in float64. */
export const tokens = (count: number, width: number, device: TestDevice): Tensor =>
  randn([count, width], { dtype: 'float64', device });

/** A gate in float64 on a device, with a bias that is not small. */
export function prepare<Gate extends BaseGate>(gate: Gate, device: TestDevice): Gate {
  return gate.to({ dtype: 'float64', device });
}

/** A linear gate's logits, in plain numbers. */
export function plainLogits(gate: LinearGate, x: Tensor): Matrix {
  const { weight, bias } = gate.gate;
  return affine(matrix(x), transpose(matrix(weight)), bias && (bias.cpu().toArray() as number[]));
}

/** The route of a gate that names each token's experts. */
export function forwardTokens(gate: BaseGate, x: Tensor): TokenRoute {
  const route = gate.forward(x);
  if (!('topIdx' in route)) throw new Error('the gate returned an expert-major route');
  return route;
}

export function expectChoice({ topIdx, topScore }: TokenRoute, expected: PlainChoice): void {
  expect(topIdx.dtype).toBe('int64');
  expect(integers(topIdx)).toEqual(expected.topIdx);
  expectAllClose(topScore, expected.topScore, tight);
}

/** A route as cells `[T, N]`: the score of each pair that was chosen. */
export function cellsOf(route: Route, count: number, numExpert: number): PlainCells {
  const { topIdx, topScore } = resolveRoute(route, { tokens: count, numExpert, gateName: 'Gate' });
  const scores = matrix(topScore);
  const cells = Array.from({ length: count }, () => new Array<number | null>(numExpert).fill(null));
  integers(topIdx).forEach((row, t) => {
    row.forEach((expert, j) => {
      if (expert >= 0) cells[t]![expert] = scores[t]![j]!;
    });
  });
  return cells;
}

export function expectCells(actual: PlainCells, expected: PlainCells): void {
  expect(actual.map((row) => row.map((score) => score !== null))).toEqual(
    expected.map((row) => row.map((score) => score !== null)),
  );
  actual.forEach((row, t) => {
    row.forEach((score, e) => {
      expect(score ?? 0).toBeCloseTo(expected[t]![e] ?? 0, 10);
    });
  });
}

/** The losses that a gate left, by name; they are taken off it. */
export function lossesOf(gate: BaseGate): Record<string, number> {
  return Object.fromEntries([...gate.getLosses()].map(([name, loss]) => [name, loss.item()]));
}

export function expectLosses(gate: BaseGate, expected: Record<string, number>): void {
  const actual = lossesOf(gate);
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  for (const [name, value] of Object.entries(expected)) expect(actual[name]).toBeCloseTo(value, 10);
}

/**
 * Compares the gradients of scores and losses, with respect to tokens and parameters, with finite differences. The values
 * themselves are compared with plain numbers elsewhere.
 */
export function expectGradients(gate: BaseGate, x: Tensor): void {
  const input = x.detach().requiresGrad_(true);
  gradcheck(() => {
    manualSeed(123);
    const route = gate.forward(input);
    const scores = 'topScore' in route ? route.topScore : route.rowScore;
    const losses = [...gate.getLosses().values()];
    return [scores, ...losses];
  }, [input, ...gate.parameters()]);
}
