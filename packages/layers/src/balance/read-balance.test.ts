import { manualSeed, nn, randn, type Tensor, tidy } from '@fmoe/torch';
import { describeEachDevice } from '@fmoe/torch/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { FMoETransformerMLP } from '../fmoe-transformer-mlp.js';
import { NaiveGate, SwitchGate, ZeroGate } from '../gates/index.js';
import { balanceMetrics } from './balance-metrics.js';
import { LoadStatistics } from './load-statistics.js';
import { readBalance } from './read-balance.js';

beforeEach(() => {
  manualSeed(7);
});

describe('balanceMetrics', () => {
  it('follows FastMoE', () => {
    // Mean 2, unbiased variance (4 + 1 + 1 + 4 + 0) / 4 = 2.5.
    const metrics = balanceMetrics([0, 1, 3, 4, 2]);
    expect(metrics['coefficient-variation']).toBeCloseTo(Math.sqrt(2.5) / 2, 12);
    expect(metrics['Lmax-over-Lmin']).toBe(5);
    expect(metrics['Lmax-over-Lmean']).toBe(2);
  });

  it.each([[[3, 3, 3]], [[0, 0]], [[7]], [[0]]])('finds %j even', (counts) => {
    expect(balanceMetrics(counts)).toEqual({
      'coefficient-variation': 0,
      'Lmax-over-Lmin': 1,
      'Lmax-over-Lmean': 1,
    });
  });
});

describeEachDevice('readBalance', (device) => {
  class Model extends nn.Module {
    readonly first = new FMoETransformerMLP({
      numExpert: 4,
      dModel: 6,
      dHidden: 8,
      topK: 1,
      gate: SwitchGate,
    });
    readonly dense = new nn.Linear(6, 6);
    readonly second = new FMoETransformerMLP({ numExpert: 3, dModel: 6, dHidden: 8, gate: ZeroGate });
    override forward(x: Tensor): Tensor {
      return this.second.forward(this.dense.forward(this.first.forward(x)));
    }
  }

  it('reads each layer: counts, metrics, dropped share, entropy', () => {
    const model = new Model().to({ device });
    const gate = model.first.gate as SwitchGate;
    gate.gate.weight.requiresGrad_(false).zero_();
    gate.gate.bias!.requiresGrad_(false).zero_();
    // All logits are equal: everything goes to expert 0, of which ⌈1.2 · 20 / 4⌉ = 6 tokens fit.
    tidy(() => model.forward(randn([20, 6], { device })));
    tidy(() => model.forward(randn([20, 6], { device })));
    const [first, second] = readBalance(model, { reset: true });
    expect(first).toMatchObject({ layer: 'first', counts: [12, 0, 0, 0], ...balanceMetrics([12, 0, 0, 0]) });
    expect(first!.droppedShare).toBeCloseTo(28 / 40, 12);
    expect(first!.routerEntropy).toBeCloseTo(Math.log(4), 5);
    expect(second).toMatchObject({
      layer: 'second',
      counts: [80, 0, 0],
      droppedShare: 0,
      routerEntropy: null,
    });
    for (const layer of readBalance(model)) {
      expect(layer.counts.every((count) => count === 0)).toBe(true);
      expect([layer.droppedShare, layer.routerEntropy]).toEqual([null, null]);
    }
  });

  it('counts in training mode only', () => {
    const model = new FMoETransformerMLP({ numExpert: 4, dModel: 6, dHidden: 8, gate: NaiveGate }).to({
      device,
    });
    model.eval();
    model.forward(randn([5, 6], { device }));
    expect(readBalance(model)).toMatchObject([{ layer: '', counts: [0, 0, 0, 0], routerEntropy: null }]);
  });

  it('survives a change of dtype, and does not know what was not counted', () => {
    const load = new LoadStatistics(2).to({ device });
    load.add(load.counts.add(3));
    load.to('bfloat16');
    expect([load.read(), load.readDroppedShare()]).toEqual([[3, 3], null]);
    expect(load.counts.dtype).toBe('int64');
  });
});
