/** Shape letters: T tokens, D model width, N all experts. */
import { manualSeed, rand, randn } from '@fmoe/torch';
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
import { evenness, prune, scoredTopK, softmax } from '../../test/plain-gates.js';
import { SwitchGate } from './switch-gate.js';

beforeEach(() => {
  manualSeed(16);
});

const options = { dModel: 5, numExpert: 4 };

describeEachDevice('SwitchGate', (device) => {
  it.each([0.1, 0.5, 1.2, null])('follows the paper with capacity %s', (capacity) => {
    const gate = prepare(new SwitchGate({ ...options, capacity }), device);
    const x = tokens(21, 5, device);
    manualSeed(3);
    const noise = rand([21, 5], { dtype: 'float64', device });
    // U(1 - 0.01, 1 + 0.01)
    const jittered = x.mul(noise.mul(0.02).add(0.99));
    const scoring = { scoreFunction: 'softmax', normalize: false } as const;
    const budget = () => (capacity === null ? Number.POSITIVE_INFINITY : Math.ceil((capacity * 21) / 4));

    const logits = plainLogits(gate, jittered);
    const choice = scoredTopK(logits, 1, scoring);
    manualSeed(3);
    expectChoice(forwardTokens(gate, x), { ...choice, topIdx: prune(choice.topIdx, budget) });
    expectLosses(gate, { balance: evenness(choice.topIdx.flat(), logits.map(softmax)) });

    gate.eval();
    const calm = scoredTopK(plainLogits(gate, x), 1, scoring);
    expectChoice(forwardTokens(gate, x), { ...calm, topIdx: prune(calm.topIdx, budget) });
    expect(gate.hasLoss).toBe(false);
  });

  it('passes gradients of scores and loss', () => {
    expectGradients(prepare(new SwitchGate(options), device), tokens(5, 5, device));
  });

  it('takes 308 tokens of 4096 for each of 16 experts, as the worked example says', () => {
    const gate = prepare(new SwitchGate({ ...options, numExpert: 16, jitter: 0 }), device);
    const x = tokens(1, 5, device).expand([4096, 5]);
    const kept = integers(forwardTokens(gate, x).topIdx)
      .flat()
      .filter((e) => e >= 0);
    expect(kept.length).toBe(308);
    // The loss counts what was wanted, so it is a number however little is kept.
    expect(gate.getLoss()!.item()).toBeGreaterThan(1);
  });

  it('works with a single expert and with no tokens', () => {
    const gate = new SwitchGate({ dModel: 3, numExpert: 1 }).to({ device });
    expect(integers(forwardTokens(gate, randn([2, 3], { device })).topIdx)).toEqual([[0], [0]]);
    expect(gate.getLoss()!.item()).toBeCloseTo(1, 6);
    gate.forward(randn([0, 3], { device }));
    expect(gate.getLoss()!.item()).toBe(0);
  });

  it('refuses another topK', () => {
    expect(() => new SwitchGate({ ...options, topK: 2 })).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(/^SwitchGate: .*topK 2/),
      }),
    );
  });
});
