/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { manualSeed, tensor } from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { beforeEach, expect, it } from 'vitest';
import {
  expectChoice,
  expectGradients,
  expectLosses,
  forwardTokens,
  integers,
  plainLogits,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import { bestGroups, evenness, range, scoredTopK, sigmoidShares, softmax } from '../../test/plain-gates.js';
import { GroupLimitedGate, type GroupLimitedGateOptions } from './group-limited-gate.js';

beforeEach(() => {
  manualSeed(19);
});

const sizes = { dModel: 5, numExpert: 8, numGroups: 4, groupTopK: 2 };

describeEachDevice('GroupLimitedGate', (device) => {
  for (const scoreFunction of ['softmax', 'softmaxChosen', 'sigmoid'] as const) {
    for (const normalize of [true, false]) {
      it.each([1, 2, 3, 4])(
        `chooses within the best groups: ${scoreFunction}, normalize ${normalize}, k %i`,
        (topK) => {
          const options = {
            ...sizes,
            topK,
            scoreFunction,
            normalize,
            scalingFactor: 1.5,
            biasUpdateRate: 0.3,
          };
          const gate = prepare(
            new GroupLimitedGate({ ...options, biasUpdate: 'manual', balance: true }),
            device,
          );
          const bias = range(8).map((e) => 0.05 * Math.sin(e * 2));
          gate.expert_bias.copy_(tensor(bias, { dtype: 'float64', device }));
          const x = tokens(25, 5, device);
          const logits = plainLogits(gate, x);
          const settings = { scoreFunction, normalize, bias, scale: 1.5 };
          const best = scoreFunction === 'sigmoid' ? 2 : 1;
          const allowed = bestGroups(logits, { ...settings, numGroups: 4, groupTopK: 2, best });
          const expected = scoredTopK(logits, topK, { ...settings, allowed });
          const route = forwardTokens(gate, x);
          expectChoice(route, expected);
          const probability = logits.map(scoreFunction === 'sigmoid' ? sigmoidShares : softmax);
          expectLosses(gate, { balance: evenness(expected.topIdx.flat(), probability) });
          for (const row of integers(route.topIdx)) {
            expect(new Set(row.map((e) => Math.floor(e / 2))).size).toBeLessThanOrEqual(2);
          }
          expectGradients(gate, tokens(3, 5, device));
          expectChoice(forwardTokens(gate.eval(), x), expected);
        },
      );
    }
  }

  it('moves its bias only when told to', () => {
    const still = prepare(new GroupLimitedGate({ ...sizes, topK: 2 }), device);
    still.forward(tokens(40, 5, device));
    expect(still.expert_bias.abs().sum().item()).toBe(0);
    expect(still.hasLoss).toBe(true);
    const moving = prepare(new GroupLimitedGate({ ...sizes, topK: 2, biasUpdateRate: 0.01 }), device);
    moving.forward(tokens(41, 5, device));
    expect(moving.expert_bias.abs().sum().item()).toBeGreaterThan(0);
    expect(moving.hasLoss).toBe(false);
  });

  it.each<[string, Partial<GroupLimitedGateOptions>, RegExp]>([
    ['groups that do not divide the experts', { numGroups: 3 }, /numGroups 3 does not divide the 8 experts/],
    ['more groups than there are', { groupTopK: 5 }, /groupTopK is 5, but there are only 4 groups/],
    ['more choices than the groups hold', { topK: 5 }, /2 groups of 2 hold only 4 experts/],
    ['no groups', { numGroups: 0 }, /numGroups must be an integer of at least 1/],
    ['an unknown group score', { groupScore: 'sum' as 'max' }, /groupScore must be one of 'max', 'top2Sum'/],
  ])('refuses %s', (_, options, message) => {
    expect(() => new GroupLimitedGate({ ...sizes, ...options })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) }),
    );
    expect(() => new GroupLimitedGate({ ...sizes, ...options })).toThrow(/^GroupLimitedGate: /);
  });
});
