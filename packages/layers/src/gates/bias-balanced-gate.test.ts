/** Shape letters: T tokens, D model width, N all experts, K top-k. */
import { checkpoint, manualSeed, noGrad, randn, tensor } from '@fmoe/torch';
import { describeEachDevice, expectAllClose } from '@fmoe/torch/testing';
import { beforeEach, expect, it } from 'vitest';
import {
  expectChoice,
  expectGradients,
  forwardTokens,
  integers,
  plainLogits,
  prepare,
  tokens,
} from '../../test/gate-checks.js';
import { range, scoredTopK } from '../../test/plain-gates.js';
import { BiasBalancedGate } from './bias-balanced-gate.js';

beforeEach(() => {
  manualSeed(18);
});

const sizes = { dModel: 5, numExpert: 6 };

describeEachDevice('BiasBalancedGate', (device) => {
  for (const scoreFunction of ['softmax', 'softmaxChosen', 'sigmoid'] as const) {
    it.each([1, 2, 4])(
      `chooses by ${scoreFunction} + bias and moves the bias by the sign of the load's error, k %i`,
      (topK) => {
        const rate = 0.05;
        const gate = prepare(
          new BiasBalancedGate({ ...sizes, topK, scoreFunction, biasUpdateRate: rate }),
          device,
        );
        let bias = range(6).map(() => 0);
        for (let step = 0; step < 8; step++) {
          const x = tokens(13, 5, device);
          const expected = scoredTopK(plainLogits(gate, x), topK, { scoreFunction, normalize: true, bias });
          expectChoice(forwardTokens(gate, x), expected);
          const loads = range(6).map((e) => expected.topIdx.flat().filter((other) => other === e).length);
          bias = bias.map((value, e) => value + rate * Math.sign((13 * topK) / 6 - loads[e]!));
          expectAllClose(gate.expert_bias, bias, { rtol: 0, atol: 1e-12 });
        }
        expect(gate.hasLoss).toBe(false);
        gate.eval();
        const x = tokens(13, 5, device);
        expectChoice(
          forwardTokens(gate, x),
          scoredTopK(plainLogits(gate, x), topK, { scoreFunction, normalize: true, bias }),
        );
        expectAllClose(gate.expert_bias, bias, { rtol: 0, atol: 1e-12 });
      },
    );
  }

  it('evens out the load of a router that prefers one expert', () => {
    const gate = prepare(new BiasBalancedGate({ ...sizes, topK: 1, biasUpdateRate: 0.01 }), device);
    gate.gate.bias!.requiresGrad_(false).copy_(tensor([2, 0, 0, 0, 0, 0], { dtype: 'float64', device }));
    const x = tokens(300, 5, device);
    const largest = () => {
      const chosen = integers(forwardTokens(gate, x).topIdx).flat();
      return Math.max(...range(6).map((e) => chosen.filter((other) => other === e).length));
    };
    expect(largest()).toBeGreaterThan(150);
    for (let step = 0; step < 200; step++) gate.forward(x);
    expect(largest()).toBeLessThan(80);
  });

  it('adds up loads until updateBias is called, when that is manual', () => {
    const gate = prepare(new BiasBalancedGate({ ...sizes, topK: 2, biasUpdate: 'manual' }), device);
    const [a, b] = [tokens(9, 5, device), tokens(8, 5, device)];
    const chosen = [a, b].flatMap((x) => integers(forwardTokens(gate, x).topIdx).flat());
    const loads = range(6).map((e) => chosen.filter((other) => other === e).length);
    expect(gate.tokensPerExpert.cpu().toArray()).toEqual(loads.map(BigInt));
    expectAllClose(
      gate.expert_bias,
      range(6).map(() => 0),
    );
    gate.updateBias();
    const bias = loads.map((load) => 1e-3 * Math.sign(34 / 6 - load));
    expectAllClose(gate.expert_bias, bias, { rtol: 0, atol: 1e-12 });
    expect(gate.tokensPerExpert.sum().item()).toBe(0);
    gate.updateBias();
    expectAllClose(gate.expert_bias, bias, { rtol: 0, atol: 1e-12 });
  });

  it('counts a pass once, also when it is checkpointed, and none without gradients', () => {
    const gate = prepare(new BiasBalancedGate({ ...sizes, topK: 2, biasUpdate: 'manual' }), device);
    const x = tokens(9, 5, device);
    noGrad(() => gate.forward(x));
    expect(gate.tokensPerExpert.sum().item()).toBe(0);
    checkpoint((input) => forwardTokens(gate, input).topScore, x)
      .pow(2)
      .sum()
      .backward();
    expect(gate.tokensPerExpert.sum().item()).toBe(18);
  });

  it('keeps its bias as it is when the module becomes bfloat16', () => {
    const gate = prepare(new BiasBalancedGate({ ...sizes, topK: 2, biasUpdate: 'manual' }), device).to(
      'float32',
    );
    const bias = [1.003, -2.005, 0.001, 0, 3, -1];
    gate.expert_bias.copy_(tensor(bias, { device }));
    gate.to('bfloat16');
    expect([gate.gate.weight.dtype, gate.expert_bias.dtype]).toEqual(['bfloat16', 'float32']);
    expectAllClose(gate.expert_bias, bias, { rtol: 1e-7, atol: 0 });
    expect(forwardTokens(gate, randn([4, 5], { dtype: 'bfloat16', device })).topIdx.shape).toEqual([4, 2]);
  });

  it('passes gradients of the scores, and of a loss that is asked for', () => {
    const gate = new BiasBalancedGate({ ...sizes, topK: 2, biasUpdate: 'manual', balance: true });
    expectGradients(prepare(gate, device), tokens(4, 5, device));
  });

  it('keeps the bias in float32 in a half-precision model, and in the state dict', () => {
    const gate = new BiasBalancedGate({ ...sizes, topK: 1 }).to({ dtype: 'bfloat16', device });
    for (let step = 0; step < 3; step++) gate.forward(randn([64, 5], { device }).bfloat16());
    expect(gate.expert_bias.dtype).toBe('float32');
    const stored = gate.stateDict()['expert_bias']!;
    expect(Object.keys(gate.stateDict()).sort()).toEqual(['expert_bias', 'gate.bias', 'gate.weight']);
    const other = new BiasBalancedGate({ ...sizes, topK: 1 }).to({ device });
    other.loadStateDict(gate.stateDict());
    expectAllClose(other.expert_bias, stored, { rtol: 0, atol: 0 });
    expect(other.expert_bias.abs().max().item()).toBeGreaterThan(0);
  });

  it.each([
    ['a negative rate', { biasUpdateRate: -1 }, /^BiasBalancedGate: biasUpdateRate/],
    ['an unknown time', { biasUpdate: 'never' as 'manual' }, /^BiasBalancedGate: biasUpdate must be one of/],
  ])('refuses %s', (_, options, message) => {
    expect(() => new BiasBalancedGate({ ...sizes, ...options })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) }),
    );
  });
});
