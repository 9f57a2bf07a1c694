/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { manualSeed, zeros } from '@fmoe/torch';
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
import { evenness, scoredTopK, sigmoidShares, softmax } from '../../test/plain-gates.js';
import { TopKGate, type TopKGateOptions } from './topk-gate.js';

beforeEach(() => {
  manualSeed(17);
});

describeEachDevice('TopKGate', (device) => {
  for (const scoreFunction of ['softmax', 'softmaxChosen', 'sigmoid'] as const) {
    for (const normalize of [false, true]) {
      it.each([1, 2, 3, 4])(`scores by ${scoreFunction}, normalize ${normalize}, k %i`, (k) => {
        const scale = k === 3 ? 2.5 : 1;
        const gate = prepare(
          new TopKGate({ dModel: 5, numExpert: 6, topK: k, scoreFunction, normalize, scalingFactor: scale }),
          device,
        );
        const x = tokens(15, 5, device);
        const logits = plainLogits(gate, x);
        const expected = scoredTopK(logits, k, { scoreFunction, normalize, scale });
        expectChoice(forwardTokens(gate, x), expected);
        const probability = logits.map(scoreFunction === 'sigmoid' ? sigmoidShares : softmax);
        expectLosses(gate, { balance: evenness(expected.topIdx.flat(), probability) });
        expectGradients(gate, tokens(3, 5, device));
        expectChoice(forwardTokens(gate.eval(), x), expected);
      });
    }
  }

  it('has a loss where all sigmoids vanish', () => {
    const gate = prepare(new TopKGate({ dModel: 2, numExpert: 3, scoreFunction: 'sigmoid' }), device);
    gate.gate.bias!.requiresGrad_(false).fill_(-2000);
    gate.forward(zeros([4, 2], { dtype: 'float64', device }));
    expect(gate.getLoss()!.item()).toBeCloseTo(1, 12);
  });

  it.each([
    [
      'an unknown score function',
      { scoreFunction: 'max' },
      /^TopKGate: scoreFunction must be one of 'softmax'/,
    ],
    [
      'a scaling factor of 0',
      { scalingFactor: 0 },
      /^TopKGate: scalingFactor must be a positive number, got 0/,
    ],
    ['more choices than experts', { topK: 9 }, /^TopKGate: topK is 9/],
  ])('refuses %s', (_, options, message) => {
    expect(() => new TopKGate({ dModel: 4, numExpert: 4, ...options } as TopKGateOptions)).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) }),
    );
  });
});
