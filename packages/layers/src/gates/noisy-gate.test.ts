import {
  autocast,
  getRngState,
  gradcheck,
  manualSeed,
  randn,
  randnLike,
  setRngState,
  type Tensor,
} from '@fmoe/torch';
import { expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { NoisyGate } from './noisy-gate.js';

beforeEach(() => {
  manualSeed(6);
});

const double = { dtype: 'float64' } as const;

/** The normal distribution's Φ by Simpson's rule. */
function normalCdf(z: number): number {
  const steps = 2000;
  const end = Math.max(-9, Math.min(9, z));
  let sum = 0;
  for (let i = 0; i <= steps; i++) {
    const weight = i === 0 || i === steps ? 1 : i % 2 === 1 ? 4 : 2;
    sum += weight * Math.exp(-0.5 * ((end * i) / steps) ** 2);
  }
  return 0.5 + (end / steps / 3) * (sum / Math.sqrt(2 * Math.PI));
}

const squaredVariation = (values: number[]): number => {
  const mean = values.reduce((a, b) => a + b) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  return variance / (mean ** 2 + 1e-10);
};

const product = (x: Tensor, weight: Tensor): number[][] => x.matmul(weight).toArray() as number[][];

describe('NoisyGate', () => {
  it('follows the paper, number by number, with its own noise replayed', () => {
    const [tokens, numExpert, topK] = [9, 5, 2];
    const gate = new NoisyGate({ dModel: 4, numExpert, topK }).to('float64');
    const x = randn([tokens, 4], double);
    const before = getRngState();
    const { topIdx, topScore } = gate.forward(x);
    setRngState(before);
    const noise = randnLike(x.matmul(gate.w_gate)).toArray() as number[][];
    const clean = product(x, gate.w_gate);
    const sigma = product(x, gate.w_noise).map((row) =>
      row.map((value) => Math.log1p(Math.exp(value)) + 0.01),
    );
    const noisy = clean.map((row, t) => row.map((value, e) => value + noise[t]![e]! * sigma[t]![e]!));

    const importance = new Array<number>(numExpert).fill(0);
    const load = new Array<number>(numExpert).fill(0);
    const scores: number[][] = [];
    const choices = noisy.map((row, t) => {
      const order = row.map((_, e) => e).sort((a, b) => row[b]! - row[a]!);
      const chosen = order.slice(0, topK);
      const exps = chosen.map((e) => Math.exp(row[e]!));
      scores.push(exps.map((value) => value / exps.reduce((a, b) => a + b)));
      chosen.forEach((e, slot) => {
        importance[e]! += scores[t]![slot]!;
      });
      for (let e = 0; e < numExpert; e++) {
        const others = row.filter((_, other) => other !== e).sort((a, b) => b - a);
        load[e]! += normalCdf((clean[t]![e]! - others[topK - 1]!) / sigma[t]![e]!);
      }
      return chosen;
    });
    expect(topIdx.toArray()).toEqual(choices.map((row) => row.map(BigInt)));
    expectAllClose(topScore, scores, { rtol: 1e-12, atol: 0 });
    expect(gate.getLoss()!.item()).toBeCloseTo(squaredVariation(importance) + squaredVariation(load), 9);
  });

  it('passes gradients of scores and loss to both matrices', () => {
    const gate = new NoisyGate({ dModel: 3, numExpert: 4, topK: 2 }).to('float64');
    const x = randn([5, 3], { ...double, requiresGrad: true });
    gradcheck(() => {
      manualSeed(9);
      const { topScore } = gate.forward(x);
      return [topScore, gate.getLoss()!];
    }, [x, ...gate.parameters()]);
  });

  it('has neither noise nor loss in evaluation mode, and no NaN for any k', () => {
    for (let topK = 1; topK <= 4; topK++) {
      const gate = new NoisyGate({ dModel: 3, numExpert: 4, topK }).eval();
      const x = randn([6, 3]);
      const first = gate.forward(x);
      expect(first.topIdx.shape).toEqual([6, topK]);
      expect(gate.forward(x).topScore.toArray()).toEqual(first.topScore.toArray());
      expectAllClose(first.topScore.sum(-1), new Array(6).fill(1));
      expect(gate.hasLoss).toBe(false);
    }
  });

  it('counts positive scores as the load when every expert is chosen', () => {
    const gate = new NoisyGate({ dModel: 3, numExpert: 3, topK: 3 }).to('float64');
    const { topIdx, topScore } = gate.forward(randn([8, 3], double));
    const importance = [0, 0, 0];
    const scores = topScore.toArray() as number[][];
    (topIdx.toArray() as bigint[][]).forEach((row, t) => {
      row.forEach((expert, slot) => {
        importance[Number(expert)]! += scores[t]![slot]!;
      });
    });
    // Each expert has all 8 tokens: the load is even and adds nothing.
    expect(gate.getLoss()!.item()).toBeCloseTo(squaredVariation(importance), 12);
  });

  it('keeps the router in float32 under autocast', () => {
    const gate = new NoisyGate({ dModel: 8, numExpert: 4 }).eval();
    const x = randn([6, 8]);
    const plain = gate.forward(x).topScore;
    autocast({ dtype: 'bfloat16' }, () => {
      expectAllClose(gate.forward(x).topScore, plain, { rtol: 0, atol: 0 });
    });
  });

  it('has a loss of 0 with a single expert', () => {
    const gate = new NoisyGate({ dModel: 3, numExpert: 1, topK: 1 });
    gate.forward(randn([8, 3]));
    expect(gate.getLoss()!.item()).toBe(0);
  });
});
