import { manualSeed, nn, randn, type Tensor, tidy } from '@fmoe/torch';
import { beforeEach, describe, expect, it } from 'vitest';
import { FMoETransformerMLP } from '../fmoe-transformer-mlp.js';
import type { TokenRoute } from '../gates/route.js';
import { collectBalanceLoss } from './balance-loss.js';
import { readExpertLoad } from './load-statistics.js';

beforeEach(() => {
  manualSeed(7);
});

class TwoLayers extends nn.Module {
  readonly first = new FMoETransformerMLP({ numExpert: 4, dModel: 6, dHidden: 8 });
  readonly dense = new nn.Linear(6, 6);
  readonly second = new FMoETransformerMLP({ numExpert: 3, dModel: 6, dHidden: 8, topK: 1 });
  override forward(x: Tensor): Tensor {
    return this.second.forward(this.dense.forward(this.first.forward(x)));
  }
}

describe('collectBalanceLoss', () => {
  it('gives the mean or the sum of all gates, and takes the losses', () => {
    const model = new TwoLayers();
    model.forward(randn([10, 6]));
    const losses = [model.first, model.second].map((layer) => layer.gate.getLoss(false)!.item());
    expect(collectBalanceLoss(model, { clear: false })!.item()).toBeCloseTo((losses[0]! + losses[1]!) / 2, 6);
    expect(collectBalanceLoss(model, { reduction: 'sum' })!.item()).toBeCloseTo(losses[0]! + losses[1]!, 6);
    expect(collectBalanceLoss(model)).toBeNull();
  });

  it('reaches the routers of all layers', () => {
    const model = new TwoLayers();
    model.forward(randn([10, 6]));
    collectBalanceLoss(model)!.backward();
    for (const layer of [model.first, model.second]) {
      expect(layer.gate.parameters()[0]!.grad!.norm().item()).toBeGreaterThan(0);
    }
  });

  it('gives null for a dense model', () => {
    expect(collectBalanceLoss(new nn.Linear(2, 2))).toBeNull();
  });
});

describe('load statistics', () => {
  it('add up over training steps, skip evaluation, survive scopes, and start anew after a reset', () => {
    const model = new TwoLayers();
    tidy(() => model.forward(randn([10, 6])));
    tidy(() => model.forward(randn([5, 6])));
    model.eval();
    tidy(() => model.forward(randn([100, 6])));
    const loads = readExpertLoad(model, { reset: true });
    expect(loads.map((load) => load.length)).toEqual([4, 3]);
    expect(loads.map((load) => load.reduce((a, b) => a + b))).toEqual([30, 15]);
    expect(readExpertLoad(model)).toEqual([
      [0, 0, 0, 0],
      [0, 0, 0],
    ]);
  });

  it('count what the gate chose', () => {
    const { first } = new TwoLayers();
    first.load.when = 'always';
    first.eval();
    const x = randn([20, 6]);
    first.forward(x);
    const { topIdx } = first.gate.forward(x) as TokenRoute;
    const chosen = (topIdx.toArray() as bigint[][]).flat();
    expect(first.load.read()).toEqual(
      [0n, 1n, 2n, 3n].map((expert) => chosen.filter((e) => e === expert).length),
    );
    first.load.when = 'never';
    first.forward(x);
    expect(first.load.read().reduce((a, b) => a + b)).toBe(40);
  });
});
