/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { manualSeed, randn, tensor, tidy } from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { beforeEach, expect, it } from 'vitest';
import {
  expectChoice,
  expectGradients,
  expectLosses,
  forwardTokens,
  plainLogits,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import { evenness, softmax, topK } from '../../test/plain-gates.js';
import { NaiveGate } from './naive-gate.js';

beforeEach(() => {
  manualSeed(5);
});

describeEachDevice('NaiveGate', (device) => {
  for (const k of [1, 2, 3, 4]) {
    it.each([true, false])(
      `chooses the ${k} largest logits, scores them by their softmax, leaves N · Σ f·P (bias %s)`,
      (gateBias) => {
        const gate = prepare(new NaiveGate({ dModel: 5, numExpert: 6, topK: k, gateBias }), device);
        const x = tokens(20, 5, device);
        const logits = plainLogits(gate, x);
        const expected = topK(logits, k);
        expectChoice(forwardTokens(gate, x), expected);
        expectLosses(gate, { balance: evenness(expected.topIdx.flat(), logits.map(softmax)) });
        expectGradients(gate, tokens(4, 5, device));
        gate.eval();
        expectChoice(forwardTokens(gate, x), expected);
        expect(gate.hasLoss).toBe(false);
        expect(gate.gate.bias !== null).toBe(gateBias);
      },
    );
  }

  it('has a loss of 1 for an even router and of N when all tokens agree', () => {
    const gate = prepare(new NaiveGate({ dModel: 2, numExpert: 4, topK: 1, gateBias: false }), device);
    const double = { dtype: 'float64', device } as const;
    const weight = tensor(
      [
        [60, 0],
        [-60, 0],
        [0, 60],
        [0, -60],
      ],
      double,
    );
    gate.gate.weight.requiresGrad_(false).copy_(weight);
    const corners = weight.div(60);
    gate.forward(corners);
    expect(gate.getLoss()!.item()).toBeCloseTo(1, 12);
    gate.forward(corners.narrow(0, 0, 1).expand([4, 2]));
    expect(gate.getLoss()!.item()).toBeCloseTo(4, 12);
  });

  it('leaves no loss without balance, and with no tokens nothing but a number', () => {
    const options = { dModel: 3, numExpert: 4 };
    const unbalanced = new NaiveGate({ ...options, balance: false }).to({ device });
    unbalanced.forward(randn([5, 3], { device }));
    expect(unbalanced.getLoss()).toBeNull();
    const empty = new NaiveGate(options).to({ device });
    empty.forward(randn([0, 3], { device }));
    expect(empty.getLoss()!.item()).toBe(0);
  });

  it('gives its loss once, and forgets it with the scope of the step', () => {
    const gate = new NaiveGate({ dModel: 3, numExpert: 4 }).to({ device });
    const x = randn([5, 3], { device });
    gate.forward(x);
    expect(gate.getLoss(false)).not.toBeNull();
    expect(gate.getLoss()).not.toBeNull();
    expect(gate.getLoss()).toBeNull();
    tidy(() => {
      gate.forward(x);
      expect(gate.hasLoss).toBe(true);
    });
    expect(gate.hasLoss).toBe(false);
    expect(gate.getLoss()).toBeNull();
  });
});
