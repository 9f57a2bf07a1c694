import { randn } from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { expect, it } from 'vitest';
import { FMoETransformerMLP } from '../fmoe-transformer-mlp.js';
import { ZeroGate } from './zero-gate.js';

describeEachDevice('ZeroGate', (device) => {
  it.each([1, 2, 3, 4])('sends all %i choices to expert 0, each with an equal part', (topK) => {
    const gate = new ZeroGate({ dModel: 4, numExpert: 5, topK });
    for (const training of [true, false]) {
      const { topIdx, topScore } = gate.train(training).forward(randn([3, 4], { device }));
      expect(topIdx.cpu().toArray()).toEqual(new Array(3).fill(new Array(topK).fill(0n)));
      expect(topScore.shape).toEqual([3, topK]);
      expect(topScore.sum().item()).toBeCloseTo(3, 6);
      expect([topIdx.dtype, topScore.dtype, gate.hasLoss]).toEqual(['int64', 'float32', false]);
    }
    expect(gate.parameters()).toEqual([]);
  });

  it('makes a layer that is its first expert', () => {
    const make = (gate: typeof ZeroGate, topK: number) =>
      new FMoETransformerMLP({ numExpert: 2, dModel: 4, dHidden: 6, topK, gate }).to({ device });
    const [one, two] = [make(ZeroGate, 1), make(ZeroGate, 2)];
    two.loadStateDict(one.stateDict());
    const x = randn([3, 4], { device });
    const difference = one.forward(x).sub(two.forward(x)).abs().max().item();
    expect(difference).toBeLessThan(1e-6);
  });
});
