import { autocast, gradcheck, manualSeed, randn, type Tensor, tensor, tidy } from '@fmoe/torch';
import { expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { NaiveGate } from './naive-gate.js';

beforeEach(() => {
  manualSeed(5);
});

const softmax = (values: number[]): number[] => {
  const exps = values.map((value) => Math.exp(value - Math.max(...values)));
  const sum = exps.reduce((a, b) => a + b);
  return exps.map((value) => value / sum);
};

/** The router's logits, computed in plain numbers. */
function plainLogits(gate: NaiveGate, x: Tensor): number[][] {
  const weight = gate.gate.weight.toArray() as number[][];
  const bias = (gate.gate.bias?.toArray() ?? weight.map(() => 0)) as number[];
  return (x.toArray() as number[][]).map((row) =>
    weight.map((column, expert) => column.reduce((sum, w, i) => sum + w * row[i]!, bias[expert]!)),
  );
}

describe('NaiveGate', () => {
  it.each([true, false])('chooses the largest logits, scores them by their softmax (bias %s)', (gateBias) => {
    const gate = new NaiveGate({ dModel: 5, numExpert: 6, topK: 3, gateBias }).to('float64');
    const x = randn([40, 5], { dtype: 'float64' });
    const { topIdx, topScore } = gate.forward(x);
    const expected = plainLogits(gate, x).map((logits) => {
      const order = logits
        .map((_, expert) => expert)
        .sort((a, b) => logits[b]! - logits[a]!)
        .slice(0, 3);
      return { order, score: softmax(order.map((expert) => logits[expert]!)) };
    });
    expect(topIdx.toArray()).toEqual(expected.map(({ order }) => order.map(BigInt)));
    expectAllClose(
      topScore,
      expected.map(({ score }) => score),
      { rtol: 1e-12, atol: 0 },
    );
    expect(gate.gate.bias !== null).toBe(gateBias);
  });

  it('leaves N · Σ f·P as its loss', () => {
    const gate = new NaiveGate({ dModel: 5, numExpert: 4, topK: 2 }).to('float64');
    const x = randn([12, 5], { dtype: 'float64' });
    const { topIdx } = gate.forward(x);
    const chosen = (topIdx.toArray() as bigint[][]).flat().map(Number);
    const probabilities = plainLogits(gate, x).map(softmax);
    let expected = 0;
    for (let expert = 0; expert < 4; expert++) {
      const share = chosen.filter((index) => index === expert).length / 24;
      expected += 4 * share * (probabilities.reduce((sum, row) => sum + row[expert]!, 0) / 12);
    }
    expect(gate.getLoss()!.item()).toBeCloseTo(expected, 12);
  });

  it('has a loss of 1 for an even router and of N when all tokens agree', () => {
    const gate = new NaiveGate({ dModel: 2, numExpert: 4, topK: 1, gateBias: false }).to('float64');
    gate.gate.weight.requiresGrad_(false).copy_(
      tensor(
        [
          [60, 0],
          [-60, 0],
          [0, 60],
          [0, -60],
        ],
        { dtype: 'float64' },
      ),
    );
    const corners = tensor(
      [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
      ],
      { dtype: 'float64' },
    );
    gate.forward(corners);
    expect(gate.getLoss()!.item()).toBeCloseTo(1, 12);
    gate.forward(corners.narrow(0, 0, 1).expand([4, 2]));
    expect(gate.getLoss()!.item()).toBeCloseTo(4, 12);
  });

  it('passes gradients of scores and loss to the router', () => {
    const gate = new NaiveGate({ dModel: 3, numExpert: 4, topK: 2 }).to('float64');
    const x = randn([6, 3], { dtype: 'float64', requiresGrad: true });
    gradcheck(() => {
      const { topScore } = gate.forward(x);
      return [topScore, gate.getLoss()!];
    }, [x, ...gate.parameters()]);
  });

  it('keeps the router in float32 for half-precision tokens', () => {
    const gate = new NaiveGate({ dModel: 8, numExpert: 4 }).to('bfloat16');
    const { topScore } = gate.forward(randn([6, 8]).bfloat16());
    expect(topScore.dtype).toBe('float32');
    expect(gate.getLoss()!.dtype).toBe('float32');
  });

  it('keeps the router in float32 under autocast', () => {
    const gate = new NaiveGate({ dModel: 8, numExpert: 4 });
    const x = randn([6, 8]);
    const plain = gate.forward(x);
    autocast({ dtype: 'bfloat16' }, () => {
      expect(x.matmul(x.t()).dtype).toBe('bfloat16');
      expectAllClose(gate.forward(x).topScore, plain.topScore, { rtol: 0, atol: 0 });
      expect(x.matmul(x.t()).dtype).toBe('bfloat16');
    });
  });

  it('leaves no loss in evaluation mode, without balance, or with no tokens worth anything but a number', () => {
    const options = { dModel: 3, numExpert: 4 };
    const evaluating = new NaiveGate(options).eval();
    evaluating.forward(randn([5, 3]));
    expect(evaluating.hasLoss).toBe(false);
    const unbalanced = new NaiveGate({ ...options, balance: false });
    unbalanced.forward(randn([5, 3]));
    expect(unbalanced.getLoss()).toBeNull();
    const empty = new NaiveGate(options);
    empty.forward(randn([0, 3]));
    expect(empty.getLoss()!.item()).toBe(0);
  });

  it('gives its loss once, and forgets it with the scope of the step', () => {
    const gate = new NaiveGate({ dModel: 3, numExpert: 4 });
    gate.forward(randn([5, 3]));
    expect(gate.getLoss(false)).not.toBeNull();
    expect(gate.getLoss()).not.toBeNull();
    expect(gate.getLoss()).toBeNull();
    tidy(() => {
      gate.forward(randn([5, 3]));
      expect(gate.hasLoss).toBe(true);
    });
    expect(gate.hasLoss).toBe(false);
    expect(gate.getLoss()).toBeNull();
  });
});
