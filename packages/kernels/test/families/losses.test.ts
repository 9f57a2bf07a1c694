/**
 * The router losses and their gradients against their formulas in float64.
 *
 * The bounds follow the sums: n terms added in any order are off by at most n·u times the sum of their absolute values, with
 * u the unit roundoff of float32 (float64 for float64); a function of a sum is off by its slope times that.
 */

import * as torch from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { expect } from 'vitest';
import { balanceLoss, importanceLoss, loadLoss, zLoss } from '../../src/losses.js';
import { itInRandomCases, type RandomCase } from '../random-cases.js';
import { numbers, roundoff } from '../support.js';

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const unitOf = (one: RandomCase): number => roundoff[one.dtype === 'float64' ? 'float64' : 'float32']!;
const logitsOf = (one: RandomCase): torch.Tensor =>
  one.normal([one.tokens, one.experts], one.dtype, one.pick([0.1, 1, 4])).detach();

function expectLoss(one: RandomCase, actual: torch.Tensor, exact: number, bound: number): void {
  expect(actual.dtype).toBe(one.dtype === 'float64' ? 'float64' : 'float32');
  expect(actual.shape).toEqual([]);
  const error = Math.abs(actual.item() - exact);
  if (!(error <= bound))
    throw new Error(`${actual.item()}, expected ${exact}: off by ${error}, bound ${bound}`);
}

/** var(v) / mean(v)² with the unbiased variance, and the most it moves when each v moves by its error. */
function squaredVariation(values: number[], errors: number[], unit: number): [value: number, bound: number] {
  const n = values.length;
  if (n === 1) return [0, 0];
  const mean = sum(values) / n;
  const square = mean ** 2 + 1e-10;
  const variance = sum(values.map((v) => (v - mean) ** 2)) / (n - 1);
  const meanError = sum(errors) / n + n * unit * mean;
  const moves = values.map((v, i) => [Math.abs(v - mean), errors[i]! + meanError] as const);
  const varianceError =
    sum(moves.map(([d, move]) => 2 * d * move + move ** 2)) / (n - 1) + (n + 8) * unit * variance;
  const squareError = 2 * mean * meanError + meanError ** 2 + 8 * unit * square;
  const value = variance / square;
  const bound = varianceError / square + ((variance + varianceError) / square) * (squareError / square);
  return [value, 2 * bound + 8 * unit * value];
}

/** Asserts that a loss has the gradient of its formula, both of a float64 input. */
function expectGradient(
  input: torch.Tensor,
  loss: (input: torch.Tensor) => torch.Tensor,
  formula: (input: torch.Tensor) => torch.Tensor,
): void {
  const [actual, exact] = [loss, formula].map((f) => {
    const leaf = input.double().requiresGrad_();
    return torch.grad([f(leaf)], [leaf])[0]!;
  });
  const error = actual!.sub(exact!).abs().sum().item();
  const scale = exact!.abs().sum().item();
  if (!(error <= 1e-9 * (scale + 1))) throw new Error(`gradient off by ${error} of ${scale}`);
}

describeEachDevice('router losses', (device) => {
  itInRandomCases('balance loss: N · Σ share · mean probability', device, (one) => {
    const { tokens, experts } = one;
    const probability = logitsOf(one).softmax(1);
    const counts = one.slotsOfExperts().map((slots) => slots.length);
    const shares = counts.map((count) => count / Math.max(1, sum(counts)));
    const weights = torch.tensor(shares, { dtype: 'float64', device }).mul(experts / Math.max(1, tokens));
    const formula = (p: torch.Tensor) => p.mul(weights).sum();
    const exact = formula(probability.double()).item();
    const loss = (p: torch.Tensor) => balanceLoss(p, one.indices(counts));
    expectLoss(one, loss(probability), exact, (tokens + experts + 8) * unitOf(one) * exact);
    expectGradient(probability, loss, formula);
  });

  itInRandomCases('z-loss: mean of (log Σ exp)²', device, (one) => {
    const n = Math.max(1, one.tokens);
    const unit = unitOf(one);
    const logits = logitsOf(one);
    const formula = (x: torch.Tensor) => x.exp().sum(1).log().square().sum().div(n);
    const wide = logits.double();
    const exact = formula(wide).item();
    // The error of a sum moves its logarithm by as much, that of a difference of logits the exponential.
    const error = wide
      .abs()
      .amax([1])
      .mul(4)
      .add(one.experts + 8)
      .mul(unit);
    const moved = wide.exp().sum(1).log().abs().mul(error).mul(2).add(error.square()).sum().div(n);
    expectLoss(one, zLoss(logits), exact, moved.item() + (n + 4) * unit * exact);
    expectGradient(logits, zLoss, formula);
  });

  itInRandomCases('importance loss: squared variation of the summed scores', device, (one) => {
    const { tokens, choices, experts, ids } = one;
    const score = one.normal([tokens, choices]).detach().abs();
    const flat = one.indices(ids);
    const options = { dtype: 'float64', device } as const;
    const importance = (s: torch.Tensor) =>
      torch.zeros([experts], options).scatterAdd(0, flat.clampMin(0), s.view([-1]).mul(flat.ge(0).double()));
    const values = numbers(importance(score.double()));
    const unit = unitOf(one);
    const errors = values.map((value) => (tokens + choices) * unit * value);
    const loss = (s: torch.Tensor) => importanceLoss(flat.view([tokens, choices]), s, experts);
    expectLoss(one, loss(score), ...squaredVariation(values, errors, unit));
    if (experts === 1) return;
    expectGradient(score, loss, (s) => {
      const sums = importance(s);
      const mean = sums.mean();
      return sums
        .sub(mean)
        .square()
        .sum()
        .div(experts - 1)
        .div(mean.square().add(1e-10));
    });
  });

  itInRandomCases(
    'load loss: squared variation of the expected loads',
    device,
    (one) => {
      const { tokens, experts } = one;
      const unit = unitOf(one);
      const k = Math.min(one.choices, experts);
      const clean = logitsOf(one);
      const deviation = one.normal([tokens, experts]).detach().abs().add(0.1);
      const noisy = clean.add(deviation.mul(one.normal([tokens, experts]).detach()));
      const loss = (c: torch.Tensor) => {
        const [n, d] = [noisy, deviation].map((t) => t.to(c.dtype)) as [torch.Tensor, torch.Tensor];
        return loadLoss(c, n, d, k);
      };
      if (k === experts) {
        expectLoss(one, loss(clean), 0, 0);
        return;
      }
      // The K-th best of the others: one further down where the expert itself is before it.
      const draws = noisy.double();
      const [ranked] = draws.sort(1, true);
      const [best, next] = [ranked.narrow(1, k - 1, 1), ranked.narrow(1, k, 1)];
      const threshold = torch.where(draws.ge(best), next, best);
      const loads = (c: torch.Tensor) =>
        // The normal distribution is erfc(-d / √2) / 2.
        c.sub(threshold).div(deviation.double()).mul(-Math.SQRT1_2).erfc().div(2).sum(0);
      const values = numbers(loads(clean.double()));
      // The slope of the distribution times its argument is below 1/4, so a term is off by a few units.
      const errors = values.map((value) => tokens * unit * (16 + value));
      expectLoss(one, loss(clean), ...squaredVariation(values, errors, unit));
      expectGradient(clean, loss, (c) => {
        const sums = loads(c);
        const mean = sums.mean();
        return sums
          .sub(mean)
          .square()
          .sum()
          .div(experts - 1)
          .div(mean.square().add(1e-10));
      });
    },
    { experts: 65 },
  );
});
