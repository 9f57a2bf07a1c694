/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { manualSeed, randn } from '@fmoe/torch';
import { describeEachDevice, expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, expect, it } from 'vitest';
import {
  expectChoice,
  expectGradients,
  expectLosses,
  forwardTokens,
  lossesOf,
  matrix,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import {
  affine,
  evenness,
  importance,
  prune,
  range,
  softmax,
  squaredVariation,
  sum,
  topK,
} from '../../test/plain-gates.js';
import { NoisyGate } from './noisy-gate.js';

beforeEach(() => {
  manualSeed(6);
});

/** The normal distribution's Φ by Simpson's rule. */
function normalCdf(z: number): number {
  const steps = 2000;
  const end = Math.max(-9, Math.min(9, z));
  const term = (i: number) => Math.exp(-0.5 * ((end * i) / steps) ** 2);
  const inner = range(steps + 1).map((i) => (i === 0 || i === steps ? 1 : i % 2 === 1 ? 4 : 2) * term(i));
  return 0.5 + (end / steps / 3) * (sum(inner) / Math.sqrt(2 * Math.PI));
}

describeEachDevice('NoisyGate', (device) => {
  for (const capacity of [null, 0.7]) {
    it.each([1, 2, 3, 4])(
      `follows the paper, with its own noise replayed: k %i, capacity ${capacity}`,
      (k) => {
        const [count, numExpert] = [9, 5];
        const gate = prepare(new NoisyGate({ dModel: 4, numExpert, topK: k, capacity }), device);
        const x = tokens(count, 4, device);
        manualSeed(31);
        const noise = matrix(randn([count, numExpert], { dtype: 'float64', device }));
        const clean = affine(matrix(x), matrix(gate.w_gate), null);
        const sigma = affine(matrix(x), matrix(gate.w_noise), null).map((row) =>
          row.map((value) => Math.log1p(Math.exp(value)) + 0.01),
        );
        const noisy = clean.map((row, t) => row.map((value, e) => value + noise[t]![e]! * sigma[t]![e]!));
        const expected = topK(noisy, k);
        // P(e is among the top k when its noise is drawn anew), summed over the tokens.
        const load = range(numExpert).map((e) =>
          sum(
            noisy.map((row, t) => {
              const others = row.filter((_, other) => other !== e).sort((a, b) => b - a);
              return normalCdf((clean[t]![e]! - others[k - 1]!) / sigma[t]![e]!);
            }),
          ),
        );
        const budget = () =>
          capacity === null ? Number.POSITIVE_INFINITY : Math.ceil((capacity * count * k) / numExpert);
        manualSeed(31);
        expectChoice(forwardTokens(gate, x), { ...expected, topIdx: prune(expected.topIdx, budget) });
        const losses = lossesOf(gate);
        expect(Object.keys(losses).sort()).toEqual(['balance', 'load']);
        expect(losses['balance']).toBeCloseTo(squaredVariation(importance(expected, numExpert)), 10);
        expect(losses['load']).toBeCloseTo(squaredVariation(load), 9);
        expectGradients(gate, tokens(4, 4, device));

        gate.eval();
        const calm = topK(clean, k);
        expectChoice(forwardTokens(gate, x), { ...calm, topIdx: prune(calm.topIdx, budget) });
        expect(gate.hasLoss).toBe(false);
      },
    );
  }

  it('has neither noise nor NaN in evaluation mode, for any k', () => {
    for (const topK_ of [1, 2, 3, 4]) {
      const gate = new NoisyGate({ dModel: 3, numExpert: 4, topK: topK_ }).eval().to({ device });
      const x = randn([6, 3], { device });
      const first = forwardTokens(gate, x);
      expect(first.topIdx.shape).toEqual([6, topK_]);
      expectAllClose(forwardTokens(gate, x).topScore, first.topScore, { rtol: 0, atol: 0 });
      expectAllClose(first.topScore.sum([-1]), new Array(6).fill(1));
    }
  });

  it('has an even load when every expert is chosen', () => {
    const gate = prepare(new NoisyGate({ dModel: 3, numExpert: 3, topK: 3 }), device);
    const route = forwardTokens(gate, tokens(8, 3, device));
    const topIdx = (route.topIdx.cpu().toArray() as bigint[][]).map((row) => row.map(Number));
    const expected = squaredVariation(importance({ topIdx, topScore: matrix(route.topScore) }, 3));
    expectLosses(gate, { balance: expected, load: 0 });
  });

  it('can be balanced by another loss, or by none', () => {
    const x = tokens(8, 3, device);
    const gate = prepare(new NoisyGate({ dModel: 3, numExpert: 4, balance: 'switch' }), device);
    const { topIdx } = forwardTokens(gate, x);
    const chosen = (topIdx.cpu().toArray() as bigint[][]).flat().map(Number);
    const clean = affine(matrix(x), matrix(gate.w_gate), null);
    expectLosses(gate, { balance: evenness(chosen, clean.map(softmax)) });
    const free = prepare(new NoisyGate({ dModel: 3, numExpert: 4, balance: false }), device);
    free.forward(x);
    expect(free.hasLoss).toBe(false);
  });

  it('has losses of 0 with a single expert', () => {
    const gate = prepare(new NoisyGate({ dModel: 3, numExpert: 1, topK: 1 }), device);
    gate.forward(tokens(8, 3, device));
    expectLosses(gate, { balance: 0, load: 0 });
  });
});
